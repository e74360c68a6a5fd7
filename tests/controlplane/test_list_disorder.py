"""Lists of assignments on ways that lose, double, delay and reorder, from two leaders at once.

A world from a seed: one log, two replicas that apply it at their own pace, of which either, both or
none believes that it leads; nodes that are restarted while their former process still listens.
Whatever a node obeys, it owns what the log says at the index that it names, and nothing else; one
answered lease later it has the present list.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane import migration_commands as m
from pbcluster.controlplane.node_lists import NodeLists
from pbcluster.controlplane.registry import Registry
from pbcluster.controlplane.touched import Touched
from pbcluster.node.assignments import Assignments
from pbcluster.records import MigrationPhase, ProcessRecord, TenantRecord, TenantStatus

NODES = ("node_a", "node_b", "node_c")
SEEDS, STEPS, MOST_TENANTS = 100, 200, 10
#: Copies of a message that arrive.
COPIES = (0, 1, 1, 1, 1, 2)

Told = wire.NodeAssignments | wire.AssignmentChanges
Owned = dict[str, tuple[int, str, str]]


def owned(rows: tuple[wire.Assignment, ...]) -> Owned:
    """What ownership hangs on, of each row."""
    return {row.tenant_id: (row.epoch, row.handing_over, row.ending) for row in rows}


class Replica:
    """One member's registry, and what it tells while it believes that it leads."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.leads = False
        self.registry = Registry("x.test")
        self.registry.touched = Touched(world.random.choice((4, 16, 256)))
        self.lists = NodeLists(lambda: self.registry, world.ids)

    def catch_up(self, upto: int) -> None:
        while self.registry.applied_index < upto:
            index = self.registry.applied_index + 1
            command = self.world.log[index - 1]
            applied = self.registry.apply(index, c.Keyed("", command))
            for node_id in applied.changed_nodes if self.leads else ():
                news = self.lists.news(node_id)
                if self.world.random.random() < 0.1:
                    self.lists.forget(node_id)
                for process in self.world.processes[node_id][-2:]:
                    self.world.send(process, node_id, news)


class World:
    """See the module. :ivar counts: what became of messages."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.ids = itertools.count(1).__next__
        self.numbers = itertools.count(1)
        self.at = datetime(2026, 11, 27, tzinfo=UTC)
        self.log: list[c.Command] = []
        #: What the log makes, at once; and what a node owns at each index of its list.
        self.truth = Registry("x.test")
        self.history: dict[tuple[str, int], Owned] = {}
        self.replicas = [Replica(self), Replica(self)]
        self.replicas[0].leads = True
        self.processes: dict[str, list[Assignments]] = {each: [] for each in NODES}
        self.flying: list[tuple[Assignments, str, Told]] = []
        self.counts = {"obeyed": 0, "refused": 0}
        for node_id in NODES:
            self.propose(c.SetProcess(self.at, ProcessRecord(node_id, "node", "key")))
            self.start(node_id)

    def propose(self, command: c.Command) -> None:
        self.log.append(command)
        self.truth.apply(len(self.log), c.Keyed("", command))
        for node in self.truth.nodes():
            mine = self.truth.assignments(node.id)
            now = owned(mine.assignments)
            if self.history.setdefault((node.id, mine.index), now) != now:
                raise AssertionError(f"{command} changed what {node.id} owns without its index")

    def send(self, process: Assignments, node_id: str, told: Told) -> None:
        self.flying += [(process, node_id, told)] * self.random.choice(COPIES)

    def deliver(self, place: int) -> None:
        process, node_id, told = self.flying.pop(place)
        if process.obey(told) is None:
            self.counts["refused"] += 1
            return
        self.counts["obeyed"] += isinstance(told, wire.AssignmentChanges)
        rows = tuple(each for key in process.epochs() if (each := process.get(key)) is not None)
        expected = self.history[node_id, process.index]
        if owned(rows) != expected:
            raise AssertionError(f"{told}: {owned(rows)} at {process.index}, not {expected}")

    def start(self, node_id: str) -> None:
        process = Assignments(node_id)
        self.processes[node_id].append(process)
        start = f"start{next(self.numbers)}"
        self.propose(c.RegisterNode(self.at, node_id, start, "http://127.0.0.1:1", 100))
        process.incarnation = self.truth.node(node_id).incarnation
        replica = self.random.choice(self.replicas)
        replica.catch_up(len(self.log))
        self.send(process, node_id, replica.lists.whole(node_id))

    def lease(self, node_id: str, replica: Replica) -> wire.NodeAssignments | None:
        """Its answer's list; None: it is not behind, or of another start."""
        replica.catch_up(len(self.log))
        process, node = self.processes[node_id][-1], replica.registry.node(node_id)
        if process.incarnation != node.incarnation or process.index == node.assignments_index:
            return None
        return replica.lists.whole(node_id)

    def wish(self, tenant: TenantRecord, node_id: str) -> c.Command:
        """Something about a tenant; most of it is refused in most states."""
        at, tenant_id, epoch = self.at, tenant.id, tenant.epoch
        number = next(self.numbers)
        statuses = (TenantStatus.IDLE, TenantStatus.ACTIVE)
        return self.random.choice(
            (
                c.AssignTenant(at, tenant_id, node_id, epoch),
                c.MarkReady(at, tenant_id, tenant.node_id, epoch),
                c.MarkReady(at, tenant_id, tenant.node_id, epoch),
                c.SetTenantStatus(at, tenant_id, epoch, self.random.choice(statuses)),
                c.UpdateTenant(at, tenant_id, custom_domains=(f"v{number}.x.test",)),
                c.RenameTenant(at, tenant_id, f"r{number}", f"r{number}.x.test"),
                c.ArchiveTenant(at, tenant_id),
                c.ActivateTenant(at, tenant_id),
                c.ActivateTenant(at, tenant_id),
                c.TenantEnded(at, tenant_id, tenant.node_id, epoch),
                c.TenantReleased(at, tenant_id, tenant.node_id, epoch),
                m.StartMigration(at, f"m{number}", tenant_id, node_id, epoch),
                m.StartMigration(at, f"m{number}", tenant_id, node_id, epoch),
            )
        )

    def go_on_with_a_migration(self) -> None:
        under_way = self.truth.active_migrations()
        if not under_way:
            return
        move = self.random.choice(under_way)
        at, ids = self.at, (move.id, move.tenant_id)
        step: c.Command = m.MigrationWarmed(at, *ids, 1, 1)
        if move.warmed:
            step = m.DrainTenant(at, *ids, 1)
        if move.phase is MigrationPhase.DRAINING:
            step = m.MigrationDrained(at, *ids, move.source_epoch, 1, self.random.random() < 0.5)
        if move.phase is MigrationPhase.SWITCHING:
            step = m.MigrationReady(at, *ids, move.target_epoch)
        if self.random.random() < 0.15:
            step = m.AbortMigration(at, *ids, "an operator")
        self.propose(step)

    def step(self) -> None:
        dice, node_id = self.random.random, self.random.choice(NODES)
        self.at += timedelta(seconds=1)
        tenants = list(self.truth.tenants())
        if not tenants or (len(tenants) < MOST_TENANTS and dice() < 0.1):
            number = next(self.numbers)
            name, tenant_id = f"t{number}", f"tenant_{number:08}"
            where = self.random.choice(("", node_id))
            self.propose(c.CreateTenant(self.at, tenant_id, name, f"{name}.x", node_id=where))
        elif dice() < 0.6:
            self.propose(self.wish(self.random.choice(tenants), node_id))
        else:
            self.go_on_with_a_migration()
        replica = self.random.choice(self.replicas)
        if dice() < 0.03:
            self.start(node_id)
        if dice() < 0.05:
            replica.leads = not replica.leads
            if self.random.choice((True, False)):
                replica.lists.clear()
        if dice() < 0.02:
            replica.registry = Registry.from_bytes("x.test", self.truth.to_bytes())
        for each in self.replicas:
            if dice() < 0.7:
                each.catch_up(self.random.randint(each.registry.applied_index, len(self.log)))
        if dice() < 0.3:
            whole = self.lease(node_id, self.random.choice(self.replicas))
            if whole is not None:
                self.send(self.processes[node_id][-1], node_id, whole)
        while self.flying and dice() < 0.8:
            self.deliver(0 if dice() < 0.8 else self.random.randrange(len(self.flying)))

    def end(self) -> None:
        """Everybody's next lease is answered."""
        for node_id in NODES:
            whole = self.lease(node_id, self.replicas[0])
            if whole is not None:
                self.flying.append((self.processes[node_id][-1], node_id, whole))
                self.deliver(-1)


class DisorderTests(SynchronousTestCase):
    def test_nobody_owns_what_the_log_does_not_give(self) -> None:
        """Under no index, in no order."""
        obeyed = refused = 0
        for seed in range(SEEDS):
            world = World(seed)
            try:
                for _ in range(STEPS):
                    world.step()
                world.end()
            except AssertionError as error:
                self.fail(f"seed {seed}: {error}")
            for node_id in NODES:
                index = world.truth.node(node_id).assignments_index
                self.assertEqual(world.processes[node_id][-1].index, index, f"seed {seed}")
            obeyed, refused = obeyed + world.counts["obeyed"], refused + world.counts["refused"]
        # Both happened, often: else nothing was tried.
        self.assertGreater(min(obeyed, refused), 5 * SEEDS)
