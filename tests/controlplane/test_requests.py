"""What nodes and gateways ask, answered by a whole member without sockets and disk."""

from collections.abc import Coroutine
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.raft_reads import PACE_S
from pbcluster.errors import (
    Archived,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NoCapacity,
    NotFound,
    NotLeader,
    PBClusterError,
    RemoteProtocolError,
    Unavailable,
    WrongEpoch,
)
from pbcluster.records import MemberRecord, NodeStatus, TenantStatus
from pbcluster.transport.interfaces import Asked
from tests.controlplane.lease_world import MEMBER, World

T1 = "tenant_00000000"


class RequestCase(SynchronousTestCase):
    """A member with two nodes that live, each a few lines of this test."""

    def setUp(self) -> None:
        self.world = World(1, nodes=0, tenants=1)
        self.addCleanup(self.world.close)
        self.keys = 0
        self.renewing: set[str] = set()
        self.index: dict[str, int] = {}
        for node_id in ("node_a", "node_b"):
            self.register(node_id)
            self.renewing.add(node_id)

    # -- helpers --

    def ask(
        self, sender: str, body: wire.Body, *, timeout_s: float = 3.0, key: str = "", role: str = ""
    ) -> Deferred[wire.Body]:
        now = self.world.now
        # As if the transport had a clock of its own.
        asked = Asked(sender, key, now + timeout_s - 500.0, now - 500.0, role)
        work = cast(Coroutine[Any, Any, wire.Body], self.world.requests(asked, body))
        return Deferred.fromCoroutine(work)

    def answer(self, sender: str, body: wire.Body, **more: Any) -> wire.Body:
        asked = self.ask(sender, body, **more)
        self.run_for(0.1)
        if not asked.called:  # two commands, one after the other
            self.run_for(0.1)
        return self.successResultOf(asked)

    def refusal(self, kind: type[PBClusterError], sender: str, body: wire.Body, **more: Any) -> str:
        asked = self.ask(sender, body, **more)
        self.run_for(0.1)
        return str(self.failureResultOf(asked, kind).value)

    def register(self, node_id: str, start: str = "s1", **more: Any) -> wire.Registered:
        body = wire.RegisterNode(node_id, start, "http://127.0.0.1:1", 5, **more)
        self.keys += 1
        return wire.expect(self.answer(node_id, body, key=f"r{self.keys}"), wire.Registered)

    def lease(self, node_id: str, incarnation: int = 1) -> wire.LeaseAck:
        index = self.index.get(node_id, -1)
        asked = self.ask(node_id, wire.Lease(node_id, incarnation, index))
        # A read barrier takes a turn of the reactor, and may share a question with the next.
        for seconds in (0, PACE_S, 0):
            if not asked.called:
                self.world.clock.advance(seconds)
        ack = wire.expect(self.successResultOf(asked), wire.LeaseAck)
        self.index[node_id] = ack.assignments_index
        return ack

    def run_for(self, seconds: float) -> None:
        steps = round(seconds / 0.1)
        for step in range(steps):
            if step % 4 == 0:
                for node_id in self.renewing:
                    self.lease(node_id)
            self.world.clock.advance(0.1)

    def report(self, node_id: str, outcome: str, epoch: int = 1, **more: Any) -> wire.TenantReport:
        return wire.TenantReport(node_id, more.pop("incarnation", 1), T1, epoch, outcome, **more)

    def place(self, min_epoch: int = 0) -> wire.Route:
        found = self.answer("g", wire.LookupRoute(tenant_id=T1, place=True, min_epoch=min_epoch))
        return wire.expect(found, wire.RouteFound).route

    @property
    def tenant(self) -> Any:
        return self.world.registry.tenant(T1)


class TestNodes(RequestCase):
    def test_a_node_speaks_for_itself_only(self) -> None:
        """Another's name in the message is forbidden, and so is another role."""
        lease = wire.Lease("node_a", 1, 0)
        self.refusal(Forbidden, "node_b", lease)
        self.assertIn("gateway", self.refusal(Forbidden, "node_a", lease, role="gateway"))
        self.answer("node_a", lease, role="node")

    def test_a_registration_is_checked_field_by_field(self) -> None:
        """Each wrong field is named."""
        good = ("node_c", "s1", "http://127.0.0.1:1", 5)
        for position, value, field in (
            (1, "", "start_id"),
            (1, "x" * 201, "start_id"),
            (2, "ftp://x", "address"),
            (2, "http://", "address"),
            (3, 0, "capacity"),
            (3, 10_001, "capacity"),
        ):
            wrong = [*good[:position], value, *good[position + 1 :]]
            body = wire.RegisterNode(*cast(Any, wrong))
            self.assertIn(field, self.refusal(InvalidInput, "node_c", body, key="k"))
        self.assertRaises(NotFound, self.world.registry.node, "node_c")

    def test_a_repeated_registration_is_one(self) -> None:
        """The same key, and the same start under another key, give the same incarnation."""
        body = wire.RegisterNode("node_c", "s1", "http://127.0.0.1:1", 5)
        answers = [self.answer("node_c", body, key=key) for key in ("k1", "k1", "k2")]
        self.assertEqual({wire.expect(a, wire.Registered).incarnation for a in answers}, {1})

    def test_a_lease_of_an_older_incarnation_is_refused(self) -> None:
        """The old process gets no proof from the moment the new one is registered."""
        self.renewing.discard("node_a")
        self.assertEqual(self.register("node_a", "s2").incarnation, 2)
        self.refusal(WrongEpoch, "node_a", wire.Lease("node_a", 1, 0))
        self.assertTrue(self.lease("node_a", 2).granted)

    def test_an_unknown_node_is_told_so(self) -> None:
        """Its lease is answered with not found: it must register."""
        self.refusal(NotFound, "node_z", wire.Lease("node_z", 1, 0))

    def test_the_list_comes_with_the_lease_when_it_is_behind(self) -> None:
        """And only then."""
        self.place()
        owner = self.tenant.node_id
        body = wire.Lease(owner, 1, -1)
        ack = wire.expect(self.answer(owner, body), wire.LeaseAck)
        assert ack.assignments is not None
        self.assertEqual([a.tenant_id for a in ack.assignments.assignments], [T1])
        self.assertEqual(ack.assignments.index, ack.assignments_index)
        self.assertIsNone(self.lease(owner).assignments)

    def test_a_drained_node_gets_nothing_new(self) -> None:
        """Capacity and drain state are committed; the other node gets the tenant."""
        drain = wire.NodeCapacity("node_a", 1, 3, draining=True)
        self.answer("node_a", drain, key="k")
        self.assertEqual(self.world.registry.node("node_a").status, NodeStatus.DRAINING)
        self.assertEqual(self.world.registry.node("node_a").capacity, 3)
        self.assertEqual(self.place().node_id, "node_b")
        self.refusal(InvalidInput, "node_a", wire.NodeCapacity("node_a", 1, 0, False), key="k2")

    def test_what_members_do_not_answer_is_refused(self) -> None:
        """As a fault of the asker."""
        self.refusal(RemoteProtocolError, "g", wire.Ok())
        self.refusal(RemoteProtocolError, "node_a", wire.Lease("node_a", 1, 0), key="k" * 201)

    def test_only_the_leader_answers_what_decides(self) -> None:
        """The others name it."""
        self.renewing.clear()
        self.patch(self.world.consensus, "_led_term", 0)
        asked = self.ask("node_a", wire.Lease("node_a", 1, 0))
        self.run_for(1.0)  # it waits for an election first
        self.failureResultOf(asked, NotLeader)


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
        self.world.planner._assigning.add(T1)
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
        self.assertEqual(self.world.requests.failures, {T1: "x" * 500})
        self.answer(self.owner, self.report(self.owner, "ready"), key="k2")
        self.assertEqual(self.world.requests.failures, {})

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
        while self.tenant.node_id == self.owner:
            self.run_for(0.1)
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
        while not self.world.planner._assigning:
            self.run_for(0.1)

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

        async def unknown_then_slow(command: c.AnyCommand, key: str = "") -> Outcome:
            if isinstance(command, c.AssignTenant):
                proposed.append(Deferred())
                if len(proposed) == 1:
                    raise DeadlineExceeded("whether it was done is unknown")
                await proposed[-1]
            return await propose(command, key)

        self.patch(self.world.consensus, "propose", unknown_then_slow)
        self.fall_silent()
        while not proposed:
            self.run_for(0.1)
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
        while self.tenant.node_id == self.owner:
            self.run_for(0.1)
            self.assertLess(self.world.now, began + 3.0)
        self.assertGreaterEqual(self.world.now, began + 2.0)

    def test_a_degraded_tenant_stays(self) -> None:
        """Its node alone has what was acknowledged: only an operator gives it away."""
        import msgspec

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


class TestLookups(RequestCase):
    def test_unknown_and_ambiguous(self) -> None:
        """An unknown tenant is not found; a look-up names one key."""
        self.refusal(NotFound, "g", wire.LookupRoute(name="nobody", place=True))
        self.refusal(NotFound, "g", wire.LookupRoute(domain="x.example.org"))
        self.refusal(RemoteProtocolError, "g", wire.LookupRoute())
        self.refusal(RemoteProtocolError, "g", wire.LookupRoute(tenant_id=T1, name="t0"))

    def test_a_look_up_without_placing_places_nothing(self) -> None:
        """A tenant without a node has no route."""
        self.refusal(NotFound, "g", wire.LookupRoute(name="t0"))
        self.assertEqual(self.tenant.node_id, "")

    def test_it_waits_for_a_newer_epoch(self) -> None:
        """Until it is applied, or until shortly before the asker's deadline."""
        self.place()
        self.run_for(2.1)
        asked = self.ask("g", wire.LookupRoute(tenant_id=T1, min_epoch=2))
        self.run_for(1.0)
        self.assertNoResult(asked)
        owner = self.tenant.node_id
        self.answer(owner, self.report(owner, "refused", observed_epoch=1), key="k")
        self.run_for(0.1)
        route = wire.expect(self.successResultOf(asked), wire.RouteFound).route
        self.assertEqual(route.epoch, 2)
        late = self.ask("g", wire.LookupRoute(tenant_id=T1, min_epoch=9), timeout_s=1.0)
        self.run_for(1.0)
        self.failureResultOf(late, Unavailable)

    def test_no_room_is_told_with_reasons(self) -> None:
        """Each node's."""
        for node_id in ("node_a", "node_b"):
            self.answer(node_id, wire.NodeCapacity(node_id, 1, 1, True), key=node_id)
        told = self.refusal(NoCapacity, "g", wire.LookupRoute(tenant_id=T1, place=True))
        self.assertIn("node_a is draining", told)

    def test_many_look_ups_make_one_assignment(self) -> None:
        """All who ask at once get the same epoch."""
        asked = [self.ask("g", wire.LookupRoute(name="t0", place=True)) for _ in range(20)]
        self.run_for(0.3)
        epochs = {wire.expect(self.successResultOf(a), wire.RouteFound).route.epoch for a in asked}
        self.assertEqual(epochs, {1})

    def test_a_snapshot_leaves_out_who_has_no_route(self) -> None:
        """And is bounded."""
        self.place()
        body = wire.SnapshotRequest((T1, "tenant_unknown1"))
        shot = wire.expect(self.answer("g", body), wire.Snapshot)
        self.assertEqual([route.tenant_id for route in shot.routes], [T1])
        self.assertEqual(shot.index, self.world.registry.applied_index)
        self.refusal(RemoteProtocolError, "g", wire.SnapshotRequest((T1,) * 1001))

    def test_members_are_told_by_any_member(self) -> None:
        """As of the index it applied; none until they are known. Nodes and gateways may ask."""
        self.renewing.clear()
        self.patch(self.world.consensus, "_led_term", 0)
        for sender, role in (("node_a", "node"), ("g", "gateway")):
            none = wire.expect(self.answer(sender, wire.ListMembers(), role=role), wire.Members)
            self.assertEqual(none, wire.Members(self.world.registry.applied_index, ()))
        record = MemberRecord(id="member_1", raft="r", requests="q", broadcasts="b", admin="a")
        self.world.registry.roster.put(record)
        other = MemberRecord(id="member_2", raft="s", requests="t", broadcasts="c", admin="d")
        self.world.registry.roster.put(other)  # known, but no member yet
        told = wire.expect(self.answer("g", wire.ListMembers()), wire.Members)
        self.assertEqual(told.members, (record,))


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
        self.assertEqual([each.node_id for each in lists], [route.node_id])
        self.assertEqual([b.route for b in heard], [route])
        for client in clients:
            client.stop()

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
