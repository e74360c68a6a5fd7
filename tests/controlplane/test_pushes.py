"""What a member tells without being asked: lists, broadcasts, probes."""

from twisted.internet.defer import Deferred

from pbcluster import wire
from pbcluster.errors import DeadlineExceeded, TooLarge
from pbcluster.transport.interfaces import Asked
from tests.controlplane.lease_world import MEMBER
from tests.controlplane.request_case import RequestCase


class TestPushes(RequestCase):
    def test_a_change_is_told_and_broadcast(self) -> None:
        """The node gets its list, subscribers the route, the beacon the last index."""
        told: list[wire.Body] = []

        async def handler(asked: Asked, body: wire.Body) -> wire.Body:
            told.append(body)
            return wire.Ok()

        clients = [self.world.network.client(n) for n in ("node_a", "node_b")]
        for client in clients:
            client.start(handler)
        heard: list[wire.Broadcast] = []
        gaps: list[int] = []
        self.world.network.subscriber("g").start(heard.append, gaps.append)
        self.run_for(1.5)
        self.assertEqual(gaps, [self.world.registry.last_broadcast], "a beacon after the start")
        route = self.place()
        lists = [body for body in told if isinstance(body, wire.NodeAssignments)]
        self.assertEqual(lists, [], "both nodes know their list since they registered")
        (news,) = [body for body in told if isinstance(body, wire.AssignmentChanges)]
        self.assertEqual(news.node_id, route.node_id)
        self.assertEqual([each.epoch for each in news.changed], [route.epoch])
        self.assertEqual([b.route for b in heard], [route])
        for client in clients:
            client.stop()

    def test_what_did_not_go_out_is_told_again(self) -> None:
        """A node without a session here, or whose changes are too many for a frame, is told the
        whole list next."""
        told: list[wire.Body] = []
        goes_out = iter((False, True, None, True, True))

        def tell(peer: str, body: wire.Body) -> bool:
            told.append(body)
            goes = next(goes_out)
            if goes is None:
                raise TooLarge("1 MiB")
            return goes

        node_id = self.place().node_id
        self.patch(self.world.server, "tell", tell)
        self.world.executor.lists.whole(node_id)
        for _ in range(5):
            self.world.executor.tell_assignments(node_id)
        kinds = [wire.AssignmentChanges, *(wire.NodeAssignments, wire.AssignmentChanges) * 2]
        self.assertEqual([type(each) for each in told], kinds)

    def test_a_restarted_member_tells_its_newest_index(self) -> None:
        """Who missed a broadcast in a crash learns of the gap, though nothing new happens."""
        self.place()
        self.renewing.clear()
        self.world.crash_member()
        self.world.start_member()
        gaps: list[int] = []
        self.world.network.subscriber("g").start(lambda broadcast: None, gaps.append)
        self.run_for(1.2)
        self.assertEqual(gaps, [self.world.registry.last_broadcast])

    def test_a_doubted_node_is_probed(self) -> None:
        """By its own session; an answer keeps it alive."""
        probes: list[wire.Body] = []

        async def handler(asked: Asked, body: wire.Body) -> wire.Body:
            probes.append(body)
            return wire.Ok()

        client = self.world.network.client("node_a")
        client.start(handler)
        self.run_for(0.1)
        self.answer("g", wire.SuspectNode("node_a", 1, "connection refused"))
        self.run_for(0.2)
        self.assertEqual(probes, [wire.Probe(1)])
        self.assertTrue(self.world.liveness.alive("node_a"))
        client.stop()
        self.assertIsNotNone(self.world.server.endpoint)
        no_session = self.world.server.ask("node_z", wire.Probe(1), timeout_s=1.0)
        self.failureResultOf(Deferred.fromCoroutine(no_session), DeadlineExceeded)
        self.assertIn(MEMBER, self.world.network.servers)
