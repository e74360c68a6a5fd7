"""Three members in one process with real sockets, real stores and real threads."""

import random
from pathlib import Path
from typing import Any

import zmq
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pbcluster.config import FIRST_START, Peer, Secrets
from pbcluster.controlplane import beginning
from pbcluster.controlplane.commands import SetMember
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.raft_store import RaftStore
from pbcluster.controlplane.raft_transport import ZmqRaftNetwork
from pbcluster.controlplane.steady_clock import SteadyClock
from pbcluster.errors import PBClusterError
from pbcluster.raft import ConfigAction, ConfigChange, ConfigStep
from pbcluster.raft.frames import MAGIC, MAX_FRAME_BYTES, Frame, encode
from pbcluster.raft.messages import Heartbeat
from pbcluster.records import MemberRecord
from pbcluster.testing.free_ports import free_ports
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.curve import FORMER, Curve, KeyPair, PlainSockets, Security, generate_keys
from pbcluster.transport.sockets import Sockets
from tests.controlplane.raft_world import create

IDS = ("m1", "m2", "m3")
CLUSTER = "cluster_1"
REACTOR: Any = reactor


class SocketCase(TestCase):
    timeout = 60
    curve = True

    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.endpoints = {
            member: f"tcp://127.0.0.1:{port}"
            for member, port in zip(IDS, free_ports(3), strict=True)
        }
        self.keys = {member: generate_keys() for member in (*IDS, "node_a")}
        self.peers = {
            name: Peer(name, "node" if name == "node_a" else "member", pair.public)
            for name, pair in self.keys.items()
        }
        self.members: dict[str, RaftMember] = {}
        self.networks: dict[str, ZmqRaftNetwork] = {}
        self.sockets: dict[str, Sockets] = {}
        self.failures: list[str] = []
        for member in IDS:
            (self.home / member).mkdir(parents=True)
            (self.home / member / FIRST_START).touch()
        self.addCleanup(self.end)

    def security(self, pair: KeyPair) -> Security:
        if not self.curve:
            return PlainSockets()
        return Curve.of(Secrets(curve_secret=pair.secret), self.peers)

    async def start(self, *members: str) -> None:
        for member in members or IDS:
            home = self.home / member
            store = RaftStore(home / "store", CLUSTER, member, journal_bytes=64 * 1024)
            beginning.prepare(store, home, CLUSTER, IDS, "localhost")
            sockets = Sockets(REACTOR, CLUSTER, member, self.security(self.keys[member]))
            others = {
                other: MemberAddress(endpoint, other)
                for other, endpoint in self.endpoints.items()
                if other != member
            }
            network = ZmqRaftNetwork(
                sockets, self.endpoints[member], others, lambda m=member: self.gone(m)
            )
            found = RaftMember(
                REACTOR,
                SteadyClock(REACTOR),
                store,
                network,
                member,
                "localhost",
                random.Random(),
                deferToThread,
                self.failures.append,
                snapshot_every=200,
                keep_entries=20,
            )
            self.members[member] = found
            self.networks[member] = network
            self.sockets[member] = sockets
            await found.start()

    def gone(self, member: str) -> None:
        """The network heard that ``member`` left."""
        self.members[member].was_removed()

    async def stop(self, member: str) -> None:
        await self.members.pop(member).stop()
        self.sockets.pop(member).close()

    def end(self) -> Deferred[None]:
        async def run() -> None:
            for member in list(self.members):
                await self.stop(member)

        return Deferred.fromCoroutine(run())

    async def sleep(self, seconds: float) -> None:
        await task.deferLater(REACTOR, seconds, lambda: None)

    async def until(self, happened: Any, within_s: float = 20.0) -> None:
        for _ in range(round(within_s / 0.01)):
            if happened():
                return
            await self.sleep(0.01)
        self.fail("it did not happen")

    async def leader(self) -> str:
        await self.until(lambda: any(m.is_leader for m in self.members.values()))
        return next(name for name, m in self.members.items() if m.is_leader)

    async def create(self, name: str) -> None:
        """Create a tenant, following whoever leads, always with the same key."""
        for _ in range(200):
            member = self.members[await self.leader()]
            try:
                await member.propose(create(name), f"key/{name}")
            except PBClusterError:
                await self.sleep(0.02)
            else:
                return
        self.fail("nobody took it")


class RealSockets(SocketCase):
    def test_all_move_while_none_runs(self) -> Deferred[None]:
        """The registry says where they were, the settings say where they are: they find each other,
        and when one moves later the registry is believed."""

        async def run() -> None:
            await self.start()
            for _ in range(2):
                leader = self.members[await self.leader()]
                for member in IDS:
                    known = MemberRecord(
                        member, self.endpoints[member], f"q{member}", f"b{member}", f"a{member}"
                    )
                    await leader.propose(SetMember(utc_now(), known))
                for member in IDS:
                    await self.stop(member)
                ports = zip(IDS, free_ports(3), strict=True)
                self.endpoints = {member: f"tcp://127.0.0.1:{port}" for member, port in ports}
                await self.start()
                await self.create("a")
            name = await self.leader()
            leader, moved = self.members[name], next(one for one in IDS if one != name)
            await self.stop(moved)
            self.endpoints[moved] = f"tcp://127.0.0.1:{free_ports(1)[0]}"
            await self.start(moved)
            known = MemberRecord(moved, self.endpoints[moved], "q", "b", "a")
            await leader.propose(SetMember(utc_now(), known))
            await self.create("b")
            await self.until(
                lambda: len({m.registry.to_bytes() for m in self.members.values()}) == 1
            )

        return Deferred.fromCoroutine(run())

    def test_one_that_was_removed_is_told(self) -> Deferred[None]:
        """It was away then. It comes back, asks for votes, and is told over its own connection; its
        frames are dropped; from then on its key opens that door only."""

        async def run() -> None:
            await self.start()
            leader = await self.leader()
            gone = next(member for member in IDS if member != leader)
            step = ConfigStep(ConfigAction.REMOVE, gone)
            known = MemberRecord(gone, self.endpoints[gone], "q", "b", "a", self.keys[gone].public)
            await self.members[leader].propose(SetMember(utc_now(), known))
            await self.stop(gone)
            await self.members[leader].change_members(ConfigChange((step,)))
            await self.start(gone)
            await self.until(lambda: self.failures)
            self.assertIn("was removed from the control plane", self.failures[0])
            self.assertEqual(self.members[leader].is_leader, True)
            if self.curve:
                proof = self.sockets[leader]._proof(self.keys[gone].public)
                self.assertEqual((proof.sender, proof.role), (gone, FORMER))

        return Deferred.fromCoroutine(run())

    def test_members_die_and_return(self) -> Deferred[None]:
        """Tenants are created while each leader in turn is taken away and comes back: none is
        lost, none is doubled, all members end with the same bytes, one of them by a snapshot."""

        async def run() -> None:
            await self.start()
            made = 0
            for life in range(3):
                dead = await self.leader()
                await self.stop(dead)
                for _ in range(100):
                    await self.create(f"t{made}")
                    made += 1
                if life:
                    for _ in range(150):
                        await self.create(f"t{made}")
                        made += 1
                await self.start(dead)
            await self.until(
                lambda: len({m.registry.to_bytes() for m in self.members.values()}) == 1
            )
            for member in self.members.values():
                names = [tenant.name for tenant in member.registry.tenants()]
                self.assertEqual(sorted(names), sorted(f"t{n}" for n in range(made)))
            self.assertEqual(self.failures, [])

        return Deferred.fromCoroutine(run())

    def test_strangers_and_junk(self) -> Deferred[None]:
        """Frames that are junk, too large, another cluster's or in another's name are counted and
        dropped; a node's key does not get in at all; the member serves on."""

        async def run() -> None:
            await self.start()
            await self.create("a")
            target = (await self.leader(), "m1")[1]
            network = self.networks[target]
            address = MemberAddress(self.endpoints[target], target)
            beat = Heartbeat("m2", target, 10**6, 0)
            frames = [
                b"",
                b"junk",
                MAGIC + b"\xff" * 40,
                MAGIC + bytes(MAX_FRAME_BYTES),
                encode(Frame("another", 1, beat)),
                encode(Frame(CLUSTER, 10**6, Heartbeat("m3", target, 10**6, 0))),
            ]

            async def flood(name: str) -> None:
                sockets = Sockets(REACTOR, CLUSTER, name, self.security(self.keys[name]))
                connection = sockets.connect(zmq.DEALER, address, lambda parts, proof: None)
                for frame in frames:
                    connection.send([frame])
                await self.sleep(0.3)
                sockets.close()

            before = self.members[target].registry.applied_index
            await flood("node_a")
            self.assertEqual(network.counts(), {})
            await flood("m2")
            counts = network.counts()
            self.assertEqual(
                (counts["junk"], counts["wrong_cluster"], counts["wrong_sender"]), (4, 1, 1)
            )
            await self.create("b")
            status = self.members[target].status()
            assert status is not None
            self.assertLess(status.term, 10**6)
            self.assertGreater(self.members[target].registry.applied_index, before)

        return Deferred.fromCoroutine(run())


class PlainSocketsToo(SocketCase):
    curve = False

    def test_plain(self) -> Deferred[None]:
        """Without keys, on the loopback, a group works as well."""

        async def run() -> None:
            await self.start()
            await self.create("a")
            await self.until(lambda: self.members["m3"].leader_endpoint)
            await self.members["m3"].read_barrier()
            self.assertEqual([t.name for t in self.members["m3"].registry.tenants()], ["a"])

        return Deferred.fromCoroutine(run())
