"""Members that come and go, over real sockets on the loopback."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from pbcluster import wire
from pbcluster.config import Peer
from pbcluster.errors import ConfigError, DeadlineExceeded, Unavailable
from pbcluster.records import MemberRecord
from pbcluster.transport import connection
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.curve import generate_keys
from pbcluster.transport.following import MemberFollower
from pbcluster.transport.interfaces import Asked
from pbcluster.transport.request_server import ZmqRequestServer
from pbcluster.transport.sockets import Sockets
from pbcluster.wire import Body, Ok
from tests.transport.bodies import broadcast
from tests.transport.test_memory import LEASE, Recorder
from tests.transport.test_zmq import ANY, Case, echo

ACK = wire.LeaseAck(True, 7)


def stuck(asked: Asked, body: Body) -> Any:
    """Never answers."""
    return Deferred()


class ChangesCase(Case):
    def member(self, name: str, handler: Recorder, endpoint: str = ANY) -> MemberAddress:
        """A plain member that runs."""
        return MemberAddress(self.server(self.sockets(name), handler, endpoint).endpoint, name)

    def curve_member(self, name: str, handler: Recorder, *clients: str) -> ZmqRequestServer:
        return self.server(self.sockets(name, self.curve(name, *clients)), handler)

    def peer(self, name: str) -> Peer:
        """What a record would say of a process of this test."""
        return Peer(name, name.split("_", maxsplit=1)[0], self.keys[name].public)


class Plain(ChangesCase):
    def client_of(self, *members: MemberAddress) -> ZmqControlPlaneClient:
        return self.client(self.sockets("node_a"), {m.member_id: m.endpoint for m in members})

    async def test_all_replaced(self) -> None:
        """After all former members are gone an added one answers, and asks back."""
        former = [Recorder(echo), Recorder(echo)]
        client = self.client_of(self.member("member_1", former[0]), self.member("m_2", former[1]))
        await client.ask(LEASE, timeout_s=5.0)
        new = self.server(self.sockets("member_4"), Recorder(echo))
        client.set_members([MemberAddress(new.endpoint, "member_4")])
        seen = len(former[0].asked) + len(former[1].asked)
        for _ in range(5):
            self.assertEqual(await client.ask(LEASE, timeout_s=5.0), ACK)
        self.assertEqual(len(former[0].asked) + len(former[1].asked), seen)
        self.assertEqual(await new.ask("node_a", wire.Probe(1), timeout_s=5.0), Ok())

    async def test_what_is_under_way_goes_to_others(self) -> None:
        """At once, not after the attempt's time, with the same key, also when all are replaced; a
        session that stays is not touched."""
        slow = [Recorder(stuck), Recorder(stuck)]
        members = [self.member(f"member_{n}", slow[n - 1]) for n in (1, 2)]
        client = self.client_of(*members)
        asked = [
            Deferred.fromCoroutine(client.ask(LEASE, timeout_s=20.0, idempotency_key=f"k{n}"))
            for n in range(3)
        ]
        await self.until(lambda: slow[0].asked or slow[1].asked)
        handler = Recorder(echo)
        began = reactor.seconds()
        client.set_members([self.member("member_3", handler)])
        self.assertEqual(await gatherResults(asked), [ACK] * 3)
        self.assertLess(reactor.seconds() - began, 0.9)
        self.assertEqual({seen.idempotency_key for seen, _ in handler.asked}, {"k0", "k1", "k2"})

    async def test_who_stays_keeps_its_session(self) -> None:
        """Neither a question under way there nor its session's name changes."""
        waits: list[Deferred[Body]] = []

        def hold(asked: Asked, body: Body) -> Deferred[Body]:
            waits.append(Deferred())
            return waits[-1]

        server = self.server(self.sockets("member_1"), Recorder(hold))
        stays = MemberAddress(server.endpoint, "member_1")
        client = self.client_of(stays)
        asked = Deferred.fromCoroutine(client.ask(LEASE, timeout_s=20.0))
        await self.until(lambda: waits)
        kept = client._sessions._connections[0]
        client.set_members([self.member("member_2", Recorder(echo)), stays])
        client.set_members([stays])
        waits[0].callback(ACK)
        self.assertEqual(await asked, ACK)
        self.assertEqual(len(waits), 1)
        self.assertIs(client._sessions._connections[0], kept)
        self.assertEqual(client._sessions.numbers(), [0])

    async def test_refused_changes(self) -> None:
        """No member, one that may not be connected to and one that cannot: all stays as it was."""
        client = self.client_of(self.member("member_1", Recorder(echo)))
        good = self.member("member_2", Recorder(echo))
        for wrong in ("tcp://192.0.2.1:5555", "tcp://localhost :5555"):
            with self.assertRaises(ConfigError):
                client.set_members([good, MemberAddress(wrong, "member_3")])
        self.assertRaises(ConfigError, client.set_members, [])
        self.assertEqual(client._sessions.numbers(), [0])
        self.assertEqual(client._side._members.numbers(), [0])
        self.assertEqual(await client.ask(LEASE, timeout_s=5.0), ACK)
        client.stop()
        self.assertRaises(Unavailable, client.set_members, [good])

    async def test_broadcasts(self) -> None:
        """An added member is heard; what it said before shows as a gap. A removed one is not."""
        one, two = (self.publisher(self.sockets(name)) for name in ("member_1", "member_2"))
        subscriber, heard = self.listen(
            self.sockets("gateway_a"), MemberAddress(one.endpoint, "member_1")
        )
        one.publish(broadcast(4, 3))
        await self.until(lambda: heard)
        two.publish(broadcast(5, 4))
        subscriber.set_members([MemberAddress(two.endpoint, "member_2")])
        self.assertRaises(ConfigError, subscriber.set_members, [])
        await self.until(lambda: "gap 5" in heard)  # the beacon
        one.publish(broadcast(6, 5))
        two.publish(broadcast(7, 6))
        await self.until(lambda: 7 in heard)
        self.assertEqual(heard[-2:], ["gap 7", 7])
        self.assertNotIn(6, heard)


class Encrypted(ChangesCase):
    async def test_key_that_came_later(self) -> None:
        """A member that is not in the peers file answers once its key is allowed; then a former
        one that was revoked cannot be connected to."""
        former = self.curve_member("member_1", Recorder(echo), "node_a")
        sockets = self.sockets("node_a", self.curve("node_a", "member_1"))
        client = self.client(sockets, {"member_1": former.endpoint})
        await client.ask(LEASE, timeout_s=5.0)
        new = self.curve_member("member_4", Recorder(echo), "node_a")
        address = MemberAddress(new.endpoint, "member_4")
        self.assertRaises(ConfigError, client.set_members, [address])
        sockets.allow(self.peer("member_4"))
        client.set_members([address])
        sockets.revoke("member_1")
        former.stop()
        self.assertEqual(await client.ask(LEASE, timeout_s=5.0), ACK)
        self.assertRaises(
            ConfigError, client.set_members, [MemberAddress(former.endpoint, "member_1")]
        )

    async def test_new_key_of_the_same_member(self) -> None:
        """It is reconnected at the same address; until then its new self is not talked to."""
        first = self.curve_member("member_1", Recorder(echo), "node_a")
        sockets = self.sockets("node_a", self.curve("node_a", "member_1"))
        address = MemberAddress(first.endpoint, "member_1")
        client = self.client(sockets, {"member_1": first.endpoint})
        await client.ask(LEASE, timeout_s=5.0)
        first._sockets.close()
        self.keys["member_1"] = generate_keys()
        own = self.sockets("member_1", self.curve("member_1", "node_a"))
        self.server(own, Recorder(echo), address.endpoint)
        client.set_members([address])
        with self.assertRaises(DeadlineExceeded):
            await client.ask(LEASE, timeout_s=0.4)
        sockets.allow(self.peer("member_1"))
        client.set_members([address])
        self.assertEqual(await client.ask(LEASE, timeout_s=5.0), ACK)
        self.assertEqual(client._sessions.numbers(), [1])

    async def test_a_member_allows_a_further_one(self) -> None:
        """At a listening socket too: who was refused before is let in when its time for the
        handshake is over, and cut off when revoked."""
        self.patch(connection, "HANDSHAKE_MS", 1000)
        handler = Recorder(echo)
        sockets = self.sockets("member_1", self.curve("member_1", "node_a"))
        server = self.server(sockets, handler)
        address = {"member_1": server.endpoint}
        client = self.client(self.sockets("member_2", self.curve("member_2", "member_1")), address)
        await self.until(lambda: sockets.counts().get("refused"))
        sockets.allow(self.peer("member_2"))
        self.assertEqual(await client.ask(LEASE, timeout_s=20.0), ACK)
        self.assertEqual(handler.asked[-1][0].role, "member")
        sockets.revoke("member_2")
        with self.assertRaises(DeadlineExceeded):
            await client.ask(LEASE, timeout_s=0.3)
        self.assertEqual(len(handler.asked), 1)

    def test_own_key_does_not_change(self) -> None:
        """Another key under our own id is refused."""
        sockets = self.sockets("member_1", self.curve("member_1"))
        sockets.allow(self.peer("member_1"))
        other = Peer("member_1", "member", generate_keys().public)
        self.assertRaises(ConfigError, sockets.allow, other)


class Following(ChangesCase):
    """The whole way: members tell of each other, a gateway follows."""

    def world(self, names: tuple[str, ...]) -> None:
        """Members with keys, each with a request server and a publisher; none is known yet."""
        self.known: tuple[MemberRecord, ...] = ()
        self.index = 0
        self.servers: dict[str, ZmqRequestServer] = {}
        self.publishers: dict[str, Any] = {}
        self.own: dict[str, Sockets] = {}

        def answer(asked: Asked, body: Body) -> Body:
            if isinstance(body, wire.ListMembers):
                return wire.Members(self.index, self.known)
            return echo(asked, body)

        for name in names:
            sockets = self.own[name] = self.sockets(name, self.curve(name, "gateway_a"))
            self.servers[name] = self.server(sockets, Recorder(answer))
            self.publishers[name] = self.publisher(sockets)

    def record(self, name: str) -> MemberRecord:
        return MemberRecord(
            id=name,
            raft="tcp://127.0.0.1:1",
            requests=self.servers[name].endpoint,
            broadcasts=self.publishers[name].endpoint,
            admin="http://127.0.0.1:1",
            curve_public=self.keys[name].public,
        )

    async def test_a_gateway_follows_to_new_members(self) -> None:
        """It is started with one member. Two others are added, the first one dies: questions are
        answered and broadcasts heard from who is left, with keys that only records told."""
        self.world(("member_1", "member_2", "member_3"))
        sockets = self.sockets("gateway_a", self.curve("gateway_a", "member_1"))
        client = self.client(sockets, {"member_1": self.servers["member_1"].endpoint})
        first = MemberAddress(self.publishers["member_1"].endpoint, "member_1")
        subscriber, heard = self.listen(sockets, first)
        follower = MemberFollower(
            reactor, sockets, client, Random(1), first=[first], subscriber=subscriber
        )
        follower.start()
        self.addCleanup(follower.stop)
        self.publishers["member_1"].publish(broadcast(4, 3))
        await self.until(lambda: heard)
        self.known = tuple(self.record(f"member_{n}") for n in (1, 2, 3))
        self.index = 5
        follower.changed(5)
        await self.until(lambda: len(client._sessions.numbers()) == 3)
        self.known, self.index = self.known[1:], 6
        self.servers["member_1"].stop()
        self.own["member_1"].close()
        follower.changed(6)
        await self.until(lambda: client._sessions.numbers() == [1, 2])
        self.assertEqual(await client.ask(LEASE, timeout_s=5.0), ACK)
        self.publishers["member_3"].publish(broadcast(7, 6))
        await self.until(lambda: "gap 7" in heard or 7 in heard)
        self.assertRaises(ConfigError, sockets.key_of, first)
