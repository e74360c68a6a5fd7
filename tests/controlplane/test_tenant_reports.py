"""What nodes say of their tenants, and what follows from it."""

import msgspec
from twisted.internet.defer import Deferred

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.executor import utc_now
from pbcluster.errors import (
    Archived,
    Conflict,
    InvalidInput,
    NotFound,
    RemoteProtocolError,
    Unavailable,
)
from pbcluster.records import TenantStatus
from tests.controlplane.request_case import T1, RequestCase


class TestReports(RequestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owner = self.place().node_id
        self.other = "node_b" if self.owner == "node_a" else "node_a"

    def test_ready_makes_it_active(self) -> None:
        """From then on it was ready once."""
        self.answer(self.owner, self.report(self.owner, "ready"), key="k")
        self.assertTrue(self.tenant.ever_ready)
        self.assertEqual(self.tenant.status, TenantStatus.ACTIVE)

    def test_refused_gives_a_higher_epoch_to_the_same_node(self) -> None:
        """Above what the node saw in S3."""
        self.run_for(2.1)
        refused = self.report(self.owner, "refused", observed_epoch=7)
        self.answer(self.owner, refused, key="k")
        self.assertEqual((self.tenant.node_id, self.tenant.epoch), (self.owner, 8))

    def test_a_refused_epoch_is_told_again_if_something_else_was_committed_first(self) -> None:
        """The node must not forget its report: the tenant would stay without an owner. (The
        ownership simulator found it.)"""
        self.run_for(2.1)

        async def refused(effect: object) -> None:
            raise Conflict("its degraded flag was committed meanwhile")

        self.patch(self.world.executor, "assign", refused)
        report = self.report(self.owner, "refused", observed_epoch=7)
        self.refusal(Unavailable, self.owner, report, key="k")

    def test_a_degraded_tenant_gets_no_new_epoch(self) -> None:
        """Its owner's disk has what nobody else has; the report is repeated until it may."""
        self.run_for(2.1)
        registry = self.world.consensus.registry
        registry._put(msgspec.structs.replace(self.tenant, degraded=True))
        report = self.report(self.owner, "refused", observed_epoch=7)
        self.refusal(Unavailable, self.owner, report, key="k")
        self.assertEqual(self.tenant.epoch, 1)

    def test_an_epoch_cannot_be_driven_out_of_range(self) -> None:
        """What a node claims to have seen is bounded."""
        for observed in (2**60, -1):
            refused = self.report(self.owner, "refused", observed_epoch=observed)
            self.refusal(InvalidInput, self.owner, refused, key="k")
        self.assertEqual(self.tenant.epoch, 1)

    def test_a_new_start_waits_for_the_promises_to_the_old(self) -> None:
        """A new epoch for the same node comes no sooner than the margin after the last
        acknowledgement to its former process, which may still be running."""
        self.renewing.discard(self.owner)
        self.lease(self.owner)
        sent = self.world.now
        self.register(self.owner, "s2")
        refused = self.report(self.owner, "refused", observed_epoch=1, incarnation=2)
        while self.world.now < sent + 1.9:
            self.lease(self.owner, 2)
            self.refusal(Unavailable, self.owner, refused, key="k")
        self.assertEqual(self.tenant.epoch, 1)
        self.run_for(0.2)
        self.answer(self.owner, refused, key="k")
        self.assertEqual(self.tenant.epoch, 2)

    def test_a_report_is_not_answered_before_its_epoch_is_committed(self) -> None:
        """While another assignment is under way the node must repeat it: it might be lost."""
        self.run_for(2.1)
        self.world.planner._assigning[T1] = self.owner
        refused = self.report(self.owner, "refused", observed_epoch=1)
        self.refusal(Unavailable, self.owner, refused, key="k")

    def test_a_report_of_an_older_start_is_repeated_not_lost(self) -> None:
        """It is answered as unavailable, so that the node registers and tells it again."""
        self.renewing.discard(self.owner)
        self.register(self.owner, "s2")
        self.refusal(Unavailable, self.owner, self.report(self.owner, "ready"), key="k")

    def test_released_frees_it_at_once(self) -> None:
        """The next look-up places it without any margin."""
        self.answer(self.owner, self.report(self.owner, "released"), key="k")
        self.assertEqual(self.tenant.node_id, "")
        self.assertEqual(self.place().epoch, 2)

    def test_late_reports_of_former_owners_change_nothing(self) -> None:
        """They were true then."""
        for outcome in ("ready", "refused", "failed", "released", "stopped"):
            self.answer(self.other, self.report(self.other, outcome), key=outcome)
            self.answer(self.owner, self.report(self.owner, outcome, epoch=0), key=f"0{outcome}")
        self.assertEqual((self.tenant.node_id, self.tenant.epoch), (self.owner, 1))
        self.assertEqual(self.tenant.status, TenantStatus.CREATED)

    def test_failed_is_kept_for_operators(self) -> None:
        """Bounded, until it is ready."""
        self.answer(self.owner, self.report(self.owner, "failed", detail="x" * 9999), key="k")
        self.assertEqual(self.world.requests.reports.failures, {T1: "x" * 500})
        self.answer(self.owner, self.report(self.owner, "ready"), key="k2")
        self.assertEqual(self.world.requests.reports.failures, {})

    def test_stopped_makes_it_idle_and_ready_wakes_it(self) -> None:
        """An idle tenant stays where it is, and is not started by the list."""
        self.answer(self.owner, self.report(self.owner, "ready"), key="k1")
        self.answer(self.owner, self.report(self.owner, "stopped"), key="k2")
        self.assertEqual(self.tenant.status, TenantStatus.IDLE)
        listed = self.world.registry.assignments(self.owner).assignments
        self.assertEqual([a.wanted for a in listed], [False])
        self.answer(self.owner, self.report(self.owner, "ready"), key="k3")
        self.assertEqual(self.tenant.status, TenantStatus.ACTIVE)

    def test_an_unknown_outcome_is_refused(self) -> None:
        """With those that are known."""
        told = self.refusal(
            RemoteProtocolError, self.owner, self.report(self.owner, "gone"), key="k"
        )
        self.assertIn("released", told)

    def test_a_deleted_tenant_ends_with_its_nodes_report(self) -> None:
        """It is unknown to look-ups at once, and a tombstone when its node has ended it."""
        deleted = Deferred.fromCoroutine(
            self.world.consensus.propose(c.DeleteTenant(utc_now(), T1))
        )
        self.run_for(0.1)
        self.successResultOf(deleted)
        self.refusal(NotFound, "g", wire.LookupRoute(tenant_id=T1, place=True))
        self.answer(self.owner, self.report(self.owner, "ended", self.tenant.epoch), key="k")
        self.assertEqual(self.tenant.status, TenantStatus.DELETED)

    def test_a_deletion_that_the_registry_forgot(self) -> None:
        """The tombstone in S3 counts: it is deleted again, not given new epochs for ever."""
        self.answer(self.owner, self.report(self.owner, "deleted", observed_epoch=9), key="k")
        self.assertEqual(self.tenant.status, TenantStatus.DELETING)
        (order,) = self.world.registry.assignments(self.owner).assignments
        self.assertEqual((order.ending, order.epoch), ("deleted", 2))

    def test_an_archived_tenant_is_told_from_one_that_is_not_there(self) -> None:
        """From the moment it is ordered; after its activation a look-up places it again."""
        archived = Deferred.fromCoroutine(
            self.world.consensus.propose(c.ArchiveTenant(utc_now(), T1))
        )
        self.run_for(0.1)
        self.successResultOf(archived)
        told = self.refusal(Archived, "g", wire.LookupRoute(tenant_id=T1, place=True))
        self.assertIn("archived", told)
        self.answer(self.owner, self.report(self.owner, "ended", self.tenant.epoch), key="k")
        self.assertEqual((self.tenant.status, self.tenant.node_id), (TenantStatus.ARCHIVED, ""))
        epoch = self.tenant.epoch
        self.refusal(Archived, "g", wire.LookupRoute(tenant_id=T1, place=True))
        Deferred.fromCoroutine(self.world.consensus.propose(c.ActivateTenant(utc_now(), T1)))
        self.run_for(0.1)
        found = self.answer("g", wire.LookupRoute(tenant_id=T1, place=True))
        assert isinstance(found, wire.RouteFound)
        self.assertGreater(found.route.epoch, epoch)
