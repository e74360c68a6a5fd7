"""The world of ``ownership_world`` under the real control plane, which moves the tenant about.

Registry, planner, liveness, moves, executor, requests and migrating are the real ones; only the
log is a delay, after which a command is applied, and leaders change all the time: what the old one
proposed is lost or applied behind its back. Operators migrate, abort and drain at random. Nodes
run the real tenants, hand-overs and warm copies on fakes, with all of the other world's faults.
Added to what that world checks: when the faults end, every migration ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.executor import Executor
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.moves import Moves
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.controlplane.requests import Requests
from pbcluster.errors import DeadlineExceeded, NotLeader, PBClusterError
from pbcluster.node.handing_over import HandingOver
from pbcluster.node.orders import Orders
from pbcluster.node.parts import spawn
from pbcluster.node.warming import Warming
from pbcluster.records import MigrationPhase
from pbcluster.testing.node_fakes.disk import FakeDisk
from pbcluster.testing.node_fakes.warm_files import FakeWarmFiles
from pbcluster.transport.interfaces import Asked
from tests.node.harness import HOST, NodeHarness, T
from tests.node.ownership_world import NODES, NodeClock, Plane, World, pass_time

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Log:
    """``Consensus`` of one leadership over the registry that all share."""

    votes = True
    leader_endpoint = ""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.is_leader = True
        self.subscribers: list[Callable[[Applied], None]] = []

    @property
    def registry(self) -> Registry:
        return self.plane.registry

    def subscribe(self, callback: Callable[[Applied], None]) -> None:
        self.subscribers.append(callback)

    def subscribe_leadership(self, callback: Callable[[bool], None]) -> None:
        pass

    async def leader_known(self, timeout_s: float) -> None:
        pass

    async def propose(self, command: c.AnyCommand, key: str = "", note: Any = None) -> Any:
        if not self.is_leader:
            raise NotLeader("it leads no more")
        waiting: Deferred[Any] = Deferred()
        self.plane.world.later(self.plane.world.latency() / 5, self.commit, command, key, waiting)
        return await waiting

    def commit(self, command: c.AnyCommand, key: str, waiting: Deferred[Any]) -> None:
        if not self.is_leader and self.plane.world.random.random() < 0.5:
            waiting.errback(NotLeader("it leads no more; this was lost"))
            return
        applied = self.plane.apply(command, key)
        for callback in self.subscribers:
            callback(applied)
        error = applied.outcome.error
        if not self.is_leader:
            waiting.errback(DeadlineExceeded("it leads no more; who knows"))
        elif error is not None:
            waiting.errback(error.exception())
        else:
            waiting.callback(applied.outcome)


class Leader:
    """One leadership: all that is soft begins anew with it."""

    def __init__(self, plane: ControlPlane) -> None:
        world = plane.world
        self.clock = NodeClock(world.clock)
        self.log = Log(plane)
        registry = lambda: plane.registry  # noqa: E731
        self.liveness = Liveness(world.durations, world.now)
        for node in plane.registry.nodes():
            self.liveness.known(node.id, node.incarnation, world.now)
        self.planner = Planner(registry, self.liveness, node_down_after_s=15.0)
        moves = Moves(registry, self.liveness, self.planner)
        log: Any = self.log
        server: Any = Wires(plane)
        clock: Any = self.clock
        wall = lambda: AT  # noqa: E731
        executor = Executor(
            clock, log, self.liveness, self.planner, server, server, world.durations, wall
        )
        self.migrating = Migrating(clock, log, self.liveness, moves, executor, server, wall)
        self.requests = Requests(
            clock, log, self.liveness, self.planner, executor, wall, self.migrating
        )
        executor.start()
        self.migrating.start()

    def depose(self) -> None:
        self.log.is_leader = False
        self.clock.dead = True


class Wires:
    """``RequestServer`` and ``Publisher`` to the nodes of the world; one gateway holds all."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def publish(self, broadcast: wire.Broadcast) -> None:
        pass

    def silence(self) -> None:
        pass

    def tell(self, peer: str, body: wire.Body) -> bool:
        world = self.plane.world
        number = int(peer.removeprefix("node_"))
        assert isinstance(body, wire.NodeAssignments | wire.AssignmentChanges)
        world.message(number, world.told, world.nodes[number], body)
        return True

    async def ask(self, peer: str, body: wire.Body, *, timeout_s: float) -> wire.Body:
        world = self.plane.world
        number = int(peer.removeprefix("node_"))
        clock = world.nodes[number].clock
        assert isinstance(clock, NodeClock)
        await pass_time(world.clock, world.latency())
        if clock.dead or world.now < clock.paused_until or number in world.cut:
            raise DeadlineExceeded("silence")
        return wire.Ok()

    async def survey(self, body: wire.Body, **_: Any) -> dict[str, list[wire.Body]]:
        await pass_time(self.plane.world.clock, self.plane.world.latency())
        return {"gateway_1": [wire.Ok()]}


class ControlPlane(Plane):
    """The registry, and who leads.

    :ivar phases: in which the phases of migrations were seen to end a leadership.
    """

    world: MigrationWorld

    def __init__(self, world: MigrationWorld) -> None:
        super().__init__(world)
        self.world = world
        self.registry = Registry("example.com")
        self.phases: set[MigrationPhase] = set()
        self.ended: dict[MigrationPhase, int] = {}
        self.apply(c.CreateTenant(AT, T, "shop", HOST))
        self.leader: Leader | None = None
        self.starts = 0
        self.reports = 0

    def apply(self, command: c.AnyCommand, key: str = "") -> Applied:
        before = self.registry.last_migration(T)
        applied = self.registry.apply(self.registry.applied_index + 1, c.Keyed(key, command))
        after = self.registry.last_migration(T)
        if after is not None and after.ended and (before is None or not before.ended):
            self.ended[after.phase] = self.ended.get(after.phase, 0) + 1
        return applied

    def register(self, number: int) -> int:
        self.starts += 1
        name = f"node_{number}"
        self.apply(c.RegisterNode(AT, name, f"s{self.starts}", f"http://{name}:1", 10))
        return self.registry.node(name).incarnation

    def tick(self) -> None:
        if self.leader is None:
            self.leader = Leader(self)
        world, random = self.world, self.world.random
        dice = random.random()
        record = self.registry.last_migration(T)
        if world.calm:
            pass
        elif dice < 0.03:
            if record is not None:
                self.phases.add(record.phase)
            self.leader.depose()
            self.leader = Leader(self)
        elif dice < 0.15:
            self.operator(self.leader, dice)
        tenant = self.registry.tenant(T)
        if not tenant.node_id:
            spawn(self.place(self.leader), "a look-up")
        self.takeovers = tenant.epoch
        world.later(0.1, self.tick)

    async def place(self, leader: Leader) -> None:
        now = self.world.now
        try:
            body = wire.LookupRoute(tenant_id=T, place=True)
            await leader.requests(Asked("gateway_1", "", now + 0.5, now), body)
        except PBClusterError:
            pass

    def operator(self, leader: Leader, dice: float) -> None:
        record = self.registry.last_migration(T)
        number = self.world.random.randrange(NODES)
        if dice < 0.12:
            wanted = lambda: leader.migrating.start_command(  # noqa: E731
                self.registry.tenant(T), f"node_{number}"
            )
        elif dice < 0.13 and record is not None:
            wanted = lambda: leader.migrating.abort_command(record, "an operator")  # noqa: E731
        else:
            node = self.registry.node(f"node_{number}")
            wanted = lambda: c.DrainNode(AT, node.id, not node.drain_wanted)  # noqa: E731
        spawn(self.wish(leader, wanted), "an operator")

    async def wish(self, leader: Leader, wanted: Callable[[], c.AnyCommand]) -> None:
        with contextlib.suppress(PBClusterError):
            await leader.log.propose(wanted())

    def report_whole(
        self, number: int, report: wire.TenantReport, process: NodeHarness, key: str = ""
    ) -> None:
        leader, world = self.leader, self.world
        incarnation = world.incarnations[process]
        assert leader is not None
        self.reports += 1
        key = key or f"r{self.reports}"

        async def deliver() -> None:
            node = f"node_{number}"
            if self.registry.node(node).incarnation != incarnation:
                return
            body = wire.TenantReport(
                node,
                incarnation,
                *(getattr(report, field) for field in report.__struct_fields__[2:]),
            )
            asked = Asked(node, key, world.now + 5, world.now)
            try:
                await leader.requests(asked, body)
            except PBClusterError as error:
                if error.status in (503, 504):
                    world.later(0.3, self.report_whole, number, report, process, key)

        spawn(deliver(), "a report")


class MigrationWorld(World):
    """See the module. :ivar calm: nothing goes wrong any more."""

    plane: ControlPlane

    def __init__(self, seed: int) -> None:
        self.calm = False
        self.incarnations: dict[NodeHarness, int] = {}
        self.orders: dict[NodeHarness, Orders] = {}
        super().__init__(seed)

    def make_plane(self) -> Plane:
        return ControlPlane(self)

    def boot(self, number: int, disk: FakeDisk) -> NodeHarness:
        node = super().boot(number, disk)
        warming = Warming(
            node_id=node.name,
            files=FakeWarmFiles(node.fake.disk),
            claims=node.fake.claims,
            replication=node.fake.replication,
            report=node.parts.report,
        )
        self.orders[node] = Orders(node.tenants, HandingOver(node.parts, node.tenants), warming)
        self.incarnations[node] = incarnation = self.plane.register(number)
        node.tenants.registered(incarnation)
        process = node
        object.__setattr__(
            node.parts, "report", lambda report: self.whole_report(number, report, process)
        )
        warming._report = node.parts.report
        warming.clear()
        object.__setattr__(node.parts, "warm", warming)
        return node

    def whole_report(self, number: int, report: Any, process: NodeHarness) -> None:
        self.message(number, self.plane.report_whole, number, report, process, lossless=True)

    def told(self, node: NodeHarness, lists: wire.NodeAssignments | wire.AssignmentChanges) -> None:
        node.clock.callLater(0, lambda: self.orders[node].obey(lists))

    def obey(self, node: NodeHarness, lists: wire.NodeAssignments) -> None:
        self.orders[node].obey(lists)

    def lease_arrived(self, number: int, node: NodeHarness, sent: float, index: int) -> None:
        leader, name = self.plane.leader, f"node_{number}"
        incarnation = self.incarnations[node]
        record = self.plane.registry.node(name)
        if leader is None or record.incarnation != incarnation:
            return
        leader.liveness.known(name, incarnation, self.now)
        if not leader.liveness.lease(name, incarnation, self.now):
            return
        not_covered = leader.liveness.not_covered(name)
        bring = self.plane.registry.assignments(name)
        self.message(number, self.ack, node, sent, record.assignments_index, not_covered, bring)

    def chaos(self, number: int) -> None:
        if not self.calm:
            super().chaos(number)

    def calm_down(self) -> None:
        """From now on nothing goes wrong."""
        self.calm = True
        self.cut.clear()
        for node in self.nodes:
            node.fake.s3.faults.delay_s = 0.004
            node.fake.s3.faults.down = False
            node.fake.s3.faults.lose_answers = node.fake.s3.faults.lose_requests = 0

    def message(
        self, number: int, what: Callable[..., None], *args: Any, lossless: bool = False
    ) -> None:
        if self.calm:
            self.later(0.002, what, *args)
        else:
            super().message(number, what, *args, lossless=lossless)
