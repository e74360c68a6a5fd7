"""Migrations: the table of phases, what commands do to the registry, what a leader does next."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import commands as c
from pbcluster.controlplane import migration as m
from pbcluster.controlplane.admin_migrations import migration_json
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.errors import Conflict
from pbcluster.records import MigrationPhase, MigrationRecord, NodeStatus, TenantStatus

AT = datetime(2026, 1, 1, tzinfo=UTC)
T, MOVE = "tenant_00000001", "migration_1"
A, B, D = "node_a", "node_b", "node_d"
P = MigrationPhase


def record(phase: MigrationPhase = P.PREPARING, **more: object) -> MigrationRecord:
    fields = {"warmed": phase is not P.PREPARING, "old_route": phase in (P.SWITCHING, P.DONE)}
    return MigrationRecord(
        id=MOVE,
        tenant_id=T,
        source_node=A,
        target_node=B,
        source_epoch=1,
        phase=phase,
        started=AT,
        updated=AT,
        version=1,
        **(fields | more),  # type: ignore[arg-type]
    )


class Log:
    """A registry with three nodes and a tenant that serves on ``node_a``."""

    def __init__(self) -> None:
        self.registry = Registry("example.com")
        for node_id in (A, B, D):
            self(c.RegisterNode(AT, node_id, "s1", f"http://{node_id}:1", 2))
        self(c.CreateTenant(AT, T, "shop", "shop.example.com"))
        self(c.AssignTenant(AT, T, A, 0))
        self(c.MarkReady(AT, T, A, 1))

    def __call__(self, command: c.AnyCommand, key: str = "") -> Applied:
        keyed = c.decode(c.encode(c.Keyed(key, command)))
        return self.registry.apply(self.registry.applied_index + 1, keyed)

    def code(self, command: c.AnyCommand) -> str:
        error = self(command).outcome.error
        return error.code if error is not None else ""

    def to(self, phase: MigrationPhase) -> None:
        """Bring the migration to ``phase``."""
        steps = {
            P.PREPARING: START,
            P.DRAINING: (WARMED, DRAIN),
            P.SWITCHING: (DRAINED,),
            P.DONE: (READY,),
        }
        for each, commands in steps.items():
            for command in commands:
                applied = self(command)
                assert applied.outcome.error is None, applied.outcome.error
            if each is phase:
                return

    @property
    def record(self) -> MigrationRecord:
        return self.registry.migration(T)


START = (c.StartMigration(AT, MOVE, T, B, 1),)
WARMED = c.MigrationWarmed(AT, MOVE, T, 4096, 7)
DRAIN = c.DrainTenant(AT, MOVE, T, 2)
DRAINED = c.MigrationDrained(AT, MOVE, T, 1, 9, settled=True)
READY = c.MigrationReady(AT, MOVE, T, 2)
ABORT = c.AbortMigration(AT, MOVE, T, "why not")


class TestTable(SynchronousTestCase):
    def test_only_what_stands_in_it_is_possible(self) -> None:
        """Every other event in every phase is refused; an ended migration never changes again."""
        for phase, event in product(P, m.Event):
            if (phase, event) in m.TRANSITIONS:
                self.assertEqual(m.after(record(phase), event), m.TRANSITIONS[phase, event])
            else:
                self.assertRaises(Conflict, m.after, record(phase), event)
        self.assertFalse({phase for phase, _ in m.TRANSITIONS} & {P.DONE, P.ABORTED})

    def test_the_page_shows_it(self) -> None:
        """docs/state-machines has one row for each transition, and no other."""
        page = Path(__file__).parents[2] / "docs" / "state-machines" / "index.rst"
        section = page.read_text(encoding="utf-8").partition("\nA migration\n")[2]
        section = section.partition("\nA process under")[0]
        words = {each.value for each in (*P, *m.Event)}
        rows = [line.split()[:3] for line in section.splitlines() if line[:1].strip()]
        shown = {tuple(row) for row in rows if len(row) == 3 and set(row) <= words}
        held = {(a.value, e.value, b.value) for (a, e), b in m.TRANSITIONS.items()}
        self.assertEqual(shown, held)


class TestRegistry(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()

    def test_orders_stand_in_the_lists(self) -> None:
        """The target is ordered to warm up, the source to hand over, each as long as it matters."""
        registry = self.log.registry
        self.log.to(P.PREPARING)
        (order,) = registry.assignments(B).warming
        self.assertEqual((order.tenant_id, order.migration_id, order.epoch), (T, MOVE, 1))
        self.assertEqual(registry.assignments(A).assignments[0].handing_over, "")
        for command in (WARMED, DRAIN):
            self.log(command)
        self.assertEqual(registry.assignments(A).assignments[0].handing_over, MOVE)
        self.log(DRAINED)
        self.assertEqual(registry.assignments(A).assignments, ())
        (given,) = registry.assignments(B).assignments
        self.assertEqual((given.epoch, given.released_epoch, given.handing_over), (2, 1, ""))
        self.log(READY)
        self.assertEqual(registry.assignments(B).warming, ())
        self.assertEqual(registry.assignments(B).assignments[0].released_epoch, 0)

    def test_a_list_never_changes_without_its_index(self) -> None:
        """Whatever command changes what a node is told raises its assignments_index."""
        before = {n: self.log.registry.assignments(n) for n in (A, B, D)}
        for command in (*START, WARMED, DRAIN, DRAINED, READY):
            applied = self.log(command)
            for node_id, old in before.items():
                new = self.log.registry.assignments(node_id)
                changed = msgspec.structs.replace(new, index=old.index) != old
                if changed:
                    self.assertGreater(new.index, old.index, (node_id, command))
                    self.assertIn(node_id, applied.changed_nodes)
                before[node_id] = new

    def test_the_switch_is_one_entry(self) -> None:
        """The source loses it and the target has it under the next epoch, at once; gateways get
        the route by the same broadcast."""
        self.log.to(P.DRAINING)
        applied = self.log(DRAINED)
        tenant = self.log.registry.tenant(T)
        self.assertEqual((tenant.node_id, tenant.epoch), (B, 2))
        self.assertEqual(set(applied.changed_nodes), {A, B})
        broadcast = applied.broadcast
        assert broadcast is not None
        assert broadcast.route is not None
        self.assertEqual((broadcast.topic, broadcast.route.node_id), ("tenant.moved", B))

    def test_who_did_not_settle_releases_nothing(self) -> None:
        """Without the source's word that no earlier owner has a proof, the target waits."""
        self.log.to(P.DRAINING)
        self.log(msgspec.structs.replace(DRAINED, settled=False))
        self.assertEqual(self.log.registry.assignments(B).assignments[0].released_epoch, 0)

    def test_an_abort_gives_it_back(self) -> None:
        """Before the switch the source is told to go on, and gateways that the route is right."""
        for phase in (P.PREPARING, P.DRAINING):
            self.log = Log()
            self.log.to(phase)
            applied = self.log(ABORT)
            self.assertEqual(self.log.record.phase, P.ABORTED)
            self.assertEqual(self.log.record.reason, "why not")
            self.assertEqual(set(applied.changed_nodes), {A, B})
            (given,) = self.log.registry.assignments(A).assignments
            self.assertEqual((given.epoch, given.handing_over), (1, ""))
            assert applied.broadcast is not None
            self.assertEqual(applied.broadcast.topic, "tenant.updated")
            self.assertIsNotNone(applied.broadcast.route)
            self.assertEqual(self.log.code(DRAINED), "conflict")
            self.assertEqual(self.log.registry.tenant(T).node_id, A)

    def test_after_the_switch_an_abort_moves_nothing(self) -> None:
        """The target keeps the tenant; only its end is not waited for."""
        self.log.to(P.SWITCHING)
        self.log(ABORT)
        self.assertEqual(self.log.registry.tenant(T).node_id, B)
        self.assertEqual(self.log.record.phase, P.ABORTED)

    def test_repetitions_change_nothing(self) -> None:
        """Each command of a leader that did not hear its outcome may come again."""
        for command in (*START, WARMED, DRAIN, DRAINED, READY):
            self.log(command)
            seen = (self.log.record, self.log.registry.tenant(T))
            self.assertNotEqual(self.log.code(command), "internal")
            self.assertEqual((self.log.record, self.log.registry.tenant(T)), seen)

    def test_commands_of_another_migration_are_refused(self) -> None:
        """Late words of an older migration do nothing to the next one."""
        self.log.to(P.PREPARING)
        self.log(ABORT)
        self.log(c.StartMigration(AT, "migration_2", T, D, 1))
        for command in (WARMED, DRAIN, DRAINED, READY, ABORT):
            self.assertEqual(self.log.code(command), "conflict")
        self.assertEqual(self.log.record.target_node, D)

    def test_a_cold_target_is_no_reason_to_hold(self) -> None:
        """The source is not drained before the target reported its copy."""
        self.log.to(P.PREPARING)
        self.assertEqual(self.log.code(DRAIN), "conflict")

    def test_whoever_changes_the_owner_ends_it(self) -> None:
        """A rescue or a deletion aborts it in the same entry, and the target is told."""
        for phase in (P.PREPARING, P.DRAINING, P.SWITCHING):
            self.log = Log()
            self.log.to(phase)
            epoch = self.log.registry.tenant(T).epoch
            applied = self.log(c.AssignTenant(AT, T, D, epoch))
            self.assertEqual(self.log.record.phase, P.ABORTED)
            self.assertIn(D, self.log.record.reason)
            self.assertIn(B, applied.changed_nodes)
            self.assertEqual(self.log.registry.assignments(B).warming, ())
            self.log = Log()
            self.log.to(phase)
            self.log(c.DeleteTenant(AT, T))
            self.assertEqual(self.log.record.phase, P.ABORTED)
            self.assertEqual(self.log.registry.tenant(T).status, TenantStatus.DELETING)

    def test_a_target_that_needs_another_epoch_is_followed(self) -> None:
        """Its claim was refused: the migration goes on under the new epoch."""
        self.log.to(P.SWITCHING)
        self.log(c.AssignTenant(AT, T, B, 2))
        self.assertEqual((self.log.record.phase, self.log.record.target_epoch), (P.SWITCHING, 3))
        self.assertEqual(self.log.code(READY), "wrong_epoch")
        self.log(c.MigrationReady(AT, MOVE, T, 3))
        self.assertEqual(self.log.record.phase, P.DONE)

    def test_an_idle_tenant_is_done_at_the_switch(self) -> None:
        """Nothing is started before a request comes, so nobody would report it ready."""
        self.log(c.SetTenantStatus(AT, T, 1, TenantStatus.IDLE))
        self.log.to(P.SWITCHING)
        self.assertEqual(self.log.record.phase, P.DONE)
        self.assertFalse(self.log.registry.assignments(B).assignments[0].wanted)

    def test_the_old_route_goes_by_itself_later(self) -> None:
        """It is shown with priority 0 until it is retired."""
        self.log.to(P.DONE)
        shown = migration_json(self.log.record, AT)["routes"]
        self.assertEqual([(r["nodeID"], r["priority"]) for r in shown], [(B, 1), (A, 0)])
        self.log(c.RetireRoute(AT, MOVE, T))
        shown = migration_json(self.log.record, AT)["routes"]
        self.assertEqual([(r["nodeID"], r["priority"]) for r in shown], [(B, 1)])
        self.assertEqual(self.log.registry.open_migrations(), [])

    def test_what_cannot_be_moved_is_refused_with_its_reason(self) -> None:
        """The same node, an unknown, full, draining or down one; twice; never ready; degraded."""
        log = self.log
        move = START[0]

        def told(**change: object) -> str:
            error = log(msgspec.structs.replace(move, **change)).outcome.error
            assert error is not None
            return f"{error.code}: {error.message}"

        self.assertIn("is on node_a already", told(target_node=A))
        self.assertIn("no_such_target: no node 'node_x'", told(target_node="node_x"))
        self.assertIn("wrong_epoch", told(expected_epoch=7))
        log(c.SetNodeStatus(AT, D, 1, NodeStatus.DOWN))
        self.assertIn("is down", told(target_node=D))
        log(c.DrainNode(AT, B, wanted=True))
        self.assertIn("is draining", told())
        log(c.DrainNode(AT, B, wanted=False))
        for number in (2, 3):
            other = f"tenant_0000000{number}"
            log(c.CreateTenant(AT, other, f"t{number}", f"t{number}.example.com"))
            log(c.AssignTenant(AT, other, B, 0))
        self.assertIn("is full", told())
        self.assertIn("never ready", told(tenant_id="tenant_00000002", target_node=A))
        log(c.TenantReleased(AT, "tenant_00000003", B, 1))
        log(move)
        self.assertIn("being migrated to node_b already", told(migration_id="migration_2"))

    def test_those_on_their_way_count(self) -> None:
        """A node's last place is not given away twice."""
        self.log(c.SetNodeCapacity(AT, B, 1, 1))
        self.log.to(P.PREPARING)
        other = "tenant_00000002"
        self.log(c.CreateTenant(AT, other, "two", "two.example.com"))
        self.assertEqual(self.log.code(c.AssignTenant(AT, other, B, 0)), "no_capacity")
        self.log(ABORT)
        self.assertEqual(self.log.code(c.AssignTenant(AT, other, B, 0)), "")

    def test_a_snapshot_keeps_it(self) -> None:
        """In every phase the state that was read again is the same, orders included."""
        for phase in P:
            self.log = Log()
            self.log.to(P.DRAINING if phase is P.ABORTED else phase)
            if phase is P.ABORTED:
                self.log(ABORT)
            again = Registry.from_bytes("example.com", self.log.registry.to_bytes())
            self.assertEqual(again.to_bytes(), self.log.registry.to_bytes())
            self.assertEqual(again.migration(T), self.log.record)
            self.assertEqual(again.open_migrations(), self.log.registry.open_migrations())
            for node_id in (A, B):
                self.assertEqual(again.assignments(node_id), self.log.registry.assignments(node_id))

    def test_a_drain_outlives_the_node(self) -> None:
        """An operator's drain holds after a restart of the node, and after it was down."""
        self.log(c.DrainNode(AT, B, wanted=True))
        self.log(c.SetNodeStatus(AT, B, 1, NodeStatus.DOWN))
        self.log(c.SetNodeStatus(AT, B, 1, NodeStatus.HEALTHY))
        self.assertEqual(self.log.registry.node(B).status, NodeStatus.DRAINING)
        self.log(c.RegisterNode(AT, B, "s2", "http://b:1", 2))
        self.assertEqual(self.log.registry.node(B).status, NodeStatus.DRAINING)
        self.log(c.DrainNode(AT, B, wanted=False))
        self.assertEqual(self.log.registry.node(B).status, NodeStatus.HEALTHY)


COMMANDS = st.sampled_from(
    (
        *START,
        c.StartMigration(AT, "migration_2", T, D, 1),
        c.StartMigration(AT, "migration_3", T, A, 2),
        WARMED,
        msgspec.structs.replace(WARMED, migration_id="migration_2"),
        DRAIN,
        msgspec.structs.replace(DRAIN, migration_id="migration_2"),
        DRAINED,
        msgspec.structs.replace(DRAINED, migration_id="migration_2"),
        READY,
        c.MigrationReady(AT, "migration_2", T, 2),
        ABORT,
        c.RetireRoute(AT, MOVE, T),
        c.AssignTenant(AT, T, D, 1),
        c.AssignTenant(AT, T, B, 2),
        c.SetTenantStatus(AT, T, 1, TenantStatus.IDLE),
        c.SetNodeStatus(AT, B, 1, NodeStatus.DOWN),
        c.SetNodeStatus(AT, B, 1, NodeStatus.HEALTHY),
        c.DrainNode(AT, B, wanted=True),
        c.DeleteTenant(AT, T),
        c.TenantReleased(AT, T, A, 1),
    )
)


class TestAnyOrder(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(st.lists(COMMANDS, max_size=25))
    def test_one_owner_whatever_comes_when(self, commands: list[c.AnyCommand]) -> None:
        """Late, doubled and contradicting commands in any order: one owner, an epoch that only
        grows, orders to its owner and target only, and a migration that fits the owner."""
        log = Log()
        epoch = 1
        for command in commands:
            log(command)
            tenant = log.registry.tenant(T)
            self.assertGreaterEqual(tenant.epoch, epoch)
            epoch = tenant.epoch
            lists = {n: log.registry.assignments(n) for n in (A, B, D)}
            again = Registry.from_bytes("example.com", log.registry.to_bytes())
            # What is kept of a list is made anew when something in it changes.
            self.assertEqual(lists, {n: again.assignments(n) for n in lists})
            owners = [n for n, each in lists.items() if each.assignments]
            self.assertLessEqual(len(owners), 1)
            found = log.registry.last_migration(T)
            if found is None or found.phase not in m.ACTIVE:
                self.assertEqual([each.warming for each in lists.values()], [()] * 3)
                continue
            switched = found.phase is P.SWITCHING
            self.assertEqual(owners, [found.target_node if switched else found.source_node])
            self.assertEqual(tenant.epoch, found.target_epoch if switched else found.source_epoch)


class TestNextStep(SynchronousTestCase):
    def step(self, phase: MigrationPhase, **seen: object) -> m.Step | None:
        warmed = bool(seen.pop("warmed", phase is not P.PREPARING))
        fields = {"phase_age_s": 0.0, "source_alive": True, "target_trouble": ""} | seen
        return m.next_step(record(phase, warmed=warmed), m.Seen(**fields))  # type: ignore[arg-type]

    def test_preparing_waits_for_the_copy_then_holds(self) -> None:
        """No hold before the target is warm; none toward a source that is silent."""
        self.assertIsNone(self.step(P.PREPARING))
        self.assertIsInstance(self.step(P.PREPARING, warmed=True), m.Hold)
        self.assertIsNone(self.step(P.PREPARING, warmed=True, source_alive=False))

    def test_every_wait_has_an_end(self) -> None:
        """A target that does not warm up, a source that does not drain: aborted."""
        late = {"phase_age_s": m.PREPARE_LIMIT_S + 1}
        self.assertIsInstance(self.step(P.PREPARING, **late), m.Abort)
        self.assertIsNone(self.step(P.DRAINING, phase_age_s=m.DRAIN_LIMIT_S - 1))
        self.assertIsInstance(self.step(P.DRAINING, phase_age_s=m.DRAIN_LIMIT_S + 1), m.Abort)

    def test_a_target_in_trouble_aborts_before_the_switch_only(self) -> None:
        """Afterwards it is the owner, and rescued as any owner is."""
        for phase in P:
            step = self.step(phase, target_trouble="does not answer")
            self.assertEqual(isinstance(step, m.Abort), phase in m.BEFORE_SWITCH)
            if isinstance(step, m.Abort):
                self.assertIn("node_b does not answer", step.reason)

    def test_the_old_route_goes_when_it_is_quiet(self) -> None:
        """After OLD_ROUTE_S without a request by it, not before."""
        self.assertIsNone(self.step(P.DONE, route_quiet_s=m.OLD_ROUTE_S - 1))
        self.assertIsInstance(self.step(P.DONE, route_quiet_s=m.OLD_ROUTE_S), m.Retire)
