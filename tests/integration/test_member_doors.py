"""Junk, floods and damaged frames at the doors of real members, with and without CURVE."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.cli.admin import AdminClient
from pbcluster.errors import Unavailable
from pbcluster.raft.frames import MAGIC, MAX_FRAME_BYTES, Frame, encode
from pbcluster.raft.messages import AnyMessage, Append, Heartbeat, TimeoutNow, VoteRequest
from pbcluster.testing import fuzz_frames
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.intruder import Intruder
from pbcluster.testing.soak_members import leader_of
from pbcluster.transport.envelopes import FrameChecks, Junk

MEMBERS = ("member_1", "member_2", "member_3")
#: Messages of each kind in a flood; three floods of 100,000 + 100,000 take about 8 s.
FLOOD = int(os.environ.get("PBCLUSTER_FLOOD", "100000"))
TERM = 10**6


class DoorCase(SynchronousTestCase):
    plain = False

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=3, insecure_plain_sockets=self.plain)
        self.addCleanup(self.cluster.close)
        self.cluster.start(*MEMBERS)
        self.cluster.wait_until(lambda: leader_of(self.cluster) != "", "a leader")
        self.leader = leader_of(self.cluster)
        self.follower, self.other = (name for name in MEMBERS if name != self.leader)
        self.pids = {name: self.cluster.pid(name) for name in MEMBERS}
        self.term = self.health(self.leader)["term"]

    def health(self, member: str) -> dict[str, Any]:
        port = self.cluster.plan.process(member).ports["admin"]
        return AdminClient(f"http://127.0.0.1:{port}", self.cluster.where.token()).health()

    def counts(self, member: str, kind: str) -> dict[str, int]:
        return dict(self.health(member)["counts"][kind])

    def intruder(self, member: str, use: str, name: str, known: bool = True) -> Intruder:
        where, plan = self.cluster.where, self.cluster.plan
        return Intruder(where, plan, member, use, name=name, known=known)

    def frame(self, message: AnyMessage, cluster: str = "", incarnation: int = 10**6) -> bytes:
        return encode(Frame(cluster or self.cluster.plan.cluster_id, incarnation, message))

    def wait_counts(self, member: str, kind: str, wanted: dict[str, int]) -> None:
        found: dict[str, int] = {}

        def all_counted() -> bool:
            # 503: it knows no leader at the moment. Was it an election, the term tells at the end.
            with contextlib.suppress(Unavailable):
                found.update(self.counts(member, kind))
            return all(found.get(reason, 0) >= n for reason, n in wanted.items())

        self.cluster.wait_until(all_counted, f"{wanted} at {member}", 30.0)
        self.assertEqual({reason: found[reason] for reason in wanted}, wanted)

    def assert_nothing_happened(self) -> None:
        """The same leader in the same term, the same processes, and reads are answered."""
        self.assertEqual(
            {n: self.health(n)["term"] for n in MEMBERS}, dict.fromkeys(MEMBERS, self.term)
        )
        self.assertIs(self.health(self.leader)["leader"], True)
        self.assertEqual({name: self.cluster.pid(name) for name in MEMBERS}, self.pids)
        for port in (self.cluster.plan.process(name).ports["admin"] for name in MEMBERS):
            client = AdminClient(f"http://127.0.0.1:{port}", self.cluster.where.token())
            self.assertEqual(client.all("tenants"), [])


class Doors(DoorCase):
    """With CURVE."""

    def test_each_wrong_frame_is_counted_and_dropped(self) -> None:
        """Junk, cut short, too large, another version, another cluster, in another's name, for
        another, of an earlier life: at the raft port with a member's own key. With a node's key or
        an unknown one nobody gets in there; bytes that are no ZeroMQ are ignored."""
        target, me = self.follower, self.leader
        beat = Heartbeat(me, target, TERM, 0)
        whole = self.frame(beat)
        wrong = {
            "junk": [
                b"",
                b"junk",
                whole[:-3],
                whole[:3] + b"\x02" + whole[4:],
                MAGIC + bytes(MAX_FRAME_BYTES),
                MAGIC + b"\xdd\xff\xff\xff\xff" * 100,
            ],
            "wrong_cluster": [self.frame(beat, "another")],
            "wrong_sender": [self.frame(m) for m in self.in_the_name_of(self.other)],
            "wrong_recipient": [self.frame(Heartbeat(me, self.other, TERM, 0))],
            # The target has heard a later start of this member: it leads.
            "stale_incarnation": [self.frame(beat, incarnation=0)] * 3,
        }
        with self.intruder(target, "raft", me) as intruder:
            intruder.send(itertools.chain.from_iterable(wrong.values()))
            self.wait_counts(target, "raft", {k: len(v) for k, v in wrong.items()})
        refused = self.counts(target, "connections").get("refused", 0)
        for name, known in (("node_1", True), (me, False)):
            with self.intruder(target, "raft", name, known) as intruder:
                self.assertTrue(intruder.is_shut_out(0.3))
        self.assertGreaterEqual(self.counts(target, "connections")["refused"], refused + 2)
        for use in ("raft", "requests"):
            address = ("127.0.0.1", self.cluster.plan.process(target).ports[use])
            with socket.create_connection(address, timeout=5) as stranger:
                stranger.sendall(random.Random(1).randbytes(20_000))
        self.assert_nothing_happened()

    def in_the_name_of(self, sender: str) -> list[AnyMessage]:
        head = (sender, self.follower, TERM)
        vote = VoteRequest(*head, 10**6, 10**6, transfer=True)
        return [vote, TimeoutNow(*head), Append(*head, 1, 1, 1)]

    def test_a_flood_is_no_election(self) -> None:
        """Many junk messages, and as many sound ones by a sender who may not say them, at a
        follower's and the leader's raft port and at the leader's request port, at once, there in
        bundles too: all are counted, the term stays, reads are answered meanwhile."""
        for target in (self.leader, self.follower):
            false = self.frame(Heartbeat(self.leader, target, TERM, 0))
            with self.intruder(target, "raft", self.other) as intruder:
                intruder.send(itertools.repeat(b"junk of a flood", FLOOD))
                self.cluster.admin.all("tenants")
                intruder.send(itertools.repeat(false, FLOOD))
                self.wait_counts(target, "raft", {"junk": FLOOD, "wrong_sender": FLOOD})
        cluster = self.cluster.plan.cluster_id
        envelope = wire.Envelope(cluster, "node_2", 1, 1000, "", wire.LookupRoute(name="x"))
        with self.intruder(self.leader, "requests", "node_1") as intruder:
            intruder.send(itertools.repeat(b"junk of a flood", FLOOD))
            intruder.send(itertools.repeat(wire.encode(envelope), FLOOD))
            self.wait_counts(self.leader, "requests", {"junk_magic": FLOOD, "junk_sender": FLOOD})
            bundle = wire.bundle([wire.encode(envelope)] * wire.MAX_BUNDLED)
            intruder.send(itertools.repeat(bundle, FLOOD // wire.MAX_BUNDLED))
            more = FLOOD // wire.MAX_BUNDLED * wire.MAX_BUNDLED
            self.wait_counts(self.leader, "requests", {"junk_sender": FLOOD + more})
        self.assert_nothing_happened()


class PlainDoors(DoorCase):
    """Without keys: whoever is on this machine gets in, and the frames alone decide."""

    plain = True

    def test_damaged_frames(self) -> None:
        """Thousands of frames of the fuzzer, of another cluster than this one's: every one is
        counted, none is stepped, the same process serves. A node's session is no member's."""
        dice, count = random.Random(7), 3000
        frames = [fuzz_frames.mutated(dice) for _ in range(count)]
        with self.intruder(self.follower, "raft", fuzz_frames.SENDER) as intruder:
            intruder.send(frames)
            self.cluster.wait_until(
                lambda: sum(self.counts(self.follower, "raft").values()) >= count, "all counted"
            )
        found = self.counts(self.follower, "raft")
        self.assertEqual(sum(found.values()), count)
        self.assertEqual(set(found), {"junk", "wrong_cluster"})
        beat = self.frame(Heartbeat(self.leader, self.follower, TERM, 0))
        with self.intruder(self.follower, "raft", "node_1") as intruder:
            intruder.send([beat])
            self.wait_counts(self.follower, "raft", {"wrong_sender": 1})
        self.assert_nothing_happened()

    def test_damaged_bundles(self) -> None:
        """Thousands of bundles of the fuzzer at the request port: what is bad in them is counted
        as it should be, what is sound is answered, the same process serves."""
        dice, cluster = random.Random(11), self.cluster.plan.cluster_id
        ask = wire.LookupRoute(name="x")
        sound = wire.bundle(
            [wire.encode(wire.Envelope(cluster, "node_1", n, 1000, "", ask)) for n in (1, 3, 5)]
        )
        frames = [dice.choice(fuzz_frames.MUTATIONS)(dice, sound) for _ in range(3000)]
        checks = FrameChecks(cluster, lambda line: None)
        for frame in frames:
            for each in checks.open_all([frame], None, 0.0):
                if each is not None and each.sender != "node_1":
                    checks.refuse(Junk.SENDER, 0.0)
        wanted = {f"junk_{cause.value}": count for cause, count in checks.counts.items()}
        self.assertGreater(len(wanted), 3)
        with self.intruder(self.follower, "requests", "node_1") as intruder:
            intruder.send(frames)
            self.wait_counts(self.follower, "requests", wanted)
        self.assert_nothing_happened()
