"""What a leader's ticks look at: what moves, dies or ends, never all there is.

Counted, not timed: records of tenants that are read, and how often all nodes are looked at.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.moves import (
    MAX_PER_SOURCE,
    OLD_ROUTES_EVERY_S,
    RETRY_S,
    Moves,
    Start,
)
from pbcluster.controlplane.placement import Candidate
from pbcluster.controlplane.planner import Assign, Planner
from pbcluster.controlplane.rebalancing import plan
from pbcluster.controlplane.registry import Registry
from pbcluster.records import MigrationRecord, TenantRecord
from tests.controlplane.test_planner import AT, PlannerCase

WEEK = timedelta(days=7)


class Counted(dict[str, Any]):
    """:ivar reads: values that were read."""

    reads = 0

    def __getitem__(self, key: str) -> Any:
        self.reads += 1
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.reads += 1
        return super().get(key, default)

    def values(self) -> Any:
        self.reads += len(self)
        return super().values()


class LookingPlanner(Planner):
    """:ivar looks: how often all nodes were looked at for a tenant."""

    looks = 0

    def _each(self, tenant: TenantRecord | None) -> Iterator[Candidate]:
        self.looks += 1
        return super()._each(tenant)


class Reads:
    """What was read of a registry."""

    def __init__(self, case: SynchronousTestCase, registry: Registry) -> None:
        self._registry = registry
        self._ids = 0
        tenants_of = registry.tenants_of

        def counted(node_id: str) -> frozenset[str]:
            found = tenants_of(node_id)
            self._ids += len(found)
            return found

        case.patch(registry, "tenants_of", counted)

    def total(self) -> int:
        """Records of tenants and migrations, and ids of tenants of a node."""
        kept: Any = (self._registry._tenants, self._registry._migrations)
        return self._ids + sum(each.reads for each in kept)


class CostCase(PlannerCase):
    def setUp(self) -> None:
        super().setUp()
        self.planner = LookingPlanner(lambda: self.registry, self.liveness, node_down_after_s=15.0)
        self.moves = Moves(lambda: self.registry, self.liveness, self.planner)

    def fill(self, nodes: int, each: int, first: int = 0) -> None:
        """Nodes with ready tenants."""
        for place in range(nodes):
            node_id = f"n{first + place:02d}"
            self.node(node_id)
            for number in range(each):
                tenant = self.tenant((first + place) * 1000 + number, node_id)
                self.apply(c.MarkReady(AT, tenant.id, node_id, tenant.epoch))

    def watch(self) -> "Reads":
        """Count from now on what is read of tenants, of migrations, and of what a node has."""
        registry = self.registry
        registry._tenants = Counted(registry._tenants)
        registry._migrations = Counted(registry._migrations)
        return Reads(self, registry)

    def reads_of(self, ticks: int) -> int:
        """How many of them so many ticks read."""
        reads = self.watch()
        for _ in range(ticks):
            self.pass_heard()
            self.planner.tick(self.now, AT)
            self.moves.tick(self.now)
        return reads.total()

    def pass_heard(self) -> None:
        self.now += 0.1
        for node in self.registry.nodes():
            if node.id not in self.silent:
                self.liveness.lease(node.id, node.incarnation, self.now)

    def die(self, node_id: str) -> None:
        """Until its tenants may be given away, with nothing planned meanwhile."""
        self.pass_time(1.0)
        self.silent = {node_id}
        for _ in range(30):
            self.pass_heard()
            self.liveness.tick(self.now)


class TestNothingToDo(CostCase):
    def test_idle_tenants_cost_nothing(self) -> None:
        """Whatever their number, while no node drains and none is silent."""
        self.fill(nodes=10, each=50)
        self.pass_time(1.0)
        self.assertEqual(self.reads_of(ticks=3), 0)

    def test_deleted_tenants_wait_for_their_time_unseen(self) -> None:
        """Their tombstones are not looked through at each tick; when it is time, they are found."""
        self.fill(nodes=1, each=40)
        for tenant in list(self.registry.tenants()):
            self.apply(c.DeleteTenant(AT, tenant.id, keep_s=WEEK.total_seconds()))
            self.apply(c.TenantEnded(AT, tenant.id, "n00", tenant.epoch + 1))
        self.assertEqual(self.reads_of(ticks=3), 0)
        purges = self.planner.tick(self.now, AT + WEEK)
        self.assertTrue(purges)
        self.assertEqual({type(each) for each in purges}, {Assign})


class TestDraining(CostCase):
    def drained(self, elsewhere: int) -> int:
        """What a tick reads that begins a drain of 5 tenants with so many on other nodes."""
        self.fill(nodes=1, each=5)
        self.fill(nodes=4, each=elsewhere, first=1)
        self.pass_time(1.0)
        self.apply(c.DrainNode(AT, "n00", wanted=True))
        found = self.reads_of(ticks=1)
        self.assertEqual(len(self.moves._starting), MAX_PER_SOURCE)
        return found

    def test_a_drain_costs_what_drains(self) -> None:
        """As much with 400 tenants elsewhere as with 20."""
        few = self.drained(elsewhere=5)
        self.setUp()
        self.assertEqual(self.drained(elsewhere=100), few)

    def test_no_room_is_found_out_once(self) -> None:
        """Not once for each of its tenants: where one finds none, its like find none."""
        self.fill(nodes=1, each=30)
        self.pass_time(1.0)
        self.apply(c.DrainNode(AT, "n00", wanted=True))
        for _ in range(10):
            self.pass_heard()
            self.assertEqual(self.moves.tick(self.now), [])
        self.assertEqual(self.planner.looks, 1)
        self.node("n01")
        self.pass_time(RETRY_S)
        self.assertTrue(any(isinstance(each, Start) for each in self.moves.tick(self.now)))

    def test_old_routes_are_looked_at_once_a_second(self) -> None:
        """Thousands have one after a drain."""
        asked = []
        old_routes = self.registry.old_routes

        def counted() -> list[MigrationRecord]:
            asked.append(self.now)
            return old_routes()

        self.patch(self.registry, "old_routes", counted)
        self.fill(nodes=1, each=1)
        for _ in range(20):
            self.pass_heard()
            self.moves.tick(self.now)
        self.assertLessEqual(len(asked), 2.0 / OLD_ROUTES_EVERY_S + 1)


class TestDying(CostCase):
    def test_no_room_is_found_out_once_a_tick(self) -> None:
        """A full cluster does not look at all its nodes for each of a dead node's tenants."""
        self.fill(nodes=1, each=30)
        self.die("n00")
        self.assertEqual(self.planner.tick(self.now), [])
        self.assertEqual(self.planner.looks, 2)  # once for the choice, once for its reasons
        self.node("n01")
        self.pass_heard()
        self.assertEqual(len(self.planner.tick(self.now)), 29)


class TestPlacing(CostCase):
    def test_many_at_once_look_at_all_nodes_once(self) -> None:
        """Not once for each: within one tick all are placed by one list."""
        self.fill(nodes=20, each=2)
        self.pass_time(1.0)
        looks = self.planner.looks
        for number in range(900, 950):
            self.assertIsNotNone(self.planner.place(self.tenant(number), self.now))
        self.assertEqual(self.planner.looks - looks, 1)


class TestRebalancing(CostCase):
    def test_only_fuller_nodes_are_looked_through(self) -> None:
        """What gives nothing is not asked what it has, but for the fullest one in the end."""
        self.fill(nodes=1, each=30)
        self.fill(nodes=12, each=10, first=1)
        self.node("n13")
        self.pass_time(1.0)
        reads = self.watch()
        moves = plan(self.registry, self.planner)
        self.assertEqual({move.source for move in moves}, {"n00"})
        self.assertLessEqual(reads.total(), 3 * (30 + 2 * 10))  # id, record and last migration
