"""A world of three nodes, one S3, one control plane and one tenant, with everything going wrong.

The nodes run the real cores and the real ``tenant``/``tenants`` shells on fakes; the control plane
is the planner of rule 5 in a few lines. Nodes are paused, killed, rebooted and put back to older
disks; messages and S3's answers are late or lost; nodes are suspected without reason. Clients write
and read at every node that lets them. What is checked: each read sees every write that was
acknowledged before it began, whoever answers.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pbcluster.durations import Durations
from pbcluster.errors import PBClusterError
from pbcluster.node.parts import spawn
from pbcluster.node.proofs import Proofs
from pbcluster.testing.node_fakes.disk import FakeDisk
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.wire import NodeAssignments
from tests.node.harness import NodeHarness, T, assignment

NODES = 3


class _Call:
    """``IDelayedCall`` of a :class:`NodeClock`."""

    def __init__(self, clock: NodeClock, delay: float, run: Callable[[], object]) -> None:
        self._clock = clock
        self._run = run
        self._call = clock.world.callLater(delay, self._due)

    def _due(self) -> None:
        now = self._clock.seconds()
        if self._clock.dead:
            self._clock.dropped.append(self)
            return
        if now < self._clock.paused_until:
            self._call = self._clock.world.callLater(self._clock.paused_until - now, self._due)
            return
        self._run()

    def active(self) -> bool:
        return bool(self._call.active())

    def cancel(self) -> None:
        self._call.cancel()


class NodeClock(Clock):
    """A process's view of time: goes on while it is paused, but nothing of it runs."""

    def __init__(self, world: Clock) -> None:
        super().__init__()
        self.world = world
        self.paused_until = 0.0
        self.dead = False
        #: Calls of a dead process, kept: what waits for them must not be ended by the collector.
        self.dropped: list[_Call] = []

    def seconds(self) -> float:
        return float(self.world.seconds())

    def callLater(self, when: float, what: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return _Call(self, when, lambda: what(*args, **kwargs))


class Plane:
    """The control plane: linearizable, never fails, suspects wrongly now and then."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch = 0
        self.index = 0
        self.owner: int | None = None
        self.revoking = False
        self.released = True
        self.ever_ready = False
        self.last_ack: dict[int, float] = {}
        self.heard: dict[int, float] = {}
        self.takeovers = 0

    def assign(self, owner: int, at_least: int = 0) -> None:
        self.epoch = max(self.epoch, at_least) + 1
        self.index += 1
        self.owner, self.revoking, self.released = owner, False, False
        self.takeovers += 1

    def list_for(self, number: int) -> NodeAssignments:
        mine = self.owner == number
        given = assignment(epoch=self.epoch, ever_ready=self.ever_ready, wanted=True)
        return NodeAssignments(f"node_{number}", 1, self.index, (given,) if mine else ())

    def tick(self) -> None:
        world, now = self.world, self.world.now
        if self.owner is None:
            if self.released:
                self.assign(world.random.randrange(NODES))
        else:
            silent = now - self.heard.get(self.owner, now) > world.durations.suspect_after_s
            if silent or world.random.random() < world.false_suspicion:
                self.revoking = True
            margin = world.margin_s
            if self.revoking and now >= self.last_ack.get(self.owner, 0.0) + margin:
                self.assign(world.random.choice([n for n in range(NODES) if n != self.owner]))
            elif not self.revoking and world.random.random() < 0.01:
                self.move()
        world.later(0.2, self.tick)

    def move(self) -> None:
        """Take it away in an orderly way: it is given on at once when it was released."""
        self.owner, self.released = None, False
        self.index += 1
        self.world.later(self.world.durations.reassign_margin_s, self.not_released, self.epoch)

    def not_released(self, epoch: int) -> None:
        if self.owner is None and self.epoch == epoch:
            self.released = True  # every proof has run out by now

    def report(self, number: int, outcome: str, epoch: int, observed: int) -> None:
        if outcome == "ready":
            self.ever_ready = True
        if epoch != self.epoch:
            return
        if outcome == "refused" and self.owner == number:
            self.assign(number, observed)
        elif outcome == "released" and self.owner is None:
            self.released = True


class World:
    """See the module. :ivar violations: what must stay empty."""

    def __init__(
        self,
        seed: int,
        *,
        durations: Durations | None = None,
        margin_s: float | None = None,
        lease_covers_all: bool = False,
        age_from_answer: bool = False,
        false_suspicion: float = 0.01,
    ) -> None:
        """
        :param margin_s: the control plane's wait, if not that of ``durations``.
        :param false_suspicion: chance, each 0.2 s, that the owner is suspected without reason.
        """
        self.random = Random(seed)
        self.clock = Clock()
        self.durations = durations or Durations()
        self.margin_s = self.durations.reassign_margin_s if margin_s is None else margin_s
        self.lease_covers_all = lease_covers_all
        self.age_from_answer = age_from_answer
        self.false_suspicion = false_suspicion
        self.s3 = FakeS3(self.clock)
        self.plane = self.make_plane()
        self.acked: list[str] = []
        self.reads = 0
        self.writes = 0
        self.violations: list[str] = []
        self.cut: set[int] = set()
        self.images: dict[int, bytes] = {}
        #: Dead nodes, kept: their suspended coroutines must not be ended by the garbage collector.
        self.graveyard: list[NodeHarness] = []
        self.nodes = [self.boot(number, FakeDisk()) for number in range(NODES)]
        self.plane.tick()
        for number in range(NODES):
            self.later(0.1 * number, self.lease, number)
            self.later(0.1 * number, self.client, number)
            self.later(self.random.random() * 4, self.chaos, number)

    def make_plane(self) -> Plane:
        return Plane(self)

    @property
    def now(self) -> float:
        return float(self.clock.seconds())

    def later(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        self.clock.callLater(delay, what, *args)

    def latency(self) -> float:
        return self.random.choice((0.001, 0.003, 0.01, 0.05, 0.2, 0.6)) * self.random.random()

    def boot(self, number: int, disk: FakeDisk) -> NodeHarness:
        clock = NodeClock(self.clock)
        view = FakeS3(clock)  # this node's network; the objects are everybody's
        view.objects, view._numbers = self.s3.objects, self.s3._numbers
        node = NodeHarness(clock, view, f"node_{number}", disk=disk)
        node.proofs = Proofs(self.durations)
        object.__setattr__(node.parts, "proofs", node.proofs)
        object.__setattr__(node.parts, "report", lambda report: self.reported(number, report))
        return node

    def reported(self, number: int, report: Any) -> None:
        self.message(
            number,
            self.plane.report,
            number,
            report.outcome,
            report.epoch,
            report.observed_epoch,
            lossless=True,  # reports are repeated until they are answered
        )

    def message(
        self, number: int, what: Callable[..., None], *args: Any, lossless: bool = False
    ) -> None:
        lost = number in self.cut or self.random.random() < 0.02
        if lost and lossless:
            self.later(0.3, lambda: self.message(number, what, *args, lossless=True))
        elif not lost:
            self.later(self.latency(), what, *args)

    # -- leases --

    def lease(self, number: int) -> None:
        node, sent = self.nodes[number], self.now
        clock = node.clock
        assert isinstance(clock, NodeClock)
        if not clock.dead and sent >= clock.paused_until:
            index = node.tenants.obeyed_index
            self.message(number, self.lease_arrived, number, node, sent, index)
        self.later(self.durations.lease_interval_s, self.lease, number)

    def lease_arrived(self, number: int, node: NodeHarness, sent: float, index: int) -> None:
        plane = self.plane
        plane.heard[number] = self.now
        covered = plane.owner == number and (not plane.revoking or self.lease_covers_all)
        if covered:
            plane.last_ack[number] = self.now
        bring = plane.list_for(number)
        not_covered = () if covered or self.lease_covers_all else (T,)
        self.message(number, self.ack, node, sent, plane.index, not_covered, bring)

    def ack(
        self,
        node: NodeHarness,
        sent: float,
        index: int,
        not_covered: tuple[str, ...],
        bring: NodeAssignments,
    ) -> None:
        def arrived() -> None:
            if not self.lease_covers_all or self.random.random() < 0.5:
                self.obey(node, bring)
            known = node.tenants.obeyed_index if self.lease_covers_all else index
            aged = self.now if self.age_from_answer else sent
            node.proofs.lease_acked(aged, granted=True, index=known, not_covered=not_covered)

        node.clock.callLater(0, arrived)

    def obey(self, node: NodeHarness, lists: NodeAssignments) -> None:
        node.tenants.obey(lists)

    # -- clients --

    def client(self, number: int) -> None:
        node = self.nodes[number]
        if self.random.random() < 0.5:
            node.clock.callLater(0, lambda: spawn(self.write(node), "a write"))
        else:
            known = len(self.acked)
            node.clock.callLater(0, lambda: spawn(self.read(node, known), "a read"))
        self.later(self.random.random() * 0.1, self.client, number)

    async def admit(self, node: NodeHarness, *, write: bool) -> Any:
        tenant = node.tenants.find(T)
        if tenant is None:
            return None
        try:
            if not tenant.proven():
                await tenant.prove()
        except PBClusterError:
            return None
        if tenant.upstream(write=write) is None or not tenant.proven():
            return None
        return tenant

    async def write(self, node: NodeHarness) -> None:
        tenant = await self.admit(node, write=True)
        if tenant is None:
            return
        self.writes += 1
        row = f"row {self.writes}"
        node.fake.workloads.running[T].write(row)
        await pass_time(node.clock, self.latency() / 10)
        try:
            await tenant.replication.acknowledge()
        except PBClusterError:
            return
        self.acked.append(row)

    async def read(self, node: NodeHarness, known: int) -> None:
        tenant = await self.admit(node, write=False)
        if tenant is None:
            return
        self.reads += 1
        rows = set(node.fake.workloads.running[T].rows())
        missing = [row for row in self.acked[:known] if row not in rows]
        if missing:
            self.violations.append(
                f"at {self.now:.3f} {node.name} epoch {tenant.epoch} does not show {missing[:3]}"
            )

    # -- what goes wrong --

    def chaos(self, number: int) -> None:
        node, random = self.nodes[number], self.random
        clock = node.clock
        assert isinstance(clock, NodeClock)
        what = random.random()
        faults = node.fake.s3.faults
        if what < 0.3:
            clock.paused_until = self.now + random.choice((0.3, 1.0, 2.2, 3.0, 6.0))
        elif what < 0.45:
            self.cut ^= {number}
        elif what < 0.6:
            faults.delay_s = random.choice((0.002, 0.01, 0.1, 0.5, 1.2))
        elif what < 0.7:
            faults.lose_answers, faults.lose_requests = random.randrange(3), random.randrange(3)
        elif what < 0.75:
            faults.down = not faults.down
        elif what < 0.8:
            self.images[number] = node.fake.disk.image()
        elif what < 0.9:
            self.kill(number)
        else:
            self.cut.discard(number)
            faults.delay_s, faults.down = 0.004, False
        self.later(random.random() * 4, self.chaos, number)

    def kill(self, number: int) -> None:
        node, random = self.nodes[number], self.random
        assert isinstance(node.clock, NodeClock)
        if node.clock.dead:
            return
        node.clock.dead = True
        if random.random() < 0.3:
            node.fake.reboot()
        else:
            node.fake.die()
        if number in self.images and random.random() < 0.5:
            node.fake.disk.revert(self.images.pop(number))
        self.later(random.random() * 3, self.start_again, number)

    def start_again(self, number: int) -> None:
        self.graveyard.append(self.nodes[number])
        self.nodes[number] = self.boot(number, self.nodes[number].fake.disk)

    def run(self, seconds: float) -> None:
        """Until the time has passed or something is wrong."""
        while self.now < seconds and not self.violations:
            calls = self.clock.getDelayedCalls()
            due = min(call.getTime() for call in calls)
            self.clock.advance(max(0.0, due - self.now))


async def pass_time(clock: Clock, seconds: float) -> None:
    waiting: Deferred[None] = Deferred()
    clock.callLater(seconds, waiting.callback, None)
    await waiting
