"""Leaders that die at every log entry of every operation: one owner, and it ends."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane import migration as m
from pbcluster.controlplane import moves
from pbcluster.controlplane.registry import LIVING, Registry
from pbcluster.errors import Conflict, PBClusterError
from pbcluster.node.leaving import TELL_EVERY_S, running
from pbcluster.node.parts import spawn
from pbcluster.records import MigrationPhase, NodeStatus, TenantStatus
from tests.controlplane.phase_world import NODES, SETTLE_S, Death, PhaseWorld, When

#: An operation has no more entries than this: the test would not end else.
MAX_ENTRIES = 20
OLD_ROUTE_S = 0.5


class PhaseCase(SynchronousTestCase):
    """One world a test; each operation is carried out once without a death, then once for each
    of its log entries and each moment of it."""

    timeout = 120

    def setUp(self) -> None:
        self.patch(m, "OLD_ROUTE_S", OLD_ROUTE_S)
        self.world = PhaseWorld(Path(self.mktemp()))
        self.addCleanup(self.forget)
        self.world.begin()
        self.count = 0

    def forget(self) -> None:
        for brain in self.world.brains.values():
            brain.clock.dead = True
        self.world.close()
        del self.world
        gc.collect()
        self.flushLoggedErrors()

    @property
    def registry(self) -> Registry:
        return self.world.members[self.world.leader()].registry

    def settled(self, *tenants: str) -> bool:
        """Nothing is under way, and each living tenant is served by its owner alone."""
        if not self.led():
            return False
        registry = self.registry
        if registry.open_migrations() or registry.ending_count():
            return False
        for tenant_id in tenants:
            tenant = registry.tenant(tenant_id)
            living = tenant.status in LIVING and tenant.status is not TenantStatus.IDLE
            if self.world.owners(tenant_id) != ([tenant.node_id] if living else []):
                return False
            on_the_way = (TenantStatus.CREATED, TenantStatus.ARCHIVING, TenantStatus.DELETING)
            if tenant.status in on_the_way:
                return False
        return True

    def create(self) -> str:
        """A new tenant, asked for until it answers. :returns: its id."""
        self.count += 1
        tenant_id = f"tenant_{self.count:08}"
        world = self.world
        at = world.wall()
        created = c.CreateTenant(at, tenant_id, f"t{self.count}", f"t{self.count}.localhost")
        world.wish(lambda brain: created)
        self.serve(tenant_id)
        return tenant_id

    def serve(self, tenant_id: str) -> None:
        """A request for it comes, and is answered."""
        world = self.world
        routes: list[wire.RouteFound] = []
        world.ask("gateway_1", wire.LookupRoute(tenant_id=tenant_id, place=True), routes.append)
        world.until(lambda: bool(routes), SETTLE_S)
        node = world.nodes[routes[0].route.node_id]
        world.until(lambda: node.tenants.find(tenant_id) is not None, SETTLE_S)
        node.ready(tenant_id, within_s=SETTLE_S).addErrback(lambda failure: None)
        world.until(lambda: len(world.owners(tenant_id)) == 1, SETTLE_S)

    def led(self) -> bool:
        """Whether somebody leads now."""
        return any(brain.member.is_leader for brain in self.world.brains.values())

    def next_node(self, tenant_id: str) -> str:
        here = NODES.index(self.registry.tenant(tenant_id).node_id)
        return NODES[(here + 1) % len(NODES)]

    def move(self, tenant_id: str, target: str = "") -> str:
        """An operator moves a tenant (to the next node), and is answered. :returns: that node."""
        target = target or self.next_node(tenant_id)
        self.world.wish(
            lambda brain: brain.migrating.start_command(
                brain.member.registry.tenant(tenant_id), target
            )
        )
        return target

    def every_death(self, operation: Callable[[], tuple[str, ...]], expected: set[str]) -> None:
        """Carry it out again and again; each time the leader dies at the next log entry.

        :param operation: carries it out once, and gives the tenants that it is about.
        :param expected: the commands at each of which a leader must have died in each way.
        """
        for when in When:
            died: set[str] = set()
            for number in range(MAX_ENTRIES):
                death = Death(number, when)
                self.once(operation, death)
                if not death.happened:
                    break
                died.add(death.happened)
            else:
                self.fail(f"more than {MAX_ENTRIES} entries: {died}")
            self.assertLessEqual(expected, died, when)

    def once(self, operation: Callable[[], tuple[str, ...]], death: Death) -> None:
        """One death, and what must hold after it."""
        world = self.world
        world.watch(death)
        try:
            tenants = operation()
            world.until(lambda: death.over or not death.happened)
            world.until(lambda: self.settled(*tenants), SETTLE_S)
            world.watch(None)
            world.revive()
            world.until(lambda: self.settled(*tenants), SETTLE_S)
        except AssertionError as error:
            told = [self.registry.tenant(t) for t in self.registry._tenants]
            self.fail(
                f"{death}: {error}; {world.entries}; {told}; "
                f"{[(n, x.reports) for n, x in world.nodes.items()]}"
            )


class EveryDeath(PhaseCase):
    def test_create(self) -> None:
        """A creation and its first request: there is one tenant of the name, and one owner."""

        def operation() -> tuple[str, ...]:
            tenant_id = self.create()
            self.assertEqual(self.registry.tenant(f"t{self.count}").id, tenant_id)
            return (tenant_id,)

        self.every_death(operation, {"CreateTenant", "AssignTenant", "MarkReady"})

    def test_migrate(self) -> None:
        """A move from its beginning to the end of the old route: done, at the target."""
        tenant_id = self.create()

        def operation() -> tuple[str, ...]:
            target = self.move(tenant_id)
            self.world.until(lambda: self.settled(tenant_id), SETTLE_S)
            record = self.registry.migration(tenant_id)
            self.assertEqual(record.phase, MigrationPhase.DONE, record)
            self.assertEqual(self.registry.tenant(tenant_id).node_id, target)
            return (tenant_id,)

        steps = {"StartMigration", "MigrationWarmed", "DrainTenant", "MigrationDrained"}
        self.every_death(operation, steps | {"MigrationReady", "RetireRoute"})

    def test_abort(self) -> None:
        """A move that an operator ends: done or aborted, and its owner serves."""
        tenant_id = self.create()

        def operation() -> tuple[str, ...]:
            self.move(tenant_id)
            record = self.registry.migration(tenant_id)
            with contextlib.suppress(Conflict):
                self.world.wish(lambda brain: brain.migrating.abort_command(record, "enough"))
            self.world.until(lambda: self.settled(tenant_id), SETTLE_S)
            record = self.registry.migration(tenant_id)
            self.assertIn(record.phase, (MigrationPhase.DONE, MigrationPhase.ABORTED))
            # Aborted while it switched, it ends where it was to go: nobody waits for it.
            owner = record.target_node if record.target_epoch else record.source_node
            self.assertEqual(self.registry.tenant(tenant_id).node_id, owner)
            return (tenant_id,)

        self.every_death(operation, {"StartMigration", "AbortMigration"})

    def test_drain(self) -> None:
        """A node is drained of two tenants and undrained: it is empty in between, and healthy."""
        tenants = (self.create(), self.create())

        def operation() -> tuple[str, ...]:
            source = self.registry.tenant(tenants[0]).node_id
            self.world.wish(lambda brain: c.DrainNode(self.world.wall(), source, True))
            empty = lambda: not self.registry.tenants_of(source)  # noqa: E731
            self.world.until(lambda: self.led() and empty(), SETTLE_S)
            self.world.wish(lambda brain: c.DrainNode(self.world.wall(), source, False))
            self.assertEqual(self.registry.node(source).status, NodeStatus.HEALTHY)
            return tenants

        steps = {"StartMigration", "MigrationWarmed", "DrainTenant", "MigrationDrained"}
        self.every_death(operation, steps | {"DrainNode", "MigrationReady"})

    def test_rebalance(self) -> None:
        """Two tenants on one node of three are spread, whoever leads."""
        self.patch(moves, "RETRY_S", 0.1)
        tenants = tuple(self.create() for _ in range(2))

        def operation() -> tuple[str, ...]:
            world, full = self.world, NODES[0]
            death, world.death = world.death, None
            for tenant_id in tenants:
                if self.registry.tenant(tenant_id).node_id != full:
                    self.move(tenant_id, full)
                    world.until(lambda: self.settled(*tenants), SETTLE_S)
            world.death = death
            world.wish(lambda brain: brain.migrating.rebalance_command(1, 2))
            over = lambda: self.registry.rebalance.ended is not None  # type: ignore[union-attr]  # noqa: E731
            world.until(lambda: self.led() and over(), SETTLE_S)
            self.assertEqual(self.registry.rebalance.reason, "")  # type: ignore[union-attr]
            counts = sorted(self.registry.count_of(node) for node in NODES)
            self.assertEqual(counts, [0, 1, 1])
            return tenants

        self.every_death(operation, {"StartRebalance", "StartMigration", "EndRebalance"})

    def test_stop_of_a_node(self) -> None:
        """A node that is being stopped says so again and again, to whoever leads: nothing runs on
        it any more in the end, and it may come back."""
        tenants = (self.create(), self.create())

        def operation() -> tuple[str, ...]:
            world = self.world
            source = self.registry.tenant(tenants[0]).node_id
            node = world.nodes[source]
            while self.registry.tenants_of(source):
                world.ask(source, wire.NodeCapacity(source, 1, 10, draining=True, leaving=True))
                world.run(TELL_EVERY_S)
            world.until(lambda: not running(node.tenants))
            world.ask(source, wire.NodeCapacity(source, 1, 10, draining=False))
            healthy = lambda: self.registry.node(source).status is NodeStatus.HEALTHY  # noqa: E731
            world.until(lambda: self.led() and healthy(), SETTLE_S)
            return tenants

        steps = {"StartMigration", "MigrationWarmed", "DrainTenant", "MigrationDrained"}
        self.every_death(operation, steps | {"SetNodeStatus", "MigrationReady"})

    def test_archive(self) -> None:
        """A tenant is archived and activated again: it has no copy anywhere, then one owner."""
        tenant_id = self.create()

        def operation() -> tuple[str, ...]:
            world = self.world
            world.wish(lambda brain: c.ArchiveTenant(world.wall(), tenant_id))
            world.until(lambda: self.settled(tenant_id), SETTLE_S)
            self.assertEqual(self.registry.tenant(tenant_id).status, TenantStatus.ARCHIVED)
            self.assertEqual(world.claim(tenant_id)["state"], "archived")
            world.wish(lambda brain: c.ActivateTenant(world.wall(), tenant_id))
            self.serve(tenant_id)
            return (tenant_id,)

        steps = {"ArchiveTenant", "TenantEnded", "ActivateTenant", "AssignTenant", "MarkReady"}
        self.every_death(operation, steps)

    def test_delete(self) -> None:
        """A tenant is deleted and purged: its tombstone stands, and nothing else is in S3."""
        keep_s = 0.5

        def operation() -> tuple[str, ...]:
            world, tenant_id = self.world, self.create()
            world.wish(lambda brain: c.DeleteTenant(world.wall(), tenant_id, 0, keep_s))
            purged = lambda: self.registry.tenant(tenant_id).purged  # noqa: E731
            world.until(lambda: self.led() and purged(), SETTLE_S)
            self.assertEqual(self.registry.tenant(tenant_id).status, TenantStatus.DELETED)
            self.assertEqual(world.claim(tenant_id)["state"], "deleted")
            kept = [key for key in world.s3.objects if tenant_id in key]
            self.assertEqual(kept, [f"tenants/{tenant_id}/owner.json"])
            return (tenant_id,)

        steps = {"DeleteTenant", "TenantEnded", "AssignTenant"}
        self.every_death(operation, steps)

    def test_an_operator_that_goes_away(self) -> None:
        """Whose wish died with the leader, unanswered, and is not repeated: it was carried out as
        a whole or not at all, and the next one is carried out."""
        tenant_id = self.create()
        for when in When:
            death = Death(0, when)
            self.world.watch(death)
            brain = self.world.brains[self.world.leader()]
            target = self.next_node(tenant_id)
            tenant = self.registry.tenant(tenant_id)
            command = brain.migrating.start_command(tenant, target)
            spawn(ignoring(brain.member.propose(command, f"once {when}")), "an operator")
            self.world.until(lambda death=death: death.over)  # type: ignore[misc]
            self.world.until(lambda: self.led() and self.settled(tenant_id), SETTLE_S)
            moved = self.registry.tenant(tenant_id).node_id == target
            self.assertEqual(moved, when not in (When.PROPOSED, When.STORED), when)
            self.world.watch(None)
            self.world.revive()
            self.move(tenant_id)
            self.world.until(lambda: self.settled(tenant_id), SETTLE_S)


async def ignoring(work: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(PBClusterError):
        await work
