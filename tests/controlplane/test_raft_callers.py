"""What stands on several members: elections seen by askers, soft state, and the admin API."""

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import treq
from twisted.internet import protocol, reactor, task
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from pbcluster import saved_state, wire
from pbcluster.controlplane.admin_api import AdminAPI
from pbcluster.controlplane.admin_auth import AdminAuth
from pbcluster.controlplane.admin_forward import Forwarder
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.membership import Membership
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.registry import Registry
from pbcluster.controlplane.requests import Requests
from pbcluster.controlplane.service import listen
from pbcluster.durations import Durations
from pbcluster.errors import NotLeader, PBClusterError
from pbcluster.testing.memory_transport import MemoryNetwork
from pbcluster.transport.interfaces import Asked
from tests.controlplane.raft_world import RaftWorld, create
from tests.controlplane.test_raft_member import WorldCase

ENDPOINTS = ("raft", "requests", "broadcasts")
NO_MEMBER = "'m9' is no member"
TOKEN = "the-admin-token"


class Whole:
    """One member with everything that answers questions."""

    def __init__(self, world: RaftWorld, network: MemoryNetwork, member: str) -> None:
        self.world = world
        self.consensus = world.members[member]
        clock, durations = world.clock, Durations()
        self.published: list[wire.Broadcast] = []
        self.liveness = Liveness(durations, clock.seconds())
        self.planner = Planner(
            lambda: self.consensus.registry, self.liveness, node_down_after_s=15.0
        )
        self.server = network.server(member)
        self.publisher = network.publisher(member)
        self.publisher.publish = self.published.append  # type: ignore[method-assign]
        self.silenced = 0
        self.publisher.silence = self.silence  # type: ignore[method-assign]
        self.executor = Executor(
            clock,
            self.consensus,
            self.liveness,
            self.planner,
            self.server,
            self.publisher,
            durations,
        )
        self.requests = Requests(clock, self.consensus, self.liveness, self.planner, self.executor)
        self.executor.start()

    def silence(self) -> None:
        self.silenced += 1

    def ask(self, body: wire.Body, key: str = "") -> Deferred[wire.Body]:
        now = self.world.clock.seconds()
        asked = Asked("node_a", key, now + 1.0, now)
        return Deferred.fromCoroutine(cast(Any, self.requests(asked, body)))


class CallerCase(WorldCase):
    def whole(self) -> tuple[RaftWorld, dict[str, Whole]]:
        world = self.world()
        network = MemoryNetwork(world.clock)
        found = {member: Whole(world, network, member) for member in world.ids}
        self.addCleanup(lambda: [one.executor.stop() for one in found.values()])
        world.leader()
        world.run(0.2)
        return world, found

    def register(self, world: RaftWorld, whole: Whole, key: str) -> wire.Registered:
        body = wire.RegisterNode("node_a", "start1", "http://127.0.0.1:1", 5)
        return wire.expect(world.wait(whole.ask(body, key)), wire.Registered)


class Elections(CallerCase):
    def test_soft_state_begins_anew(self) -> None:
        """A new leader knows every node of the registry at once, gives nothing away before a
        whole margin, and publishes a beacon; the old one falls silent and forgets."""
        world, whole = self.whole()
        old = world.leader()
        self.register(world, whole[old], "k")
        world.run(3.0)
        self.assertTrue(whole[old].liveness.may_give_away("node_b", world.clock.seconds()))
        new = world.followers()[0]
        whole[new].published.clear()
        world.members[old].transfer_leadership(new)
        world.until(lambda: world.members[new].is_leader)
        now = world.clock.seconds()
        self.assertTrue(whole[new].liveness.alive("node_a"))
        for member in (old, new):
            self.assertFalse(whole[member].liveness.may_give_away("node_b", now + 1.9))
            self.assertTrue(whole[member].liveness.may_give_away("node_b", now + 2.1))
        self.assertEqual(whole[old].silenced, 1)
        self.assertFalse(whole[old].liveness.alive("node_a"))
        (beacon,) = whole[new].published
        index = world.members[new].registry.last_broadcast
        self.assertEqual(beacon, wire.Broadcast(wire.BEACON, index, index))

    def test_only_the_leader_publishes(self) -> None:
        """A broadcast of an applied command comes from one member."""
        world, whole = self.whole()
        for one in whole.values():
            one.published.clear()
        self.register(world, whole[world.leader()], "k")
        world.agree()
        told = {name: [b.topic for b in one.published] for name, one in whole.items()}
        self.assertEqual(told.pop(world.leader()), ["node.up"])
        self.assertEqual(list(told.values()), [[], []])

    def test_a_lease_is_acknowledged_by_a_majority_only(self) -> None:
        """A leader cut off from the others acknowledges no lease; nothing of it is in the log."""
        world, whole = self.whole()
        leader = world.leader()
        registered = self.register(world, whole[leader], "k")
        index = world.members[leader].registry.applied_index
        lease = wire.Lease("node_a", registered.incarnation, 0)
        ack = wire.expect(world.wait(whole[leader].ask(lease)), wire.LeaseAck)
        self.assertTrue(ack.granted)
        self.assertEqual(world.members[leader].registry.applied_index, index)
        world.isolate(leader)
        asked = whole[leader].ask(lease)
        world.run(1.0)
        self.refused(NotLeader, asked)

    def test_who_asks_during_an_election_is_told_its_end(self) -> None:
        """A member that knows no leader answers when it knows one: with its name, or, if it is the
        one, with the answer; and not later than the asker waits."""
        world, whole = self.whole()
        dead = world.leader()
        self.register(world, whole[dead], "k")
        world.agree()
        world.kill(dead)
        world.run(0.2)
        body = wire.RegisterNode("node_a", "start1", "http://127.0.0.1:1", 5)
        asked = {name: whole[name].ask(body, "again") for name in world.members}
        self.assertNoResult(asked[min(asked)])
        leader = world.leader()
        world.run(0.1)
        for name, answer in asked.items():
            if name == leader:
                self.assertEqual(self.successResultOf(answer).incarnation, 1)  # type: ignore[attr-defined]
            else:
                self.assertEqual(self.refused(NotLeader, answer).data["leader"], leader)
        (other,) = set(world.members) - {leader}
        world.kill(leader)
        world.run(0.6)
        alone = whole[other].ask(body, "once more")
        world.run(0.95)
        self.assertEqual(self.refused(NotLeader, alone).data["leader"], "")

    def test_routes_are_answered_anywhere(self) -> None:
        """A look-up is answered by a follower from its own state; one that is behind the wanted
        epoch waits for it."""
        world, whole = self.whole()
        leader = world.leader()
        self.register(world, whole[leader], "k")
        world.create("shop")
        world.wait(whole[leader].ask(wire.LookupRoute(name="shop", place=True)))
        world.agree()
        follower = next(name for name in world.ids if name != leader)
        lookup = wire.LookupRoute(name="shop", min_epoch=1)
        found = wire.expect(world.wait(whole[follower].ask(lookup)), wire.RouteFound)
        self.assertEqual((found.route.node_id, found.route.epoch), ("node_a", 1))
        behind = whole[follower].ask(wire.LookupRoute(name="shop", min_epoch=2))
        world.run(0.5)
        self.assertNoResult(behind)
        tenant = world.members[leader].registry.tenant("shop")
        effect = whole[leader].planner.replace_epoch(tenant, 1, world.clock.seconds() + 10)
        assert effect is not None
        world.wait(Deferred.fromCoroutine(whole[leader].executor.assign(effect)))
        found = wire.expect(world.wait(behind), wire.RouteFound)
        self.assertEqual(found.route.epoch, 2)


class Dying(protocol.Protocol):
    """A leader that gives a part of an answer and is gone."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(cast(Any, self.factory).half)
        self.transport.loseConnection()


class AdminCase(TestCase):
    """The admin APIs of three members over HTTP."""

    timeout = 30

    def setUp(self) -> None:
        self.world = RaftWorld(Path(self.mktemp()))
        self.addCleanup(self.world.close)
        self.world.start()
        network = MemoryNetwork(self.world.clock)
        self.whole = {m: Whole(self.world, network, m) for m in self.world.ids}
        self.addCleanup(lambda: [one.executor.stop() for one in self.whole.values()])
        self.world.leader()
        self.world.run(0.2)
        self.ticking = task.LoopingCall(self.world.run, 0.02)
        self.ticking.start(0.01)
        self.addCleanup(self.ticking.stop)
        self.urls: dict[str, str] = {}
        self.forwarders: list[Forwarder] = []
        for member, whole in self.whole.items():
            forwarder = Forwarder(reactor, member, self.urls.get)
            self.forwarders.append(forwarder)
            api = AdminAPI(
                self.world.clock,
                whole.consensus,
                whole.liveness,
                whole.planner,
                whole.executor,
                whole.requests,
                AdminAuth(hashlib.sha256(TOKEN.encode()).hexdigest()),
                lambda function, *args: succeed(function(*args)),
                group=Membership(self.world.clock, whole.consensus, utc_now),
                cluster_id="cluster_1",
                forwarder=forwarder,
            )
            port = listen(cast(Any, reactor), ("127.0.0.1", 0), api, "admin-listen")
            self.addCleanup(port.stopListening)
            self.urls[member] = f"http://127.0.0.1:{cast(Any, port.getHost()).port}"
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.client = treq.client.HTTPClient(Agent(reactor, pool=self.pool))
        for forwarder in self.forwarders:
            self.addCleanup(lambda f=forwarder: Deferred.fromCoroutine(f.close()))

    async def ask(
        self, member: str, method: str, path: str, body: Any = None, **more: str
    ) -> tuple[int, Any]:
        response = await self.client.request(
            method,
            f"{self.urls[member]}/api/cp{path}",
            headers={"Authorization": f"Bearer {more.pop('token', TOKEN)}", **more},
            data=None if body is None else json.dumps(body).encode(),
        )
        content = await response.content()
        kind = response.headers.getRawHeaders("content-type")[0]
        return response.code, content if kind.endswith("octet-stream") else json.loads(content)

    def followers(self) -> list[str]:
        return [m for m in self.world.ids if not self.world.members[m].is_leader]

    def test_any_member_takes_any_request(self) -> Deferred[None]:
        """A follower passes reads, changes and refusals on as they are; the leader's id stands in
        its health; a wrong token is refused where it arrives."""

        async def run() -> None:
            follower = self.followers()[0]
            (leader,) = set(self.world.ids) - set(self.followers())
            status, health = await self.ask(follower, "GET", "/health")
            self.assertEqual((status, health["leader"]), (200, leader))
            status, told = await self.ask(follower, "POST", "/tenants", {"name": "shop"})
            self.assertEqual((status, told["data"]["code"]), (503, "no_capacity"))
            status, told = await self.ask(follower, "POST", "/tenants?wait=x", {"name": "a_b"})
            self.assertEqual((status, "name" in told["data"]), (400, True))
            status, listed = await self.ask(follower, "GET", "/members?perPage=2")
            self.assertEqual((status, listed["totalItems"]), (200, 3))
            self.assertEqual(len(listed["items"]), 2)
            status, _ = await self.ask(follower, "GET", "/members", token="wrong")
            self.assertEqual(status, 401)
            mark = {"x-pbcluster-passed-on-by": "m9"}
            status, told = await self.ask(follower, "GET", "/members", **mark)
            self.assertEqual((status, told["data"]["code"]), (503, "not_leader"))

        return Deferred.fromCoroutine(run())

    def test_a_leader_that_dies_in_its_answer(self) -> Deferred[None]:
        """Wherever its connection ends, whoever asked hears that it is unknown, so that a client
        repeats its request with the same key; never an internal error."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        halves = (
            b"",
            b"HTTP/1.1 20",
            head,
            head + b"Content-Length: 9\r\n\r\n{",
            head + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{",
            head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        )

        async def run() -> None:
            follower = self.followers()[0]
            (leader,) = set(self.world.ids) - set(self.followers())
            for half in halves:
                dying = protocol.ServerFactory.forProtocol(Dying)
                dying.half = half  # type: ignore[attr-defined]
                port = cast(Any, reactor).listenTCP(0, dying, interface="127.0.0.1")
                self.addCleanup(port.stopListening)
                self.urls[leader] = f"http://127.0.0.1:{port.getHost().port}"
                status, told = await self.ask(follower, "POST", "/tenants", {"name": "shop"})
                self.assertEqual((status, told["data"]["code"]), (504, "deadline"), half)

        return Deferred.fromCoroutine(run())

    def test_members_can_be_managed(self) -> Deferred[None]:
        """Leadership moves to the member that is named, a removed one is listed no more, and what
        cannot be is refused with its reason."""

        async def run() -> None:
            first, second = self.followers()
            status, told = await self.ask(second, "POST", "/members/transfer", {"to": "m9"})
            self.assertEqual((status, told["message"]), (409, "m9 is no voter"))
            status, told = await self.ask(second, "POST", "/members/transfer", {})
            self.assertEqual((status, list(told["data"])[:1]), (400, ["to"]))
            status, _ = await self.ask(second, "POST", "/members/transfer", {"to": first})
            self.assertEqual(status, 202)
            while not self.world.members[first].is_leader:
                await task.deferLater(cast(Any, reactor), 0.01, lambda: None)
            await task.deferLater(cast(Any, reactor), 0.1, lambda: None)
            status, _ = await self.ask(first, "DELETE", f"/members/{second}")
            self.assertEqual(status, 200)
            _, listed = await self.ask(first, "GET", "/members")
            roles = {item["id"]: item["role"] for item in listed["items"]}
            self.assertNotIn(second, roles)
            self.assertEqual(roles[first], "leader")
            self.assertEqual({item["behind"] for item in listed["items"]}, {0})

        return Deferred.fromCoroutine(run())

    def test_a_member_is_added(self) -> Deferred[None]:
        """At whichever member it is asked: it is a learner then, listed with its address; what is
        wrong is named; who is no member cannot be removed."""

        async def run() -> None:
            follower = self.followers()[0]
            record = {name: f"tcp://127.0.0.1:{n}" for n, name in enumerate(ENDPOINTS, 7000)}
            record |= {"id": "m4", "admin": "http://127.0.0.1:7999"}
            status, told = await self.ask(follower, "POST", "/members", record)
            self.assertEqual((status, told), (202, {"id": "m4", "voter": False}))
            _, listed = await self.ask(follower, "GET", "/members")
            (row,) = (item for item in listed["items"] if item["id"] == "m4")
            self.assertEqual((row["voter"], row["admin"]), (False, record["admin"]))
            status, told = await self.ask(follower, "POST", "/members", record | {"raft": "x"})
            self.assertEqual((status, list(told["data"])[:1]), (400, ["raft"]))
            status, told = await self.ask(follower, "DELETE", "/members/m9")
            self.assertEqual((status, told["message"].partition(";")[0]), (404, NO_MEMBER))

        return Deferred.fromCoroutine(run())

    def test_a_snapshot_is_had_of_any_member(self) -> Deferred[None]:
        """A follower gives it itself, with everything that was acknowledged."""

        async def run() -> None:
            follower = self.followers()[0]
            (leader,) = set(self.world.ids) - set(self.followers())
            await self.world.members[leader].propose(create("shop"))
            self.urls[leader] = "http://127.0.0.1:9"  # nothing is passed on to it
            status, data = await self.ask(follower, "GET", "/members/snapshot")
            self.assertEqual(status, 200)
            saved = saved_state.unpack(data, "the answer")
            found = Registry.from_bytes("localhost", saved.image)
            self.assertEqual([tenant.name for tenant in found.tenants()], ["shop"])
            self.assertEqual((saved.cluster_id, saved.index), ("cluster_1", found.applied_index))

        return Deferred.fromCoroutine(run())

    def test_no_leader_and_a_dead_one(self) -> Deferred[None]:
        """Without a leader, or with one that cannot be reached, a request is refused as one that
        was not done."""

        async def run() -> None:
            follower = self.followers()[0]
            (leader,) = set(self.world.ids) - set(self.followers())
            self.urls[leader] = "http://127.0.0.1:9"
            status, told = await self.ask(follower, "GET", "/tenants")
            self.assertEqual((status, told["data"]["code"]), (503, "not_leader"))
            self.assertIn("cannot be reached", told["message"])
            self.world.isolate(follower)
            self.world.run(0.6)
            status, told = await self.ask(follower, "GET", "/tenants")
            self.assertEqual((status, told["data"]["code"]), (503, "not_leader"))
            status, told = await self.ask(follower, "GET", "/health")
            self.assertEqual((status, told["leader"]), (503, False))

        return Deferred.fromCoroutine(run())


class Errors(WorldCase):
    def test_unavailable_errors_have_a_code(self) -> None:
        """Programs tell by it whether to repeat."""
        from pbcluster.controlplane.admin_json import error_body

        self.assertEqual(error_body(NotLeader("x"))["data"]["code"], "not_leader")
        self.assertNotIn("code", error_body(PBClusterError("x"))["data"])
