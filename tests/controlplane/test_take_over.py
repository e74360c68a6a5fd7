"""Tenants of nodes that fall silent: when they are given away, and what no lease covers then."""

import msgspec
from twisted.internet.defer import Deferred

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.errors import DeadlineExceeded, Unavailable
from pbcluster.records import NodeStatus, TenantStatus
from tests.controlplane.request_case import T1, RequestCase


class TestTakeOver(RequestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owner = self.place().node_id
        self.other = "node_b" if self.owner == "node_a" else "node_a"

    def fall_silent(self) -> float:
        """:returns: when the last acknowledgement was sent."""
        self.lease(self.owner)
        self.renewing.discard(self.owner)
        return self.world.now

    def test_a_silent_node_loses_its_tenants_after_the_margin(self) -> None:
        """Not within 2 s of its last acknowledgement, but soon after, under a new epoch."""
        last = self.fall_silent()
        self.run_until(lambda: self.tenant.node_id != self.owner)
        self.assertLess(self.world.now, last + 3.0)
        self.assertGreaterEqual(self.world.now, last + 2.0)
        self.assertEqual((self.tenant.node_id, self.tenant.epoch), (self.other, 2))

    def test_a_look_up_waits_for_the_take_over(self) -> None:
        """It is answered with the new owner as soon as there is one."""
        self.fall_silent()
        self.run_for(1.6)
        asked = self.ask("g", wire.LookupRoute(tenant_id=T1, place=True))
        self.run_for(0.2)
        self.assertNoResult(asked)
        self.run_for(0.6)
        route = wire.expect(self.successResultOf(asked), wire.RouteFound).route
        self.assertEqual((route.node_id, route.epoch), (self.other, 2))

    def test_who_comes_back_in_time_keeps_them(self) -> None:
        """A lease before the margin's end unsuspects the node."""
        self.fall_silent()
        self.run_for(1.8)
        self.renewing.add(self.owner)
        self.run_for(4.0)
        self.assertEqual((self.tenant.node_id, self.tenant.epoch), (self.owner, 1))

    def decided(self) -> None:
        """Bring the take-over to its proposal, and hold it at the disk."""
        self.fall_silent()
        self.patch(self.world.store, "delay_s", lambda: 5.0)
        self.run_until(lambda: bool(self.world.planner._assigning))

    def test_from_the_decision_on_the_loser_is_not_covered(self) -> None:
        """It comes back while the new assignment is written: its ack leaves the tenant out."""
        self.decided()
        self.assertEqual(self.tenant.node_id, self.owner)
        self.assertEqual(self.lease(self.owner).not_covered, (T1,))
        self.assertEqual(self.lease(self.other).not_covered, ())

    def test_while_its_fate_is_unknown_it_is_not_covered(self) -> None:
        """Nobody knows whether the assignment was committed: it is proposed again, and until that
        is answered the loser's ack leaves the tenant out."""
        proposed: list[Deferred[None]] = []
        propose = self.world.consensus.propose

        async def unknown_then_slow(
            command: c.AnyCommand, key: str = "", note: c.AuditNote | None = None
        ) -> Outcome:
            if isinstance(command, c.AssignTenant):
                proposed.append(Deferred())
                if len(proposed) == 1:
                    raise DeadlineExceeded("whether it was done is unknown")
                await proposed[-1]
            return await propose(command, key, note)

        self.patch(self.world.consensus, "propose", unknown_then_slow)
        self.fall_silent()
        self.run_until(lambda: bool(proposed))
        self.assertEqual(self.lease(self.owner).not_covered, (T1,))
        self.assertEqual(len(proposed), 2)
        proposed[-1].callback(None)
        self.run_for(0.2)
        self.assertEqual(self.tenant.node_id, self.other)
        self.assertEqual(self.lease(self.owner).not_covered, ())

    def test_an_asker_that_goes_away_does_not_cover_it_again(self) -> None:
        """The gateway whose look-up caused the take-over hangs up before it is written."""
        self.patch(self.world.planner, "_rescues", lambda now: [])
        self.fall_silent()
        self.run_for(2.1)
        self.patch(self.world.store, "delay_s", lambda: 1.0)
        asked = self.ask("g", wire.LookupRoute(tenant_id=T1, place=True))
        self.run_for(0.2)
        asked.cancel()
        self.failureResultOf(asked)
        self.assertEqual(self.lease(self.owner).not_covered, (T1,))
        self.run_for(1.2)
        self.assertEqual(self.tenant.node_id, self.other)
        self.assertEqual(self.lease(self.owner).not_covered, ())

    def test_a_new_leader_gives_nothing_away_for_a_margin(self) -> None:
        """A restarted member does not know what was acknowledged before."""
        self.fall_silent()
        self.run_for(1.5)
        self.world.crash_member()
        self.world.start_member()
        began = self.world.now
        self.world.run_for(0.1)
        self.run_until(lambda: self.tenant.node_id != self.owner)
        self.assertLess(self.world.now, began + 3.0)
        self.assertGreaterEqual(self.world.now, began + 2.0)

    def test_a_degraded_tenant_stays(self) -> None:
        """Its node alone has what was acknowledged: only an operator gives it away."""

        self.world.registry._put(msgspec.structs.replace(self.tenant, degraded=True))
        self.fall_silent()
        self.run_for(5.0)
        self.assertEqual(self.tenant.node_id, self.owner)
        self.refusal(Unavailable, "g", wire.LookupRoute(tenant_id=T1, place=True), timeout_s=0.15)

    def test_a_deletion_does_not_wait_for_a_dead_node(self) -> None:
        """After the margin another node claims its end."""
        self.fall_silent()
        work = self.world.consensus.propose(c.DeleteTenant(utc_now(), T1))
        deleted = Deferred.fromCoroutine(work)
        self.run_for(3.0)
        self.successResultOf(deleted)
        self.assertNotIn(self.tenant.node_id, ("", self.owner))
        self.answer(
            self.tenant.node_id,
            self.report(self.tenant.node_id, "ended", self.tenant.epoch),
            key="k",
        )
        self.assertEqual(self.tenant.status, TenantStatus.DELETED)

    def test_the_node_is_down_after_fifteen_seconds(self) -> None:
        """And up again when it is heard."""
        self.fall_silent()
        self.run_for(14.5)
        self.assertEqual(self.world.registry.node(self.owner).status, NodeStatus.HEALTHY)
        self.run_for(1.0)
        self.assertEqual(self.world.registry.node(self.owner).status, NodeStatus.DOWN)
        self.renewing.add(self.owner)
        self.run_for(0.6)
        self.assertEqual(self.world.registry.node(self.owner).status, NodeStatus.HEALTHY)


class TestStorm(RequestCase):
    def test_many_silent_nodes_stop_the_background_only(self) -> None:
        """Two of three are silent: nothing moves by itself, a request moves its own."""
        self.register("node_c")
        self.renewing.add("node_c")
        for name in ("t8", "t9"):
            create = c.CreateTenant(utc_now(), f"tenant_000000{name}", name, f"{name}.localhost")
            Deferred.fromCoroutine(self.world.consensus.propose(create))
            self.run_for(0.1)
            self.answer("g", wire.LookupRoute(name=name, place=True))
        self.place()
        registry = self.world.registry
        self.assertEqual([registry.count_of(n.id) for n in registry.nodes()], [1, 1, 1])
        lost = self.tenant.node_id
        survivor = next(n.id for n in registry.nodes() if n.id != lost)
        self.renewing = {survivor}
        self.run_for(4.0)
        self.assertTrue(self.world.planner.storm())
        self.assertEqual(registry.count_of(survivor), 1)
        self.assertEqual(self.place().node_id, survivor)
        # What is left on the silent ones concerns one node now: no storm any more.
        self.run_for(1.0)
        self.assertFalse(self.world.planner.storm())
        self.assertEqual(registry.count_of(survivor), 3)
