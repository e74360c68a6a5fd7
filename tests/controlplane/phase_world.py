"""Real members with all that a leader does, real tenants on three simulated nodes, one clock.

Members are ``raft_world``'s: real Raft, real LMDB, a network in memory. Each carries what a member
of a cluster carries (liveness, planner, moves, executor, migrating, requests), and dies with all of
it. The nodes run the real tenants, hand-overs, warm copies and endings on fakes, renew their
leases, and repeat a report until some member answered it. An operator repeats its wish with the
same idempotency key until it is answered.

A :class:`Death` kills the leader at one log entry, in one of four ways (:class:`When`). Nothing
else goes wrong: what comes of it is the death's alone. At every step no two nodes may be ready to
answer for one tenant.
"""

from __future__ import annotations

import enum
import itertools
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.executor import Executor
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.moves import Moves
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.registry import Applied
from pbcluster.controlplane.requests import Requests
from pbcluster.durations import Durations
from pbcluster.errors import DeadlineExceeded, NotLeader, PBClusterError, Unavailable
from pbcluster.node.handing_over import HandingOver
from pbcluster.node.orders import Orders
from pbcluster.node.parts import spawn
from pbcluster.node.warming import Warming
from pbcluster.raft import Entry, EntryKind
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.testing.node_fakes.warm_files import FakeWarmFiles
from pbcluster.transport.interfaces import Asked
from tests.controlplane.raft_world import STEP_S, RaftWorld
from tests.node.harness import NodeHarness
from tests.node.ownership_world import NodeClock

AT = datetime(2026, 1, 1, tzinfo=UTC)
NODES = ("node_1", "node_2", "node_3")
#: A question without an answer is asked again after so long: its member is dead, or elects.
REPEAT_S = 0.3
#: What one operation and one death may take.
SETTLE_S = 40.0
LATENCY_S = 0.001
#: A leader's disk has by then what it proposed; what it had sent has arrived, or was cut off.
DYING_S = 3 * STEP_S


class When(enum.Enum):
    """At which moment of a log entry's life its leader dies."""

    #: It proposed it, and nobody else ever heard of it.
    PROPOSED = "proposed"
    #: It is on its way to the others, and not yet on its own disk.
    SENT = "sent"
    #: It is on its own disk only; it comes back with it.
    STORED = "stored"
    #: It is committed and applied; nothing was told to anybody.
    APPLIED = "applied"
    #: Nodes and gateways were told, but the proposer was not.
    TOLD = "told"


@attrs.define
class Death:
    """The leader dies at the ``number``-th entry from now on.

    :ivar happened: it was decided, at this command. :ivar over: it is dead.
    """

    number: int
    when: When
    happened: str = ""
    over: bool = False
    seen: int = 0


class Brain:
    """What one process of a member carries besides its log."""

    def __init__(self, world: PhaseWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.member = member = world.members[name]
        self.clock = clock = NodeClock(world.clock)
        self.told: list[wire.Broadcast] = []
        #: First to hear of what was applied.
        member.subscribe(lambda applied: world.applied(self, applied, When.APPLIED))
        self.kind = ""
        self._apply = member.apply
        member.apply = self.apply  # type: ignore[method-assign]
        self._propose = member.propose
        member.propose = self.propose  # type: ignore[method-assign]
        self.liveness = Liveness(world.durations, world.clock.seconds())
        registry = lambda: member.registry  # noqa: E731
        self.planner = Planner(registry, self.liveness, node_down_after_s=15.0)
        moves = Moves(registry, self.liveness, self.planner)
        server: Any = self
        timer: Any = clock
        executor = Executor(
            timer, member, self.liveness, self.planner, server, server, world.durations, world.wall
        )
        self.migrating = Migrating(
            timer, member, self.liveness, moves, executor, server, world.wall, world.new_id
        )
        self.requests = Requests(
            timer, member, self.liveness, self.planner, executor, world.wall, self.migrating
        )
        executor.start()
        self.migrating.start()
        member.subscribe(lambda applied: world.applied(self, applied, When.TOLD))

    @property
    def dead(self) -> bool:
        return self.clock.dead

    def apply(self, entry: Entry) -> None:
        command = entry.kind is EntryKind.COMMAND
        self.kind = type(c.decode(entry.data).command).__name__ if command else ""
        self._apply(entry)

    async def propose(self, command: c.AnyCommand, key: str = "", note: Any = None) -> Outcome:
        work = Deferred.fromCoroutine(self._propose(command, key, note))
        self.world.proposed(self, command)
        return await work

    # -- RequestServer and Publisher --

    def publish(self, broadcast: wire.Broadcast) -> None:
        if not self.dead:
            self.told.append(broadcast)

    def silence(self) -> None:
        pass

    def tell(self, peer: str, body: wire.Body) -> bool:
        if not self.dead:
            assert isinstance(body, wire.NodeAssignments | wire.AssignmentChanges)
            self.world.clock.callLater(LATENCY_S, self.world.nodes[peer].orders.obey, body)
        return True

    async def ask(self, peer: str, body: wire.Body, *, timeout_s: float) -> wire.Body:
        return wire.Ok()

    async def survey(self, body: wire.Body, **_: Any) -> dict[str, list[wire.Body]]:
        return {"gateway_1": [wire.Ok()]}


class SimulatedNode(NodeHarness):
    """The real tenants of a node on fakes. :ivar incarnation: 0: not registered yet."""

    def __init__(self, world: PhaseWorld, name: str) -> None:
        super().__init__(world.clock, world.s3, name)
        self.world = world
        self.incarnation = 0
        object.__setattr__(self.parts, "report", self.report)
        warming = Warming(
            node_id=name,
            files=FakeWarmFiles(self.fake.disk),
            claims=self.fake.claims,
            replication=self.fake.replication,
            report=self.report,
        )
        warming.clear()
        object.__setattr__(self.parts, "warm", warming)
        self.orders = Orders(self.tenants, HandingOver(self.parts, self.tenants), warming)

    def live(self) -> None:
        """Register, then renew the lease for ever."""
        body = wire.RegisterNode(self.name, "start", f"http://{self.name}:1", 10)
        self.world.ask(self.name, body, self.registered)

    def registered(self, answer: wire.Body) -> None:
        assert isinstance(answer, wire.Registered)
        self.incarnation = answer.incarnation
        self.tenants.registered(answer.incarnation)
        self.orders.obey(answer.assignments)
        self.renew()

    def renew(self) -> None:
        sent = self.clock.seconds()
        body = wire.Lease(self.name, self.incarnation, self.tenants.obeyed_index)
        for brain in list(self.world.brains.values()):
            self.world.once(brain, self.name, "", body, lambda a: self.acked(sent, a))
        self.clock.callLater(self.world.durations.lease_interval_s, self.renew)

    def acked(self, sent: float, ack: wire.Body) -> None:
        assert isinstance(ack, wire.LeaseAck)
        if ack.assignments is not None:
            self.orders.obey(ack.assignments)
        self.proofs.lease_acked(
            sent, granted=ack.granted, index=ack.assignments_index, not_covered=ack.not_covered
        )

    def report(self, report: wire.TenantReport) -> None:
        rest = (getattr(report, field) for field in report.__struct_fields__[2:])
        self.world.ask(self.name, wire.TenantReport(self.name, self.incarnation, *rest))

    def answers(self, tenant_id: str) -> bool:
        """Whether a write would be let through now."""
        tenant = self.tenants.find(tenant_id)
        return tenant is not None and tenant.upstream(write=True) is not None and tenant.proven()


class PhaseWorld(RaftWorld):
    """See the module. :ivar deaths: how many leaders died, for what follows one."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.durations = Durations()
        self.s3 = FakeS3(self.clock)
        self.brains: dict[str, Brain] = {}
        self.death: Death | None = None
        #: Names of the commands that the members applied since :meth:`watch`, in log order.
        self.entries: list[str] = []
        self.entries_at = 0
        self._numbers = itertools.count(1)
        self.nodes: dict[str, SimulatedNode] = {}
        #: Brains of dead members, kept: what waits in them must not be ended by the collector.
        self.graveyard: list[Brain] = []

    def begin(self) -> None:
        """Members and nodes live, and the nodes are registered."""
        self.start()
        self.leader()
        self.nodes = {name: SimulatedNode(self, name) for name in NODES}
        for node in self.nodes.values():
            node.live()
        self.until(lambda: all(node.incarnation for node in self.nodes.values()))

    def start(self, *members: str) -> None:
        for name in members or self.ids:
            super().start(name)
            self.brains[name] = Brain(self, name)

    def wall(self) -> datetime:
        return AT + timedelta(seconds=self.clock.seconds())

    def new_id(self) -> str:
        return f"migration_{next(self._numbers)}"

    # -- deaths --

    def watch(self, death: Death | None) -> None:
        """From here on entries are noted; ``death`` is to happen."""
        self.entries, self.death = [], death

    def proposed(self, brain: Brain, command: c.AnyCommand) -> None:
        death = self._death_of(brain)
        if death is None or death.when in (When.APPLIED, When.TOLD):
            return
        if death.seen == death.number:
            death.happened = type(command).__name__
            self._die(brain, death)
        death.seen += 1

    def applied(self, brain: Brain, applied: Applied, when: When) -> None:
        if when is When.APPLIED and applied.outcome.index > self.entries_at:
            self.entries_at = applied.outcome.index
            self.entries.append(brain.kind)
        death = self._death_of(brain)
        if death is None or death.when is not when:
            return
        if death.seen == death.number:
            death.happened = brain.kind
            self._die(brain, death)
        death.seen += 1

    def _death_of(self, brain: Brain) -> Death | None:
        alive = not brain.dead and brain.member.is_leader
        return self.death if alive and self.death and not self.death.happened else None

    def _die(self, brain: Brain, death: Death) -> None:
        """Now, or, where its disk is to have it, a moment later."""
        if death.when is not When.SENT:
            self.isolate(brain.name)
        if death.when is not When.STORED:
            brain.clock.dead = True
        self.clock.callLater(DYING_S if death.when is When.STORED else 0.0, self._buried, brain)
        self.clock.callLater(2 * DYING_S, self._over, death)

    def _buried(self, brain: Brain) -> None:
        brain.clock.dead = True
        self.graveyard.append(self.brains.pop(brain.name))
        self.kill(brain.name)

    def _over(self, death: Death) -> None:
        self.heal()
        death.over = True

    def revive(self) -> None:
        """Start the members that died; all are the same then."""
        for name in self.ids:
            if name not in self.members:
                self.start(name)
        self.agree()

    # -- questions --

    def ask(
        self,
        sender: str,
        body: wire.Body,
        answered: Callable[[Any], None] = lambda answer: None,
    ) -> None:
        """Ask members in turn until one answers, with the same idempotency key."""
        key = f"key_{next(self._numbers)}"
        self._repeated(lambda brain: self._asked(brain, sender, key, body), answered)

    def want(
        self, command: Callable[[Brain], c.AnyCommand], answered: Callable[[Any], None]
    ) -> None:
        """An operator's wish at whoever leads, repeated with its key until it is answered.

        :param answered: called with the outcome or with the error that refused it.
        """
        key = f"wish_{next(self._numbers)}"
        made: list[c.AnyCommand] = []

        def propose(brain: Brain) -> Coroutine[Any, Any, Outcome]:
            if not made:
                made.append(command(brain))
            return brain.member.propose(made[0], key)

        self._repeated(propose, answered)

    def wish(self, command: Callable[[Brain], c.AnyCommand]) -> Outcome:
        """As :meth:`want`, waiting for the outcome. :raises PBClusterError: it is refused."""
        found: list[Any] = []
        self.want(command, found.append)
        self.until(lambda: bool(found), SETTLE_S)
        if isinstance(found[0], PBClusterError):
            raise found[0]
        outcome: Outcome = found[0]
        return outcome

    def once(
        self,
        brain: Brain,
        sender: str,
        key: str,
        body: wire.Body,
        answered: Callable[[Any], None],
    ) -> None:
        """One question to one member; errors are no answer."""

        async def asked() -> None:
            try:
                answer = await self._asked(brain, sender, key, body)
            except PBClusterError:
                return
            if not brain.dead:
                answered(answer)

        self.clock.callLater(LATENCY_S, lambda: spawn(asked(), "a question"))

    def _asked(
        self, brain: Brain, sender: str, key: str, body: wire.Body
    ) -> Coroutine[Any, Any, wire.Body]:
        now = self.clock.seconds()

        async def asked() -> wire.Body:
            return await brain.requests(Asked(sender, key, now + 5.0, now), body)

        return asked()

    def _repeated(
        self, ask: Callable[[Brain], Coroutine[Any, Any, Any]], answered: Callable[[Any], None]
    ) -> None:
        over: list[bool] = []

        async def one(brain: Brain) -> None:
            answer: Any
            try:
                answer = await ask(brain)
            except (NotLeader, Unavailable, DeadlineExceeded):
                return
            except PBClusterError as error:
                answer = error
            if not brain.dead and not over:
                over.append(True)
                answered(answer)

        def again() -> None:
            if over:
                return
            for brain in list(self.brains.values()):
                if brain.member.is_leader:
                    spawn(one(brain), "a question that is repeated")
            self.clock.callLater(REPEAT_S, again)

        self.clock.callLater(LATENCY_S, again)

    # -- what must hold --

    def owners(self, tenant_id: str) -> list[str]:
        """The nodes that would let a write through now."""
        return [name for name, node in self.nodes.items() if node.answers(tenant_id)]

    def claim(self, tenant_id: str) -> dict[str, Any]:
        """The owner object in S3."""
        found: dict[str, Any] = json.loads(self.s3.objects[f"tenants/{tenant_id}/owner.json"].body)
        return found

    def until(self, happened: Callable[[], bool], within_s: float = 5.0) -> None:
        def checked() -> bool:
            self.check()
            return happened()

        super().until(checked, within_s)

    def check(self) -> None:
        """:raises AssertionError: two nodes answer for one tenant."""
        for brain in self.brains.values():
            if brain.member.is_leader:
                for tenant in brain.member.registry.tenants():
                    owners = self.owners(tenant.id)
                    if len(owners) > 1:
                        raise AssertionError(f"{owners} answer for {tenant.id}")
