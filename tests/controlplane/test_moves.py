"""What a leader does for all migrations, and how it empties a node that is drained."""

from __future__ import annotations

from collections import Counter

import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.controlplane import migration as m
from pbcluster.controlplane.moves import (
    MAX_PAUSED,
    MAX_PER_SOURCE,
    MAX_PER_TARGET,
    PAUSE_COUNTS_S,
    RETRY_S,
    Effect,
    Moves,
    Start,
)
from pbcluster.controlplane.planner import Assign
from pbcluster.errors import NoCapacity
from pbcluster.records import TenantRecord, TenantStatus
from tests.controlplane.test_planner import AT, PlannerCase


class MovesCase(PlannerCase):
    def setUp(self) -> None:
        super().setUp()
        self.moves = Moves(lambda: self.registry, self.liveness, self.planner)
        for name in "abc":
            self.node(name)

    def serving(self, number: int, node_id: str) -> TenantRecord:
        tenant = self.tenant(number, node_id)
        self.apply(c.MarkReady(AT, tenant.id, node_id, tenant.epoch))
        return self.registry.tenant(tenant.id)

    def start(self, tenant: TenantRecord, target: str) -> str:
        move = f"migration_{tenant.id}"
        self.apply(c.StartMigration(AT, move, tenant.id, target, tenant.epoch))
        return move

    def moves_for(self, seconds: float) -> list[Effect]:
        """Effects of both planners' time passing."""
        found: list[Effect] = []
        for _ in range(round(seconds / 0.1)):
            self.pass_time(0.1)
            found += self.moves.tick(self.now)
        return found


class TestLeaving(MovesCase):
    def leave(self, node_id: str) -> None:
        self.moves.leaves(node_id, self.registry.node(node_id).incarnation)

    def test_what_runs_leaves_a_node_that_is_stopped(self) -> None:
        """Its running tenants move, those that are idle do not; nothing of another start of it."""
        runs, idle = self.serving(1, "a"), self.serving(2, "a")
        self.apply(c.SetTenantStatus(AT, idle.id, idle.epoch, TenantStatus.IDLE))
        self.moves.leaves("a", self.registry.node("a").incarnation - 1)
        self.assertEqual(self.moves_for(1), [])
        self.leave("a")
        (start,) = self.moves_for(1)
        assert isinstance(start, Start)
        self.assertEqual((start.tenant_id, start.reason), (runs.id, "node a is being stopped"))

    def test_a_new_leader_is_told_again(self) -> None:
        """It begins with nothing."""
        self.serving(1, "a")
        self.leave("a")
        self.moves.reset()
        self.assertEqual(self.moves_for(1), [])
        self.leave("a")
        self.assertEqual(len(self.moves_for(1)), 1)

    def test_nowhere_to_go(self) -> None:
        """Without another node that is well it is refused, so that it need not wait."""
        self.serving(1, "a")
        for name in "bc":
            self.apply(c.DrainNode(AT, name, True))
        self.assertRaises(NoCapacity, self.leave, "a")


class TestSteps(MovesCase):
    def test_a_step_is_named_once_until_it_ended(self) -> None:
        """And again a while after it failed."""
        tenant = self.serving(1, "a")
        move = self.start(tenant, "b")
        self.assertEqual(self.moves_for(1), [])
        self.apply(c.MigrationWarmed(AT, move, tenant.id, 1, 1))
        self.assertEqual(self.moves_for(2), [m.Hold(tenant.id, move, 1)])
        self.moves.ended(tenant.id, self.now, failed=True)
        self.assertEqual(self.moves_for(2), [m.Hold(tenant.id, move, 1)])

    def test_few_are_paused_at_once(self) -> None:
        """Of tenants that are ready to move to one target, MAX_PAUSED are held; the next one when
        one of them serves there. Another target is not concerned."""
        tenants = [self.serving(number, "a") for number in range(MAX_PAUSED + 2)]
        moves = [self.start(each, "b") for each in tenants]
        elsewhere = self.serving(90, "a")
        other = self.start(elsewhere, "c")
        for each, move in zip([*tenants, elsewhere], [*moves, other], strict=True):
            self.apply(c.MigrationWarmed(AT, move, each.id, 1, 1))
        held = [e.tenant_id for e in self.moves_for(1) if isinstance(e, m.Hold)]
        self.assertEqual(held, [*(t.id for t in tenants[:MAX_PAUSED]), elsewhere.id])
        first = tenants[0]
        self.apply(c.DrainTenant(AT, moves[0], first.id, 1))
        self.moves.ended(first.id, self.now, failed=False)
        self.assertEqual(self.moves_for(1), [])
        self.apply(c.MigrationDrained(AT, moves[0], first.id, first.epoch, 1, True))
        self.assertEqual(self.moves_for(1), [])
        epoch = self.registry.tenant(first.id).epoch
        self.apply(c.MigrationReady(AT, moves[0], first.id, epoch))
        (next_one,) = self.moves_for(1)
        self.assertEqual(next_one.tenant_id, tenants[MAX_PAUSED].id)

    def test_a_pause_that_does_not_end_holds_up_nobody(self) -> None:
        """Tenants that cannot start on their target are not waited for by others."""
        tenants = [self.serving(number, "a") for number in range(MAX_PAUSED + 1)]
        moves = [self.start(each, "b") for each in tenants]
        for each, move in zip(tenants, moves, strict=True):
            self.apply(c.MigrationWarmed(AT, move, each.id, 1, 1))
        self.moves_for(1)
        for each, move in zip(tenants[:MAX_PAUSED], moves, strict=False):
            self.apply(c.DrainTenant(AT, move, each.id, 1))
            self.apply(c.MigrationDrained(AT, move, each.id, each.epoch, 1, True))
            self.moves.ended(each.id, self.now, failed=False)
        self.assertEqual(self.moves_for(PAUSE_COUNTS_S - 1), [])
        (next_one,) = self.moves_for(2)
        self.assertEqual(next_one.tenant_id, tenants[MAX_PAUSED].id)

    def test_a_new_leader_begins_its_clocks_anew(self) -> None:
        """It neither aborts what another leader saw for long, nor forgets to in the end."""
        tenant = self.serving(1, "a")
        move = self.start(tenant, "b")
        self.apply(c.MigrationWarmed(AT, move, tenant.id, 1, 1))
        self.apply(c.DrainTenant(AT, move, tenant.id, 1))
        self.assertEqual(self.moves_for(m.DRAIN_LIMIT_S - 5), [])
        self.moves.reset()
        self.assertEqual(self.moves_for(m.DRAIN_LIMIT_S - 5), [])
        (abort,) = self.moves_for(10)
        self.assertIsInstance(abort, m.Abort)

    def test_a_target_that_dies_aborts(self) -> None:
        """As soon as it is suspected."""
        tenant = self.serving(1, "a")
        self.start(tenant, "b")
        self.assertEqual(self.moves_for(1), [])
        self.silent = {"b"}
        (abort,) = self.moves_for(2)
        self.assertIsInstance(abort, m.Abort)

    def test_the_old_route_is_kept_while_somebody_uses_it(self) -> None:
        """Each report of the source that a request still came begins the time anew."""
        tenant = self.serving(1, "a")
        move = self.start(tenant, "b")
        for command in (
            c.MigrationWarmed(AT, move, tenant.id, 1, 1),
            c.DrainTenant(AT, move, tenant.id, 1),
            c.MigrationDrained(AT, move, tenant.id, 1, 1, settled=True),
            c.MigrationReady(AT, move, tenant.id, 2),
        ):
            self.apply(command)
        self.assertEqual(self.moves_for(m.OLD_ROUTE_S - 10), [])
        self.moves.old_route_used("b", [tenant.id], self.now)  # the target's word is none
        self.moves.old_route_used("a", [tenant.id], self.now)
        self.assertEqual(self.moves_for(m.OLD_ROUTE_S - 10), [])
        self.assertEqual(self.moves_for(20), [m.Retire(tenant.id, move)])


class TestDrains(MovesCase):
    def drain(self, node_id: str, *, wanted: bool = True) -> None:
        self.apply(c.DrainNode(AT, node_id, wanted=wanted))

    def test_a_few_at_a_time(self) -> None:
        """At most MAX_PER_SOURCE of a node are under way, at most MAX_PER_TARGET to each of the
        others; then the next."""
        tenants = [self.serving(number, "a") for number in range(10)]
        self.drain("a")
        starts = [e for e in self.moves_for(1) if isinstance(e, Start)]
        self.assertEqual(len(starts), MAX_PER_SOURCE)
        targets = Counter(each.target_node for each in starts)
        self.assertEqual(targets, {"b": MAX_PER_TARGET, "c": MAX_PER_TARGET})
        self.assertEqual([e.tenant_id for e in starts], [t.id for t in tenants[:MAX_PER_SOURCE]])
        for each in starts:
            self.start(self.registry.tenant(each.tenant_id), each.target_node)
            self.moves.ended(each.tenant_id, self.now, failed=False)
        self.assertEqual(self.moves_for(1), [])
        first = starts[0].tenant_id
        move = f"migration_{first}"
        self.apply(c.MigrationWarmed(AT, move, first, 1, 1))
        self.apply(c.DrainTenant(AT, move, first, 1))
        self.apply(c.MigrationDrained(AT, move, first, 1, 1, settled=True))
        self.apply(c.MigrationReady(AT, move, first, 2))
        more = [e for e in self.moves_for(1) if isinstance(e, Start)]
        self.assertEqual([e.tenant_id for e in more], [tenants[MAX_PER_SOURCE].id])

    def test_an_aborted_one_is_tried_again_later(self) -> None:
        """Not at once: what was in the way may last."""
        tenant = self.serving(1, "a")
        self.drain("a")
        (start,) = self.moves_for(0.2)
        assert isinstance(start, Start)
        move = self.start(tenant, start.target_node)
        self.moves.ended(tenant.id, self.now, failed=False)
        self.moves_for(0.2)
        self.apply(c.AbortMigration(AT, move, tenant.id, "x"))
        self.assertEqual(self.moves_for(RETRY_S - 0.5), [])
        self.assertEqual(len(self.moves_for(1)), 1)

    def test_never_to_a_node_that_should_not_have_it(self) -> None:
        """Draining, silent and full nodes get nothing; without a place the tenant stays."""
        tenant = self.serving(1, "a")
        self.silent = {"c"}
        self.pass_time(3)
        self.drain("a")
        self.drain("b")
        self.assertEqual([e for e in self.moves_for(3) if isinstance(e, Start)], [])
        self.drain("b", wanted=False)
        (start,) = [e for e in self.moves_for(RETRY_S + 1) if isinstance(e, Start)]
        self.assertEqual((start.tenant_id, start.target_node), (tenant.id, "b"))

    def test_what_was_never_ready_is_simply_given_away(self) -> None:
        """There is nothing to hand over; the planner knows of it."""
        tenant = self.tenant(1, "a")
        self.drain("a")
        (effect,) = self.moves_for(0.2)
        assert isinstance(effect, Assign)
        self.assertNotEqual(effect.node_id, "a")
        self.assertEqual(self.liveness.not_covered("a"), (tenant.id,))

    def test_an_undrained_node_keeps_what_it_has(self) -> None:
        """Nothing is begun any more."""
        self.serving(1, "a")
        self.drain("a")
        self.drain("a", wanted=False)
        self.assertEqual(self.moves_for(2), [])

    def test_a_degraded_tenant_stays(self) -> None:
        """Its acknowledged writes may be nowhere else: an operator decides."""
        tenant = self.serving(1, "a")
        self.registry._put(msgspec.structs.replace(tenant, degraded=True))
        self.drain("a")
        self.assertEqual(self.moves_for(2), [])
