"""Holds of tenants that move: what begins them, what ends them, and what they do to requests."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import RemoteProtocolError
from pbcluster.gateway.tenant_holds import MAX_HELD_TENANTS, MAX_HOLD_S, TenantHolds
from pbcluster.transport.interfaces import Asked
from pbcluster.wire import HoldTenant, Ok, Probe
from tests.gateway.fakes import answer, head, route
from tests.gateway.test_proxy import POST, TO_B, A, B, ProxyCase

MEMBER = Asked("member_1", "", 1.0, 0.0)


class RuleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.holds = TenantHolds()
        self.here = route()

    def test_only_what_would_go_the_old_way(self) -> None:
        """A route of a higher epoch is not held, nor another tenant."""
        self.holds.hold(self.here.tenant_id, 1, 5.0, 0.0)
        self.assertTrue(self.holds.is_held(self.here, 1.0))
        self.assertFalse(self.holds.is_held(route(epoch=2), 1.0))
        self.assertFalse(self.holds.is_held(route("other"), 1.0))

    def test_it_ends_by_time_whatever_was_asked_for(self) -> None:
        """Nobody is held for ever by a control plane that died."""
        self.holds.hold(self.here.tenant_id, 1, 1e9, 0.0)
        self.assertTrue(self.holds.is_held(self.here, MAX_HOLD_S - 1))
        self.assertFalse(self.holds.is_held(self.here, MAX_HOLD_S))
        self.assertEqual(len(self.holds), 0)

    def test_it_ends_with_a_route_that_is_right(self) -> None:
        """The new one, or the old one confirmed; not by what is older."""
        self.holds.hold(self.here.tenant_id, 3, 5.0, 0.0)
        self.holds.release(self.here.tenant_id, 2)
        self.assertEqual(len(self.holds), 1)
        self.holds.release(self.here.tenant_id, 3)
        self.assertEqual(len(self.holds), 0)

    def test_a_late_order_changes_nothing(self) -> None:
        """One of an epoch that was left before."""
        self.holds.hold(self.here.tenant_id, 5, 5.0, 0.0)
        self.holds.hold(self.here.tenant_id, 2, 5.0, 0.0)
        self.assertTrue(self.holds.is_held(route(epoch=5), 1.0))

    def test_they_are_bounded(self) -> None:
        """The oldest goes first: its requests wait at the node."""
        for number in range(MAX_HELD_TENANTS + 5):
            self.holds.hold(f"tenant_{number}", 1, 5.0, 0.0)
        self.assertEqual(len(self.holds), MAX_HELD_TENANTS)


class HoldTests(ProxyCase):
    def hold(self, epoch: int = 1, limit_ms: int = 20_000) -> None:
        order = HoldTenant(route().tenant_id, epoch, limit_ms)
        asked = Deferred.fromCoroutine(self.world.proxy.asked(MEMBER, order))
        self.assertEqual(self.successResultOf(asked), Ok())

    def test_held_unread_until_it_moved(self) -> None:
        """Requests of every method wait without being sent, and without asking the control plane
        all the time; the broadcast of the new route sends them there at once."""
        self.world.send()
        self.hold()
        waiting = [self.world.send(head()), self.world.send(POST)]
        asked = len(self.world.cp.lookups)
        self.world.advance(3.0)
        self.assertEqual([each.plans for each in waiting], [[], []])
        self.assertEqual(len(self.world.cp.lookups), asked)
        self.world.node(B, answer())
        moved = route(epoch=2, **TO_B)
        self.world.routes.put(moved, 9, self.world.clock.seconds())
        self.world.proxy.moved(moved)
        self.world.advance(0.05)
        for each in waiting:
            self.assertEqual((each.status, [plan.port for plan in each.plans]), (200, [B]))

    def test_it_stays(self) -> None:
        """A migration that was aborted: the route is confirmed, and they go where they went."""
        self.world.send()
        self.hold()
        waiting = self.world.send()
        self.world.proxy.confirmed(route())
        self.world.advance(0.3)
        self.assertEqual((waiting.status, [plan.port for plan in waiting.plans]), (200, [A]))

    def test_the_time_is_over(self) -> None:
        """Without any further word they are let through: the node knows what to do."""
        self.world.send()
        self.hold(limit_ms=1000)
        waiting = self.world.send()
        self.assertGreaterEqual(self.world.until(waiting), 0.9)
        self.assertEqual(waiting.status, 200)

    def test_other_questions_are_refused(self) -> None:
        """A gateway is asked for holds only."""
        asked = Deferred.fromCoroutine(self.world.proxy.asked(MEMBER, Probe(1)))
        self.failureResultOf(asked, RemoteProtocolError)
