from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.breaker import (
    CHECK_S,
    CHECK_TIMEOUT_S,
    FAILURES_TO_OPEN,
    OPEN_S,
    PROBE_S,
    State,
)
from pbcluster.gateway.nodes import SUSPECT_EVERY_S
from pbcluster.gateway.tenant_id import TenantKey
from pbcluster.wire import Route, SuspectNode
from tests.gateway.fakes import World, route

SHOP = TenantKey("name", "shop")


class NodesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.nodes = self.world.nodes
        self.nodes.start()
        self.addCleanup(self.nodes.stop)
        self.world.routes.put(route(), 1, self.world.clock.seconds())

    def fail_once(self, at: Route, *, unreachable: bool) -> None:
        ticket = self.nodes.admit(at, self.world.clock.seconds(), safe=True)
        assert ticket is not None
        self.nodes.failed(at, ticket, "refused", unreachable=unreachable)

    def open(self, at: Route) -> None:
        for _ in range(FAILURES_TO_OPEN):
            self.fail_once(at, unreachable=False)

    def test_opening(self) -> None:
        """When a breaker opens, its node's routes are doubted and the control plane hears why."""
        self.open(route())
        self.assertIs(self.nodes.state(route()), State.OPEN)
        self.assertIsNone(self.world.lookups.cached(SHOP))
        self.assertEqual(self.world.cp.suspected, [SuspectNode("node_a", 1, "refused")])

    def test_unreachable(self) -> None:
        """The first refused connection is reported at once, further ones twice a second."""
        self.fail_once(route(), unreachable=True)
        self.fail_once(route(), unreachable=True)
        self.assertEqual(len(self.world.cp.suspected), 1)
        self.assertIsNotNone(self.world.lookups.cached(SHOP))
        self.world.advance(SUSPECT_EVERY_S)
        self.fail_once(route(), unreachable=True)
        self.assertEqual(len(self.world.cp.suspected), 2)

    def test_nobody_hears(self) -> None:
        """A suspicion that nobody hears is no error."""
        self.world.cp.away = True
        self.fail_once(route(), unreachable=True)
        self.world.advance(10.0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_own_network(self) -> None:
        """With most of three nodes away it is our network: the third is neither doubted nor
        suspected."""
        others = [route(name, node_id=f"node_{name}") for name in ("b", "c")]
        for at in others:
            self.world.routes.put(at, 1, self.world.clock.seconds())
            self.nodes.admit(at, self.world.clock.seconds(), safe=True)
        self.open(route())
        self.world.advance(SUSPECT_EVERY_S)
        self.open(others[0])
        self.assertEqual([s.node_id for s in self.world.cp.suspected], ["node_a"])
        self.assertEqual(self.world.lookups.cached(TenantKey("name", "b")), others[0])
        # Nor is a connection that is refused now.
        self.fail_once(others[1], unreachable=True)
        self.assertEqual([s.node_id for s in self.world.cp.suspected], ["node_a"])

    def test_health_closes(self) -> None:
        """A node that answers two health questions serves again, without any request."""
        self.open(route())
        self.world.well["http://127.0.0.1:8090"] = False
        self.world.advance(OPEN_S * 1.2 + 0.2)
        self.assertEqual(len(self.world.health_questions), 1)
        self.assertIs(self.nodes.state(route()), State.OPEN)
        self.world.well["http://127.0.0.1:8090"] = True
        self.world.advance(2 * OPEN_S * 1.2 + 1.5)
        self.assertIs(self.nodes.state(route()), State.CLOSED)

    def test_closed_nodes_are_left_alone(self) -> None:
        """Nodes that nobody uses are not asked for their health."""
        self.fail_once(route(), unreachable=False)
        self.world.advance(30.0)
        self.assertEqual(self.world.health_questions, [])

    def test_silent_node(self) -> None:
        """A node that took a request and does not answer its health questions is out of use within
        some 7 s, and the control plane hears why; each change is logged with its cause."""
        ticket = self.nodes.admit(route(), self.world.clock.seconds(), safe=True)
        assert ticket is not None
        self.world.well["http://127.0.0.1:8090"] = False
        with capturedLogs() as logged:
            self.world.advance(3 * CHECK_S + 0.2)
            self.assertIs(self.nodes.state(route()), State.OPEN)
            self.assertIsNone(self.world.lookups.cached(SHOP))
            self.world.well["http://127.0.0.1:8090"] = True
            self.world.advance(OPEN_S * 1.2 + 1.5)
        self.assertEqual(self.world.health_limits_s, [CHECK_TIMEOUT_S] * 3 + [PROBE_S] * 2)
        reason = "no answer to the question for its health"
        self.assertEqual(self.world.cp.suspected, [SuspectNode("node_a", 1, reason)])
        changes = [(e["before"], e["after"], e["why"]) for e in logged if "before" in e]
        self.assertEqual(
            changes,
            [
                ("closed", "open", reason),
                ("open", "half_open", "its wait is over"),
                ("half_open", "closed", "it answers again"),
            ],
        )
