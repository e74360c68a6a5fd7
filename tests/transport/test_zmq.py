"""The transport over real sockets on the loopback."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import zmq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pbcluster import wire
from pbcluster.config import Peer, Secrets
from pbcluster.errors import ConfigError, DeadlineExceeded, NotLeader, Unavailable
from pbcluster.records import MemberRecord
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.broadcasts import ZmqPublisher, ZmqSubscriber
from pbcluster.transport.connection import ZmqConnection
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.curve import Curve, KeyPair, PlainSockets, Security, generate_keys
from pbcluster.transport.envelopes import seal
from pbcluster.transport.following import MemberFollower
from pbcluster.transport.interfaces import Asked
from pbcluster.transport.request_server import ZmqRequestServer
from pbcluster.transport.sockets import Sockets
from pbcluster.wire import Body, Ok
from tests.transport.bodies import CLUSTER, broadcast, envelope, register
from tests.transport.test_memory import LEASE, Recorder

PLAIN = PlainSockets()
ANY = "tcp://127.0.0.1:0"


def echo(asked: Asked, body: Body) -> Body:
    """Answers a lease with its own number, so that a crossed answer shows."""
    assert isinstance(body, wire.Lease)
    return wire.LeaseAck(True, body.assignments_index)


class Case(TestCase):
    timeout = 30
    members: tuple[str, ...] = ("member_1",)

    def setUp(self) -> None:
        self.keys: dict[str, KeyPair] = {}

    def sockets(self, own_id: str, security: Security = PLAIN, cluster: str = CLUSTER) -> Sockets:
        sockets = Sockets(reactor, cluster, own_id, security)
        self.addCleanup(sockets.close)
        return sockets

    def curve(self, own_id: str, *others: str) -> Curve:
        """The security of a process that knows itself and ``others``."""
        peers = {}
        for name in (own_id, *others):
            keys = self.keys.setdefault(name, generate_keys())
            peers[name] = Peer(name, name.split("_")[0], keys.public)
        return Curve.of(Secrets(curve_secret=self.keys[own_id].secret), peers)

    def server(self, sockets: Sockets, handler: Recorder, endpoint: str = ANY) -> ZmqRequestServer:
        server = ZmqRequestServer(sockets, endpoint)
        server.start(handler)
        self.addCleanup(server.stop)
        return server

    def client(
        self, sockets: Sockets, servers: dict[str, str], handler: Recorder | None = None
    ) -> ZmqControlPlaneClient:
        addresses = [MemberAddress(endpoint, name) for name, endpoint in servers.items()]
        client = ZmqControlPlaneClient(sockets, addresses, random=Random(1))
        client.start(handler or Recorder(lambda asked, body: Ok()))
        self.addCleanup(client.stop)
        return client

    def listen(self, sockets: Sockets, *members: MemberAddress) -> tuple[ZmqSubscriber, list[Any]]:
        heard: list[Any] = []
        subscriber = ZmqSubscriber(sockets, members)
        subscriber.start(
            lambda message: heard.append(message.index),
            lambda index: heard.append(f"gap {index}"),
        )
        self.addCleanup(subscriber.stop)
        return subscriber, heard

    def publisher(self, sockets: Sockets, endpoint: str = ANY) -> ZmqPublisher:
        publisher = ZmqPublisher(sockets, endpoint)
        publisher.start()
        self.addCleanup(publisher.stop)
        return publisher

    def raw_dealer(self, endpoint: str, identity: bytes = b"node_a.raw") -> ZmqConnection:
        """A socket that may send anything."""
        sockets = self.sockets("node_raw")
        sockets.identity = identity
        return sockets.connect(zmq.DEALER, MemberAddress(endpoint), lambda parts, proof: None)

    async def until(self, true: Callable[[], Any]) -> None:
        """Let the reactor turn until ``true()``; the test's timeout bounds it."""
        while not true():
            await deferLater(reactor, 0.002)


class Requests(Case):
    async def test_round_trip(self) -> None:
        """A question reaches a member on a port the system chose, and the answer comes back."""
        handler = Recorder(lambda asked, body: Ok())
        server = self.server(self.sockets("member_1"), handler)
        self.assertRegex(server.endpoint, r"^tcp://127\.0\.0\.1:[1-9]\d+$")
        client = self.client(self.sockets("node_a"), {"": server.endpoint})
        answer = await client.ask(register(), timeout_s=5.0, idempotency_key="k")
        self.assertEqual(answer, Ok())
        self.assertEqual(handler.asked[0][0].sender, "node_a")
        self.assertEqual(handler.asked[0][0].idempotency_key, "k")

    async def test_many_in_flight(self) -> None:
        """Three hundred questions of two clients at once get each their own answer."""
        server = self.server(self.sockets("member_1"), Recorder(echo))
        clients = [
            self.client(self.sockets(name), {"": server.endpoint}) for name in ("node_a", "node_b")
        ]
        asked = [
            Deferred.fromCoroutine(clients[n % 2].ask(wire.Lease("node_a", 1, n), timeout_s=20.0))
            for n in range(300)
        ]
        answers = await gatherResults(asked)
        self.assertEqual([answer.assignments_index for answer in answers], list(range(300)))

    async def test_not_leader_is_followed(self) -> None:
        """The endpoint that NotLeader names is asked next, and first from then on."""
        leader = self.server(self.sockets("member_2"), Recorder(echo))

        def refer(asked: Asked, body: Body) -> Body:
            raise NotLeader("not me", leader=leader.endpoint)

        others = [Recorder(refer), Recorder(refer)]
        servers = [self.server(self.sockets(f"member_{n}"), others[n - 3]) for n in (3, 4)]
        endpoints = {str(n): server.endpoint for n, server in enumerate([*servers, leader])}
        client = self.client(self.sockets("node_a"), endpoints)
        self.assertEqual((await client.ask(LEASE, timeout_s=5.0)), wire.LeaseAck(True, 7))
        # Which sessions were open for the first question is chance.
        before = [len(other.asked) for other in others]
        for _ in range(3):
            self.assertEqual((await client.ask(LEASE, timeout_s=5.0)), wire.LeaseAck(True, 7))
        self.assertEqual([len(other.asked) for other in others], before)

    async def test_a_leader_who_joined_a_moment_ago(self) -> None:
        """A member refers to one whom the settings do not name: who the members are is asked at
        once, long before it would be by itself, and the question goes there."""
        leader = self.server(self.sockets("member_2"), Recorder(echo))
        known: list[MemberRecord] = []

        def refer(asked: Asked, body: Body) -> Body:
            if isinstance(body, wire.ListMembers):
                return wire.Members(len(known), tuple(known))
            raise NotLeader("not me", leader="member_2")

        member = Recorder(refer)
        first = self.server(self.sockets("member_1"), member)
        sockets = self.sockets("node_a")
        client = self.client(sockets, {"member_1": first.endpoint})
        follower = MemberFollower(reactor, sockets, client, Random(1), first=())
        follower.start()
        self.addCleanup(follower.stop)
        await self.until(lambda: member.asked)
        for name, server in (("member_1", first), ("member_2", leader)):
            known.append(MemberRecord(name, ANY, server.endpoint, server.endpoint, ""))
        self.assertEqual((await client.ask(LEASE, timeout_s=5.0)), wire.LeaseAck(True, 7))

    async def test_member_killed_and_back(self) -> None:
        """A question under way at a member that dies goes to the other one at once; alone with
        nobody it waits, and it is answered when the member is back at its address."""
        stuck = Recorder(lambda asked, body: Deferred())
        first = self.sockets("member_1")
        one = self.server(first, stuck)
        two = self.server(self.sockets("member_2"), Recorder(echo))
        client = self.client(self.sockets("node_a"), {"a": one.endpoint, "b": two.endpoint})
        asked = []
        while not stuck.asked:  # until one went to the stuck member
            asked.append(Deferred.fromCoroutine(client.ask(LEASE, timeout_s=9.0)))
            await self.until(lambda: asked[-1].called or stuck.asked)
            client._side._members.leader = 0
        began = reactor.seconds()
        one.stop()
        first.close()
        await gatherResults(asked)
        self.assertLess(reactor.seconds() - began, 0.9)  # not the attempt's second
        two.stop()
        waiting = Deferred.fromCoroutine(client.ask(LEASE, timeout_s=20.0))
        again = self.server(self.sockets("member_1"), Recorder(echo), one.endpoint)
        self.assertEqual(again.endpoint, one.endpoint)
        self.assertEqual(await waiting, wire.LeaseAck(True, 7))

    async def test_stuck_member(self) -> None:
        """A member that keeps its session but does not answer is given up after a second."""
        servers = [
            self.server(self.sockets("member_1"), Recorder(lambda asked, body: Deferred())),
            self.server(self.sockets("member_2"), Recorder(echo)),
        ]
        client = self.client(
            self.sockets("node_a"), {str(n): s.endpoint for n, s in enumerate(servers)}
        )
        client._side._members.leader = 0
        self.assertEqual(await client.ask(LEASE, timeout_s=1.0), wire.LeaseAck(True, 7))

    async def test_nobody_listens(self) -> None:
        """With no member up the question fails at its deadline."""
        server = self.server(self.sockets("member_1"), Recorder(echo))
        server.stop()
        client = self.client(self.sockets("node_a"), {"": server.endpoint})
        with self.assertRaises(DeadlineExceeded):
            await client.ask(LEASE, timeout_s=0.2)

    async def test_server_asks_and_tells(self) -> None:
        """A member asks and tells a process that never asked anything; after the process's
        restart its new session is used."""
        server = self.server(self.sockets("member_1"), Recorder(echo))
        self.assertFalse(server.tell("node_a", wire.Probe(0)))
        with self.assertRaises(DeadlineExceeded):
            await server.ask("node_a", wire.Probe(1), timeout_s=1.0)
        for incarnation in (1, 2):
            handler = Recorder(lambda asked, body: Ok())
            client = self.client(self.sockets("node_a"), {"": server.endpoint}, handler)
            session = server._side._sessions.get("node_a")
            await self.until(
                lambda old=session: server._side._sessions.get("node_a") not in (None, old)
            )
            self.assertEqual(
                await server.ask("node_a", wire.Probe(incarnation), timeout_s=5.0), Ok()
            )
            self.assertTrue(server.tell("node_a", wire.Probe(9)))
            await self.until(lambda h=handler: len(h.asked) == 2)
            self.assertEqual(handler.asked[1][1], wire.Probe(9))
            client.stop()

    async def test_tell_after_the_process_is_gone(self) -> None:
        """Once its connection is closed, telling a process gives False."""
        server = self.server(self.sockets("member_1"), Recorder(echo))
        client = self.client(self.sockets("node_a"), {"": server.endpoint})
        await self.until(lambda: server.tell("node_a", wire.Probe(0)))
        client.stop()
        await self.until(lambda: not server.tell("node_a", wire.Probe(0)))

    async def test_session_survives_a_lost_connection(self) -> None:
        """After the member's socket came back, the process is reachable again unasked."""
        first = self.sockets("member_1")
        server = self.server(first, Recorder(echo))
        self.client(self.sockets("node_a"), {"": server.endpoint})
        await self.until(lambda: server.tell("node_a", wire.Probe(0)))
        server.stop()
        first.close()
        again = self.server(self.sockets("member_1"), Recorder(echo), server.endpoint)
        await self.until(lambda: again.tell("node_a", wire.Probe(0)))

    async def test_junk_is_harmless(self) -> None:
        """Junk of every kind is counted; honest questions before and after are answered."""
        server = self.server(self.sockets("member_1"), Recorder(echo))
        client = self.client(self.sockets("node_b"), {"": server.endpoint})
        dealer = self.raw_dealer(server.endpoint)
        good = seal(envelope("node_a"))
        for parts in (
            [good, b"more"],
            [b"x" * (wire.MAX_FRAME_BYTES + 1)],
            [b"GET / HTTP/1.1"],
            [good[:-2]],
            [seal(envelope("node_a", cluster_id="other"))],
            [seal(envelope("node_b"))],
        ):
            self.assertTrue(dealer.send(parts))
        kinds = ("parts", "size", "magic", "malformed", "cluster", "sender")
        expected = {f"junk_{kind}": 1 for kind in kinds}
        await self.until(lambda: expected.items() <= server.counts().items())
        self.assertEqual(await client.ask(LEASE, timeout_s=5.0), wire.LeaseAck(True, 7))

    async def test_huge_frame_cuts_the_connection(self) -> None:
        """A frame of many times the bound is not even taken in; others are served."""
        handler = Recorder(echo)
        server = self.server(self.sockets("member_1"), handler)
        dealer = self.raw_dealer(server.endpoint)
        dealer.send([b"x" * (8 * wire.MAX_FRAME_BYTES)])
        client = self.client(self.sockets("node_b"), {"": server.endpoint})
        self.assertEqual(await client.ask(LEASE, timeout_s=5.0), wire.LeaseAck(True, 7))
        dealer.send([seal(envelope("node_a"))])
        await self.until(lambda: len(handler.asked) == 2)
        self.assertNotIn("junk_size", server.counts())

    async def test_stop(self) -> None:
        """What is under way fails with Unavailable on both sides, and the port is free again."""
        server = self.server(self.sockets("member_1"), Recorder(lambda asked, body: Deferred()))
        handler = Recorder(lambda asked, body: Deferred())
        client = self.client(self.sockets("node_a"), {"": server.endpoint}, handler)
        asked = Deferred.fromCoroutine(client.ask(LEASE, timeout_s=20.0))
        await self.until(lambda: server._side._sessions)
        probed = Deferred.fromCoroutine(server.ask("node_a", wire.Probe(1), timeout_s=20.0))
        await self.until(lambda: handler.asked)
        server.stop()
        client.stop()
        self.failureResultOf(asked, Unavailable)
        self.failureResultOf(probed, Unavailable)

    def test_address_in_use(self) -> None:
        """Binding a taken address fails with a sentence that names it."""
        server = self.server(self.sockets("member_1"), Recorder(echo))
        second = ZmqRequestServer(self.sockets("member_2"), server.endpoint)
        error = self.assertRaises(ConfigError, second.start, Recorder(echo))
        self.assertIn(server.endpoint, str(error))

    def test_plain_sockets_stay_on_the_loopback(self) -> None:
        """Without encryption no other address is bound or connected to."""
        sockets = self.sockets("member_1")
        server = ZmqRequestServer(sockets, "tcp://0.0.0.0:0")
        self.assertRaises(ConfigError, server.start, Recorder(echo))
        client = ZmqControlPlaneClient(sockets, [MemberAddress("tcp://192.0.2.1:5555")])
        self.assertRaises(ConfigError, client.start, Recorder(echo))
        client.stop()


class Encrypted(Case):
    async def test_right_peers(self) -> None:
        """With keys that both sides know a question is answered, with the proven role; the
        member can ask back."""
        handler = Recorder(echo)
        server = self.server(
            self.sockets("member_1", self.curve("member_1", "node_a", "gateway_a")), handler
        )
        for name in ("node_a", "gateway_a"):
            sockets = self.sockets(name, self.curve(name, "member_1"))
            client = self.client(sockets, {"member_1": server.endpoint})
            self.assertEqual(await client.ask(LEASE, timeout_s=5.0), wire.LeaseAck(True, 7))
            self.assertEqual(handler.asked[-1][0].sender, name)
            self.assertEqual(handler.asked[-1][0].role, name.split("_")[0])
            self.assertEqual(await server.ask(name, wire.Probe(1), timeout_s=5.0), Ok())

    async def test_unknown_key_gets_nothing(self) -> None:
        """A key outside the allow-list never gets a session; others are served meanwhile."""
        handler = Recorder(echo)
        sockets = self.sockets("member_1", self.curve("member_1", "node_a"))
        server = self.server(sockets, handler)
        stranger = self.client(
            self.sockets("node_x", self.curve("node_x", "member_1")),
            {"member_1": server.endpoint},
        )
        asked = Deferred.fromCoroutine(stranger.ask(LEASE, timeout_s=1.0))
        await self.until(lambda: sockets.counts().get("refused"))
        client = self.client(
            self.sockets("node_a", self.curve("node_a", "member_1")),
            {"member_1": server.endpoint},
        )
        await client.ask(LEASE, timeout_s=5.0)
        with self.assertRaises(DeadlineExceeded):
            await asked
        self.assertEqual([seen.sender for seen, _ in handler.asked], ["node_a"])
        self.assertEqual(stranger.counts()["attempts"], 0)

    async def test_plain_client_gets_nothing(self) -> None:
        """A client without encryption has no session with an encrypted member."""
        handler = Recorder(echo)
        server = self.server(self.sockets("member_1", self.curve("member_1", "node_a")), handler)
        client = self.client(self.sockets("node_a"), {"": server.endpoint})
        with self.assertRaises(DeadlineExceeded):
            await client.ask(LEASE, timeout_s=0.4)
        self.assertEqual(handler.asked, [])

    async def test_wrong_member_key(self) -> None:
        """A client does not talk to a process that cannot prove to be the member it names."""
        self.keys["member_2"] = generate_keys()
        handler = Recorder(echo)
        server = self.server(self.sockets("member_1", self.curve("member_1", "node_a")), handler)
        sockets = self.sockets("node_a", self.curve("node_a", "member_1", "member_2"))
        client = self.client(sockets, {"member_2": server.endpoint})
        with self.assertRaises(DeadlineExceeded):
            await client.ask(LEASE, timeout_s=0.4)
        self.assertEqual(handler.asked, [])

    async def test_role_may_not_use_the_socket(self) -> None:
        """A socket for members only refuses a node's key."""
        sockets = self.sockets("member_1", self.curve("member_1", "node_a"))
        server = ZmqRequestServer(sockets, ANY, roles=("member",))
        server.start(Recorder(echo))
        client = self.client(
            self.sockets("node_a", self.curve("node_a", "member_1")),
            {"member_1": server.endpoint},
        )
        with self.assertRaises(DeadlineExceeded):
            await client.ask(LEASE, timeout_s=0.4)
        self.assertGreaterEqual(sockets.counts()["refused"], 1)

    async def test_sender_cannot_be_forged(self) -> None:
        """A process with a good key that calls itself another one is not heard, and does not draw
        the other's messages to itself, even if it takes its identity."""
        handler = Recorder(echo)
        names = ("member_1", "node_a", "node_b")
        server = self.server(self.sockets("member_1", self.curve(*names)), handler)
        victim = Recorder(lambda asked, body: Ok())
        good = self.sockets("node_b", self.curve("node_b", "member_1"))
        self.client(good, {"member_1": server.endpoint}, victim)
        await self.until(lambda: server._side._sessions.get("node_b"))
        stolen: list[list[bytes]] = []
        evil = self.sockets("node_a", self.curve("node_a", "member_1"))
        evil.identity = b"node_b.0123456789abcdef"
        dealer = evil.connect(
            zmq.DEALER,
            MemberAddress(server.endpoint, "member_1"),
            lambda parts, proof: stolen.append(parts),
        )
        for number in range(5):
            self.assertTrue(dealer.send([seal(envelope("node_b", 2 * number + 1))]))
        await self.until(lambda: server.counts().get("junk_sender") == 5)
        self.assertEqual(await server.ask("node_b", wire.Probe(1), timeout_s=5.0), Ok())
        self.assertEqual((handler.asked, stolen, len(victim.asked)), ([], [], 1))

    async def test_revoked_peer_is_not_heard(self) -> None:
        """A process that leaves the allow-list is cut off although its connection is open."""
        handler = Recorder(echo)
        sockets = self.sockets("member_1", self.curve("member_1", "node_a"))
        server = self.server(sockets, handler)
        client = self.client(
            self.sockets("node_a", self.curve("node_a", "member_1")),
            {"member_1": server.endpoint},
        )
        await client.ask(LEASE, timeout_s=5.0)
        sockets.set_peers(self.curve("member_1").peers)
        with self.assertRaises(DeadlineExceeded):
            await client.ask(LEASE, timeout_s=0.2)
        self.assertEqual(len(handler.asked), 1)
        self.assertGreaterEqual(server.counts()["junk_sender"], 1)

    def test_own_key_must_match(self) -> None:
        """A process whose secret does not fit its row in the peers file does not start."""
        curve = self.curve("member_1")
        other = generate_keys()
        wrong = Curve(other.secret, other.public, curve.peers)
        error = self.assertRaises(ConfigError, Sockets, reactor, CLUSTER, "member_1", wrong)
        self.assertNotIn(other.secret, str(error))
        self.assertRaises(ConfigError, Sockets, reactor, CLUSTER, "member_9", curve)

    def test_member_without_a_name(self) -> None:
        """An address that names no member is refused before anything is sent."""
        sockets = self.sockets("node_a", self.curve("node_a", "member_1"))
        client = ZmqControlPlaneClient(sockets, [MemberAddress("tcp://127.0.0.1:9")])
        error = self.assertRaises(ConfigError, client.start, Recorder(echo))
        self.assertIn("#MEMBER_ID", str(error))
        client.stop()


class Broadcasts(Case):
    async def test_gap_and_change_of_leader(self) -> None:
        """First contact and loss are gaps; broadcasts of two members are one sequence; beacons
        are not delivered."""
        one = self.publisher(self.sockets("member_1"))
        two = self.publisher(self.sockets("member_2"))
        addresses = [MemberAddress(one.endpoint), MemberAddress(two.endpoint)]
        one.publish(broadcast(4, 3))  # nobody listens yet
        _, heard = self.listen(self.sockets("gateway_a"), *addresses)
        await self.until(lambda: heard)  # the beacon
        self.assertEqual(heard, ["gap 4"])
        one.publish(broadcast(5, 4))
        one.publish(broadcast(8, 7))
        await self.until(lambda: len(heard) >= 4)
        self.assertEqual(heard, ["gap 4", 5, "gap 8", 8])
        two.publish(broadcast(9, 8))
        await self.until(lambda: len(heard) >= 5)
        self.assertEqual(heard[4:], [9])

    async def test_publisher_restarts(self) -> None:
        """What was published while the publisher's socket was away shows as a gap."""
        first = self.sockets("member_1")
        publisher = self.publisher(first)
        _, heard = self.listen(self.sockets("gateway_a"), MemberAddress(publisher.endpoint))
        publisher.publish(broadcast(4, 3))
        await self.until(lambda: heard)
        publisher.stop()
        first.close()
        again = self.publisher(self.sockets("member_1"), publisher.endpoint)
        again.publish(broadcast(9, 8))
        await self.until(lambda: "gap 9" in heard)

    async def test_encrypted(self) -> None:
        """Under CURVE a known subscriber hears, an unknown one hears nothing."""
        sockets = self.sockets("member_1", self.curve("member_1", "gateway_a"))
        publisher = self.publisher(sockets)
        address = MemberAddress(publisher.endpoint, "member_1")
        _, heard = self.listen(
            self.sockets("gateway_a", self.curve("gateway_a", "member_1")), address
        )
        _, stolen = self.listen(self.sockets("node_x", self.curve("node_x", "member_1")), address)
        await self.until(lambda: sockets.counts().get("refused"))
        publisher.publish(broadcast(4, 3))
        await self.until(lambda: heard)
        publisher.publish(broadcast(5, 4))
        await self.until(lambda: 5 in heard)
        self.assertEqual(stolen, [])

    async def test_junk_is_harmless(self) -> None:
        """Frames of another cluster and bodies that are no broadcast are counted and dropped."""
        sockets = self.sockets("member_1")
        connection, endpoint = sockets.bind(zmq.PUB, ANY, lambda parts, proof: None)
        subscriber, heard = self.listen(self.sockets("gateway_a"), MemberAddress(endpoint))
        foreign = seal(envelope("member_1", cluster_id="other", body=broadcast(4, 3)))

        def both() -> bool:
            for frame in (foreign, seal(envelope("member_1")), wire.MAGIC + b"\xc1"):
                connection.send([frame])
            counts = subscriber.counts()
            return {"junk_cluster", "junk_body", "junk_malformed"} <= set(counts)

        await self.until(both)
        self.assertEqual(heard, [])
