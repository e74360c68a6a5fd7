"""The planner: what it decides from a view, and the bounds of what it starts at once."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.planner import (
    MAX_ASSIGNING,
    MAX_ENDING,
    RETRY_S,
    Assign,
    Planner,
    SetStatus,
)
from pbcluster.controlplane.registry import Registry
from pbcluster.durations import Durations
from pbcluster.errors import NoCapacity, Unavailable
from pbcluster.records import NodeResources, NodeStatus, TenantRecord
from pbcluster.wire import Heartbeat

AT = datetime(2026, 1, 1, tzinfo=UTC)


class PlannerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.registry = Registry("example.com")
        self.liveness = Liveness(Durations(), self.now)
        self.planner = Planner(lambda: self.registry, self.liveness, node_down_after_s=15.0)
        self.silent: set[str] = set()

    def apply(self, command: c.AnyCommand) -> None:
        outcome = self.registry.apply(self.registry.applied_index + 1, c.Keyed("", command)).outcome
        self.assertIsNone(outcome.error)

    def node(self, name: str, capacity: int = 200) -> None:
        self.apply(c.RegisterNode(AT, name, "s1", f"http://{name}:1", capacity))

    def tenant(self, number: int, node_id: str = "") -> TenantRecord:
        tenant_id = f"tenant_{number:08d}"
        self.apply(c.CreateTenant(AT, tenant_id, f"t{number}", f"t{number}.example.com"))
        if node_id:
            self.apply(c.AssignTenant(AT, tenant_id, node_id, 0))
        return self.registry.tenant(tenant_id)

    def pass_time(self, seconds: float) -> list[object]:
        """All effects but probes; all but the silent nodes are heard."""
        effects: list[object] = []
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            for node in self.registry.nodes():
                if node.id not in self.silent:
                    self.liveness.lease(node.id, node.incarnation, self.now)
            for effect in self.planner.tick(self.now):
                if isinstance(effect, Assign | SetStatus):
                    effects.append(effect)
        return effects


class TestRescue(PlannerCase):
    def test_nothing_happens_while_all_live(self) -> None:
        """No effect at all."""
        self.node("a")
        self.tenant(1, "a")
        self.assertEqual(self.pass_time(20), [])

    def test_each_lost_tenant_is_assigned_once(self) -> None:
        """Until the executor says that it has ended, it is not named again."""
        self.node("a")
        self.node("b")
        lost = [self.tenant(n, "a") for n in range(3)]
        self.pass_time(1)
        self.silent = {"a"}
        effects = self.pass_time(10)
        self.assertEqual(
            [e.tenant_id for e in effects if isinstance(e, Assign)], [t.id for t in lost]
        )
        self.assertEqual({e.node_id for e in effects if isinstance(e, Assign)}, {"b"})
        self.assertEqual(self.liveness.not_covered("a"), tuple(t.id for t in lost))

    def end(self, number: int, kind: type[c.ArchiveTenant] | type[c.DeleteTenant]) -> TenantRecord:
        tenant_id = f"tenant_{number:08d}"
        self.apply(kind(AT, tenant_id))
        return self.registry.tenant(tenant_id)

    def test_an_end_is_ordered_elsewhere_if_the_node_dies(self) -> None:
        """Archiving and deleting need a claim: another node makes it, under a newer epoch."""
        self.node("a")
        self.node("b")
        self.tenant(1, "a")
        self.tenant(2, "a")
        self.end(1, c.ArchiveTenant)
        self.end(2, c.DeleteTenant)
        self.pass_time(1)
        self.silent = {"a"}
        effects = [e for e in self.pass_time(5) if isinstance(e, Assign)]
        self.assertEqual([(e.node_id, e.expected_epoch) for e in effects], [("b", 2)] * 2)

    def test_an_end_of_a_tenant_without_a_node_needs_no_room(self) -> None:
        """A full node carries it out; only so many at once."""
        self.node("a", capacity=1)
        for number in range(MAX_ENDING + 4):
            tenant = self.tenant(number, "a")
            self.apply(c.TenantReleased(AT, tenant.id, "a", tenant.epoch))
            self.end(number, c.DeleteTenant)
        self.tenant(99, "a")
        effects = [e for e in self.pass_time(0.1) if isinstance(e, Assign)]
        self.assertEqual(len(effects), MAX_ENDING)
        for effect in effects:
            self.apply(c.AssignTenant(AT, effect.tenant_id, "a", effect.expected_epoch))
            self.planner.assigned(effect.tenant_id, self.now, failed=False)
        self.assertEqual(self.pass_time(1), [])
        done = self.registry.tenant(effects[0].tenant_id)
        self.apply(c.TenantEnded(AT, done.id, "a", done.epoch))
        self.assertEqual(len(self.pass_time(0.1)), 1)

    def test_objects_of_a_deleted_tenant_are_kept_for_their_time(self) -> None:
        """Only after ``purge_at`` of the wall clock a node is ordered to remove them, once."""
        self.node("a")
        tenant = self.tenant(1, "a")
        self.end(1, c.DeleteTenant)
        self.apply(c.TenantEnded(AT, tenant.id, "a", 2))
        week = timedelta(days=7)
        self.assertEqual(self.planner.tick(self.now), [])
        self.assertEqual(self.planner.tick(self.now, AT + week - timedelta(seconds=1)), [])
        effects = self.planner.tick(self.now, AT + week)
        self.assertEqual([type(effect) for effect in effects], [Assign])
        self.apply(c.AssignTenant(AT + week, tenant.id, "a", 2))
        self.planner.assigned(tenant.id, self.now, failed=False)
        (order,) = self.registry.assignments("a").assignments
        self.assertEqual((order.ending, order.epoch), ("purged", 3))
        self.apply(c.TenantEnded(AT + week, tenant.id, "a", 3))
        self.assertTrue(self.registry.tenant(tenant.id).purged)
        self.assertEqual(self.planner.tick(self.now, AT + 2 * week), [])

    def test_assignments_under_way_are_bounded(self) -> None:
        """A full node's death cannot flood the log and the survivors."""
        self.node("a")
        self.node("b")
        for number in range(100):
            self.tenant(number, "a")
        self.pass_time(1)
        self.silent = {"a"}
        effects = [e for e in self.pass_time(5) if isinstance(e, Assign)]
        self.assertEqual(len(effects), MAX_ASSIGNING)
        self.planner.assigned(effects[0].tenant_id, self.now, failed=True)
        self.assertEqual(len([e for e in self.pass_time(0.2) if isinstance(e, Assign)]), 1)

    def test_a_failed_one_is_tried_again_later(self) -> None:
        """After RETRY_S, not at the next tick."""
        self.node("a")
        self.node("b")
        tenant = self.tenant(1, "a")
        self.pass_time(1)
        self.silent = {"a"}
        self.assertEqual(len(self.pass_time(4)), 1)
        self.planner.assigned(tenant.id, self.now, failed=True)
        self.assertEqual(self.pass_time(RETRY_S - 0.2), [])
        self.assertEqual(len(self.pass_time(0.4)), 1)

    def test_a_retired_node_is_no_storm(self) -> None:
        """Dead nodes with nothing left do not stop the rescue of others."""
        for name in "abcdef":
            self.node(name)
        tenant = self.tenant(1, "f")
        self.pass_time(1)
        self.silent = {"a", "b", "c"}
        self.pass_time(30)
        self.assertFalse(self.planner.storm())
        self.silent = {"a", "b", "c", "f"}
        assigned = [e for e in self.pass_time(4) if isinstance(e, Assign)]
        self.assertEqual([e.tenant_id for e in assigned], [tenant.id])

    def test_the_storm_begins_above_a_fifth(self) -> None:
        """One of a small cluster may die, two of ten may, three may not."""
        for number in range(10):
            self.node(f"n{number}")
            self.tenant(number, f"n{number}")
        self.pass_time(1)
        self.silent = {"n0", "n1"}
        self.pass_time(1.5)
        self.assertFalse(self.planner.storm())
        self.silent = {"n0", "n1", "n2"}
        self.pass_time(1.6)
        self.assertTrue(self.planner.storm())


class TestPlace(PlannerCase):
    def test_a_living_owner_stays(self) -> None:
        """Nothing to do."""
        self.node("a")
        self.node("b")
        tenant = self.tenant(1, "a")
        self.pass_time(1)
        self.assertIsNone(self.planner.place(tenant, self.now))

    def test_one_decision_at_a_time(self) -> None:
        """While it is placed, others are told to come back at once."""
        self.node("a")
        tenant = self.tenant(1)
        self.pass_time(1)
        effect = self.planner.place(tenant, self.now)
        assert effect is not None
        error = self.assertRaises(Unavailable, self.planner.place, tenant, self.now)
        self.assertLess(error.retry_after_s, 0.2)

    def test_no_room_leaves_nothing_behind(self) -> None:
        """It can be placed as soon as there is room."""
        self.node("a", capacity=1)
        self.tenant(1, "a")
        tenant = self.tenant(2)
        self.pass_time(1)
        self.assertRaises(NoCapacity, self.planner.place, tenant, self.now)
        self.node("b")
        self.pass_time(0.1)
        effect = self.planner.place(tenant, self.now)
        assert effect is not None
        self.assertEqual(effect.node_id, "b")

    def test_room_for_one_more(self) -> None:
        """One node with room is enough; without any, each node's reason is told."""
        self.node("a", capacity=1)
        self.assertEqual(self.pass_time(0.2), [])
        self.planner.check_room()
        self.tenant(1, "a")
        error = self.assertRaises(NoCapacity, self.planner.check_room)
        self.assertIn("a is full (1 of 1 tenants)", error.message)

    def test_a_degraded_node_is_avoided(self) -> None:
        """By what its last heartbeat said."""
        self.node("a")
        self.node("b")
        tenant = self.tenant(1)
        self.pass_time(1)
        beat = Heartbeat("a", 1, AT, "degraded", 200, 0, 0, NodeResources())
        self.liveness.heartbeat(beat, self.now)
        effect = self.planner.place(tenant, self.now)
        assert effect is not None
        self.assertEqual(effect.node_id, "b")


class TestTogether(PlannerCase):
    """Many tenants that are placed before the first of them is committed."""

    def test_they_spread(self) -> None:
        """Evenly, not all onto the node that was the emptiest; never over its capacity."""
        for name in "abcd":
            self.node(name, capacity=20)
        self.pass_time(1)
        found = Counter(self.place(number) for number in range(60))
        self.assertEqual(set(found.values()), {15})

    def place(self, number: int) -> str:
        effect = self.planner.place(self.tenant(number), self.now)
        assert effect is not None
        return effect.node_id

    def test_no_room_is_left(self) -> None:
        """What was decided counts, though nothing of it is committed."""
        self.node("a", capacity=10)
        self.pass_time(1)
        self.assertEqual({self.place(number) for number in range(9)}, {"a"})
        self.assertRaises(NoCapacity, self.place, 9)
        self.planner.assigned("tenant_00000000", self.now, failed=True)
        self.assertEqual(self.place(10), "a")

    def test_a_node_that_has_just_begun_to_drain_is_not_chosen(self) -> None:
        """Nor one that is suspected: the order is a moment old, the nodes are not."""
        for name in "abc":
            self.node(name)
        self.pass_time(1)
        self.assertEqual(self.place(1), "a")
        self.apply(c.DrainNode(AT, "b", True))
        self.assertEqual([self.place(2), self.place(3), self.place(4)], ["c", "a", "c"])

    def test_a_new_node_is_found(self) -> None:
        """As soon as the planner looks at the nodes again."""
        self.node("a")
        self.pass_time(1)
        self.assertEqual(self.place(1), "a")
        self.node("b")
        self.pass_time(0.2)
        self.assertEqual(self.place(2), "b")


class TestStatus(PlannerCase):
    def test_down_is_proposed_once(self) -> None:
        """15 s after the last sign of life, and not again while that is under way."""
        self.node("a")
        self.pass_time(1)
        self.silent = {"a"}
        self.assertEqual(self.pass_time(14), [])
        self.assertEqual(self.pass_time(5), [SetStatus("a", 1, NodeStatus.DOWN)])
