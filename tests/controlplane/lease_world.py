"""A world for the lease rules: the real member code, model nodes with the real proof core.

The member is everything but sockets and disk: requests, planner, liveness, executor, consensus of
one over a store that keeps entries in a list and takes its time. The nodes register, renew leases,
obey lists, claim in a shared table that stands for S3, and report. One clock, one seed, so that a
run can be repeated. After every step the world checks that no tenant is answered for by two
processes under lease proofs: processes, not nodes, since a node that was started twice is two.

It is harsher than the world outside, so that a rule left out shows: new owners do not wait after
their claim, and with ``hasty`` a node is suspected for next to nothing. What keeps two from
answering must be the margin and what acknowledgements cover, not the slowness of suspicion.
"""

import zlib
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.beginning import genesis
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.lmdb_store import Done
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.moves import Moves
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.raft_store import Write
from pbcluster.controlplane.registry import Registry
from pbcluster.controlplane.requests import Requests
from pbcluster.durations import Durations
from pbcluster.errors import NotFound, PBClusterError, WrongEpoch
from pbcluster.node.assignments import Assignments
from pbcluster.node.proofs import Held, Proofs
from pbcluster.raft import ConfState, Entry, SnapshotMeta, StoredState
from pbcluster.records import NodeResources
from pbcluster.testing.memory_transport import MemoryControlPlaneClient, MemoryNetwork
from pbcluster.transport.interfaces import Asked

MEMBER = "member_1"
STEP_S = 0.02


def run(work: Coroutine[Any, Any, Any]) -> None:
    """Start ``work``; errors of ours are part of the weather, others fail the test."""

    def ended(failure: Failure) -> None:
        failure.trap(PBClusterError)

    Deferred.fromCoroutine(work).addErrback(ended)


class Inline:
    """``callFromThread`` of a world without threads."""

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)


class ListStore:
    """A ``RaftStore`` whose disk is a list; a write takes ``delay_s()``."""

    image = genesis("localhost")

    def __init__(self, clock: Clock, delay_s: Callable[[], float]) -> None:
        self.clock = clock
        self.delay_s = delay_s
        first = StoredState.first(ConfState((MEMBER,)), len(self.image), zlib.crc32(self.image))
        self.first = first
        self.hard = first.hard
        self.entries: list[Entry] = []
        self.lives = 0
        self.waiting: list[tuple[tuple[Write, ...], Done]] = []
        self.crashed = False
        self.busy = False

    def recover(self) -> StoredState:
        return attrs.evolve(self.first, hard=self.hard, entries=tuple(self.entries))

    def read_snapshot(self, meta: SnapshotMeta) -> bytes:
        return self.image

    def begin_life(self) -> int:
        self.lives += 1
        return self.lives

    def start(self) -> None:
        pass

    def nearly_full(self) -> bool:
        return False

    def close(self) -> None:
        self.crash()

    def crash(self) -> "ListStore":
        """What is being written is lost, and this object writes no more.

        :returns: the store as the next start finds it.
        """
        self.waiting.clear()
        self.crashed = True
        after = ListStore(self.clock, self.delay_s)
        after.entries, after.hard, after.lives = self.entries, self.hard, self.lives
        return after

    def submit(self, batch: tuple[Write, ...], done: Done) -> None:
        if self.crashed:
            return
        self.waiting.append((batch, done))
        if not self.busy:
            self.busy = True
            self.clock.callLater(self.delay_s(), self.write)

    def write(self) -> None:
        if self.crashed:
            return
        batches, self.waiting, self.busy = self.waiting, [], False
        for batch, done in batches:
            for one in batch:
                self.entries.extend(one.entries)
                self.hard = one.hard_state or self.hard
            done(None)


class Nowhere:
    """The network of a member that is alone."""

    endpoint = ""

    def start(self, *_: Any) -> None:
        pass

    def send(self, message: Any) -> bool:
        return False

    def follow(self, members: Any, roster: Any) -> None:
        pass

    def ask_standing(self) -> None:
        pass

    def stop(self) -> None:
        pass


@attrs.define
class Process:
    """One start of a node."""

    world: "World"
    node_id: str
    start_id: str
    client: MemoryControlPlaneClient
    proofs: Proofs
    list: Assignments
    incarnation: int = 0
    claimed: dict[str, int] = attrs.Factory(dict)
    frozen: bool = False
    dead: bool = False
    registering: bool = False
    keys: int = 0
    #: What it says to a survey, if not the truth.
    found: dict[str, int] = attrs.Factory(dict)
    #: Parts of migrations that it leaves undone.
    lazy: set[str] = attrs.Factory(set)
    orders: set[tuple[str, str]] = attrs.Factory(set)

    def key(self) -> str:
        self.keys += 1
        return f"{self.start_id}-{self.keys}"

    def lives(self) -> bool:
        return not (self.frozen or self.dead)

    def start(self) -> None:
        self.client.start(self.told)
        run(self.register())
        self.beat()

    async def told(self, asked: Asked, body: wire.Body) -> wire.Body:
        stranger = isinstance(body, wire.Probe) and body.incarnation != self.incarnation
        if stranger or not self.lives():
            await Deferred()
        if isinstance(body, wire.NodeAssignments | wire.AssignmentChanges):
            self.obey(body)
        if isinstance(body, wire.MintLogin):
            return wire.Login("me@example.com", "abcdefghijklmno", "header.claims.signature")
        if isinstance(body, wire.ReadLog):
            return wire.LogLines("life.2", ("a line",))
        if isinstance(body, wire.FindTenant):
            epoch = self.found.get(body.tenant_id, self.claimed.get(body.tenant_id, 0))
            return wire.TenantFound(self.node_id, self.incarnation, epoch, "active", 0)
        return wire.Ok()

    async def register(self) -> None:
        if self.registering or not self.lives():
            return
        self.registering = True
        try:
            answer = await self.client.ask(
                wire.RegisterNode(
                    self.node_id, self.start_id, "http://127.0.0.1:1", self.world.capacity
                ),
                timeout_s=1.0,
                idempotency_key=self.key(),
            )
            registered = wire.expect(answer, wire.Registered)
            if registered.incarnation != self.incarnation:
                self.proofs.drop_leases(self.world.now)
            self.incarnation = self.list.incarnation = registered.incarnation
            self.obey(registered.assignments)
        finally:
            self.registering = False

    def beat(self) -> None:
        if self.dead:
            return
        self.world.clock.callLater(0.4, self.beat)
        if self.lives():
            run(self.renew() if self.incarnation else self.register())

    async def renew(self) -> None:
        sent, incarnation = self.world.now, self.incarnation
        lease = wire.Lease(self.node_id, incarnation, self.list.index)
        try:
            answer = await self.client.ask(lease, timeout_s=1.5)
        except (NotFound, WrongEpoch):
            await self.register()
            return
        ack = wire.expect(answer, wire.LeaseAck)
        if incarnation != self.incarnation or not self.lives():
            return
        if ack.assignments is not None:
            self.obey(ack.assignments)
        self.proofs.lease_acked(
            sent, granted=ack.granted, index=ack.assignments_index, not_covered=ack.not_covered
        )
        run(
            self.client.ask(
                wire.Heartbeat(
                    self.node_id, incarnation, utc_now(), "healthy", 5, 0, 0, NodeResources()
                ),
                timeout_s=1.0,
            )
        )

    def obey(self, new: wire.NodeAssignments | wire.AssignmentChanges) -> None:
        if not self.lives():
            return
        change = self.list.obey(new)
        if change is None:
            return
        self.follow_orders(new)
        self.proofs.obey(new.index, self.list.epochs())
        for tenant_id in change.removed:
            epoch = self.claimed.pop(tenant_id, 0)
            self.proofs.forget(tenant_id, epoch)
            self.report(tenant_id, self.world.last_epoch(self, tenant_id), "released")
        for each in change.added:
            self.world.epochs[self.start_id, each.tenant_id] = each.epoch
            self.world.clock.callLater(
                self.world.random.random() * 0.05, self.claim, each.tenant_id, each.epoch
            )

    def follow_orders(self, new: wire.NodeAssignments | wire.AssignmentChanges) -> None:
        """Warm up and hand over at once; what was done is done once a start."""
        rows = new.changed if isinstance(new, wire.AssignmentChanges) else new.assignments
        wanted = [(each.tenant_id, each.epoch, each.migration_id, "warmed") for each in new.warming]
        wanted += [
            (each.tenant_id, each.epoch, each.handing_over, "drained")
            for each in rows
            if each.handing_over
        ]
        for tenant_id, epoch, migration, outcome in wanted:
            if (migration, outcome) not in self.orders and outcome not in self.lazy:
                self.orders.add((migration, outcome))
                if outcome == "drained":
                    self.proofs.forget(tenant_id, self.claimed.pop(tenant_id, 0))
                self.report(tenant_id, epoch, outcome, migration=migration)

    def claim(self, tenant_id: str, epoch: int) -> None:
        if self.dead or self.list.epochs().get(tenant_id) != epoch:
            return
        if self.frozen:
            self.world.clock.callLater(0.1, self.claim, tenant_id, epoch)
            return
        owner = self.world.owners.get(tenant_id, (0, ""))
        if owner[0] >= epoch:
            self.report(tenant_id, epoch, "refused", observed=owner[0])
            return
        self.world.owners[tenant_id] = (epoch, self.start_id)
        order = self.list.get(tenant_id)
        if order is not None and order.ending:
            self.claimed.pop(tenant_id, None)
            self.report(tenant_id, epoch, "ended")
            return
        self.claimed[tenant_id] = epoch
        self.proofs.claimed(tenant_id, epoch, self.world.now, first=True)
        self.report(tenant_id, epoch, "ready")

    def report(
        self, tenant_id: str, epoch: int, outcome: str, observed: int = 0, migration: str = ""
    ) -> None:
        async def deliver() -> None:
            key = self.key()
            for _ in range(1000):
                body = wire.TenantReport(
                    self.node_id,
                    self.incarnation,
                    tenant_id,
                    epoch,
                    outcome,
                    observed,
                    migration_id=migration,
                )
                try:
                    await self.client.ask(body, timeout_s=2.0, idempotency_key=key)
                    return
                except PBClusterError:
                    pause: Deferred[None] = Deferred()
                    self.world.clock.callLater(0.3, pause.callback, None)
                    await pause
                if self.dead:
                    return

        run(deliver())

    def answers(self, tenant_id: str) -> bool:
        """Whether it would answer now, if only it ran: a frozen process wakes up and answers."""
        epoch = self.claimed.get(tenant_id, 0)
        if self.dead or not epoch:
            return False
        return isinstance(self.proofs.judge(tenant_id, epoch, self.world.now), Held)


class World:
    """One member, some nodes, weather."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        tenants: int = 4,
        capacity: int = 5,
        hasty: bool = False,
    ) -> None:
        self.capacity = capacity  # of each node
        self.durations = Durations()
        if hasty:
            self.durations = Durations(suspect_after_s=0.1, probe_timeout_s=0.06)
        self.random = Random(seed)
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.network = MemoryNetwork(self.clock, random=Random(seed + 1))
        self.owners: dict[str, tuple[int, str]] = {}
        self.epochs: dict[tuple[str, str], int] = {}
        self.processes: list[Process] = []
        self.starts = 0
        self.slow_disk = False
        self.trouble: list[str] = []
        self.store = ListStore(self.clock, self.disk_delay_s)
        self.server = self.network.server(MEMBER)
        self.tenants = [f"tenant_{number:08d}" for number in range(tenants)]
        self.start_member()
        for number in range(nodes):
            self.start_node(f"node_{number}")
        self.run_for(1.0)
        for number, tenant_id in enumerate(self.tenants):
            command = c.CreateTenant(utc_now(), tenant_id, f"t{number}", f"t{number}.localhost")
            run(self.consensus.propose(command))
        self.run_for(0.5)

    @property
    def now(self) -> float:
        return self.clock.seconds()

    @property
    def registry(self) -> Registry:
        return self.consensus.registry

    def last_epoch(self, process: Process, tenant_id: str) -> int:
        return self.epochs.get((process.start_id, tenant_id), 0)

    def disk_delay_s(self) -> float:
        return self.random.random() * (3.0 if self.slow_disk else 0.01)

    # -- the member --

    def start_member(self) -> None:
        self.consensus = RaftMember(
            cast(Any, Inline()),
            self.clock,
            cast(Any, self.store),
            cast(Any, Nowhere()),
            MEMBER,
            "localhost",
            self.random,
            lambda function, *args: succeed(function(*args)),
            self.trouble.append,
            snapshot_every=10**9,
        )
        run(self.consensus.start())
        self.liveness = Liveness(self.durations, self.now)
        consensus = self.consensus
        self.planner = Planner(lambda: consensus.registry, self.liveness, node_down_after_s=15.0)
        self.publisher = self.network.publisher(MEMBER)
        self.executor = Executor(
            self.clock,
            self.consensus,
            self.liveness,
            self.planner,
            self.server,
            self.publisher,
            self.durations,
        )
        moves = Moves(lambda: consensus.registry, self.liveness, self.planner)
        self.migrating = Migrating(
            self.clock, self.consensus, self.liveness, moves, self.executor, self.server
        )
        self.requests = Requests(
            self.clock,
            self.consensus,
            self.liveness,
            self.planner,
            self.executor,
            migrating=self.migrating,
        )
        self.publisher.start()
        self.server.start(self.requests)
        self.executor.start()
        self.migrating.start()

    def crash_member(self) -> None:
        self.migrating.stop()
        self.executor.stop()
        self.server.stop()
        self.publisher.stop()
        self.consensus._driver._core = None
        self.consensus._overdue.stop()
        self.store = self.store.crash()

    # -- the nodes --

    def start_node(self, node_id: str) -> Process:
        self.starts += 1
        process = Process(
            self,
            node_id,
            f"start{self.starts}",
            self.network.client(node_id, role="node"),
            Proofs(self.durations),
            Assignments(node_id),
        )
        self.processes.append(process)
        process.start()
        return process

    def newest_start(self, node_id: str) -> str:
        return [p.start_id for p in self.processes if p.node_id == node_id][-1]

    def kill(self, process: Process) -> None:
        process.dead = True
        process.client.stop()

    # -- time --

    def step(self) -> None:
        self.clock.advance(STEP_S)
        self.check()

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.step()

    def check(self) -> None:
        for tenant_id in self.tenants:
            answering = [p for p in self.processes if p.answers(tenant_id)]
            if len(answering) > 1:
                told = [(p.node_id, p.start_id, p.claimed[tenant_id]) for p in answering]
                raise AssertionError(f"{tenant_id} is answered by {told} at {self.now:.2f}")
        if self.trouble:
            raise AssertionError(self.trouble[0])

    # -- people and weather --

    def ask_for(self, tenant_id: str, timeout_s: float = 3.0) -> None:
        """A gateway looks the tenant up."""
        asked = Asked("gateway_1", "", self.now + timeout_s, self.now, "gateway")
        body = wire.LookupRoute(tenant_id=tenant_id, place=True)
        work = Deferred.fromCoroutine(cast(Any, self.requests(asked, body)))
        work.addErrback(lambda failure: None)
        if self.random.random() < 0.3:  # the asker goes away
            self.clock.callLater(self.random.random() * 0.2, work.cancel)

    def weather(self) -> None:
        """Something happens."""
        node_id = f"node_{self.random.randrange(3)}"
        living = [p for p in self.processes if p.node_id == node_id and not p.dead]
        kind = self.random.randrange(10)
        if kind == 0:
            self.network.cut(node_id, MEMBER, both_ways=self.random.random() < 0.5)
        elif kind == 1:
            self.network.cut(MEMBER, node_id, both_ways=False)
        elif kind in (2, 3):
            self.network.heal()
            self.slow_disk = False
        elif kind == 4:
            faults = self.network.faults
            faults.drop, faults.delay_s = self.random.random() * 0.3, self.random.random() * 0.2
            faults.jitter_s, faults.duplicate = self.random.random() * 0.5, 0.1
        elif kind == 5 and living:
            self.kill(self.random.choice(living))
        elif kind == 6 and len(living) < 2:
            self.start_node(node_id)
        elif kind == 7 and living:
            process = self.random.choice(living)
            process.frozen = not process.frozen
        elif kind == 8:
            self.crash_member()
            self.run_for(self.random.random())
            self.start_member()
        elif kind == 9:
            self.slow_disk = True
        for tenant_id in self.tenants:
            if self.random.random() < 0.5:
                self.ask_for(tenant_id)

    def calm(self) -> None:
        """Everything heals; each node has one process."""
        self.network.heal()
        self.slow_disk = False
        for process in self.processes:
            process.frozen = False
        for node_id in {p.node_id for p in self.processes}:
            living = [p for p in self.processes if p.node_id == node_id and not p.dead]
            # A start that was replaced stays out; a supervisor would have ended it.
            newest = self.newest_start(node_id)
            for process in living:
                if process.start_id != newest:
                    self.kill(process)
            if newest not in [p.start_id for p in living]:
                self.start_node(node_id)

    def close(self) -> None:
        self.crash_member()
        for process in self.processes:
            if not process.dead:
                self.kill(process)
