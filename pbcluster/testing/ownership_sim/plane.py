"""The control plane: production registry, liveness, planner, executor and requests on a log that
is simulated, so that leadership comes and goes and commits take their time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.commands import AuditNote
from pbcluster.controlplane.executor import Executor
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.moves import Moves
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.controlplane.requests import Requests
from pbcluster.durations import Durations
from pbcluster.errors import NotLeader
from pbcluster.node.parts import pause
from pbcluster.records import Durability, InitialSuperuser, MemberRecord
from pbcluster.testing.ownership_sim.network import Network

BASE_DOMAIN = "example.test"
NODE_DOWN_AFTER_S = 15.0
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def wall_clock() -> datetime:
    """What stands in records for people; nothing is decided by it."""
    return _EPOCH


class SimConsensus:
    """``Consensus``: one log that every leader shares.

    :ivar registry: applied state. :ivar is_leader: False during an election.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self.registry = Registry(BASE_DOMAIN)
        self.is_leader = True
        self.leader_endpoint = ""
        self.votes = True
        self.terms = 1
        self._clock = clock
        self._random = random
        self._applied: list[Callable[[Applied], None]] = []
        self._leadership: list[Callable[[bool], None]] = []
        self._proposed: list[Deferred[Outcome]] = []

    def members(self) -> tuple[MemberRecord, ...]:
        """See ``Consensus``."""
        return ()

    async def start(self) -> None:
        """See ``Consensus``."""

    async def stop(self) -> None:
        """See ``Consensus``."""

    async def leader_known(self, timeout_s: float) -> None:
        """See ``Consensus``."""
        until = self._clock.seconds() + timeout_s
        while not self.is_leader and self._clock.seconds() < until:
            await pause(self._clock, 0.05)

    def _quorum_round(self) -> float:
        usual: float = self._random.choice((0.002, 0.005, 0.02, 0.3))
        return usual * (0.5 + self._random.random())

    async def propose(
        self, command: c.AnyCommand, key: str = "", note: AuditNote | None = None
    ) -> Outcome:
        """See ``Consensus``. What was proposed to a leader that fell may be committed yet."""
        if not self.is_leader:
            raise NotLeader("an election is under way")
        waiting: Deferred[Outcome] = Deferred()
        self._proposed.append(waiting)
        self._clock.callLater(self._quorum_round(), self._commit, self.terms, command, key, waiting)
        outcome = await waiting
        if outcome.error is not None:
            raise outcome.error.exception()
        return outcome

    def _commit(
        self, term: int, command: c.AnyCommand, key: str, waiting: Deferred[Outcome]
    ) -> None:
        if term != self.terms and self._random.random() < 0.5:
            return  # the next leader did not have it
        applied = self.registry.apply(self.registry.applied_index + 1, c.Keyed(key, command))
        for callback in self._applied:
            callback(applied)
        if not waiting.called:
            self._proposed.remove(waiting)
            waiting.callback(applied.outcome)

    async def read_barrier(self, *, patient: bool = False) -> None:
        """See ``Consensus``."""
        term = self.terms
        if self.is_leader:
            await pause(self._clock, self._quorum_round())
        if not self.is_leader or term != self.terms:
            raise NotLeader("an election is under way")

    def subscribe(self, callback: Callable[[Applied], None]) -> None:
        """See ``Consensus``."""
        self._applied.append(callback)

    def subscribe_leadership(self, callback: Callable[[bool], None]) -> None:
        """See ``Consensus``."""
        self._leadership.append(callback)

    # -- what the world does to it --

    def fall(self) -> None:
        """The leader is no more; what waits for an answer gets none."""
        if not self.is_leader:
            return
        self.is_leader, self.terms = False, self.terms + 1
        waiting, self._proposed = self._proposed, []
        for each in waiting:
            each.errback(NotLeader("this member leads no more"))
        for callback in self._leadership:
            callback(False)

    def rise(self) -> None:
        """Another one leads, with all that was committed."""
        if not self.is_leader:
            self.is_leader, self.terms = True, self.terms + 1
            for callback in self._leadership:
                callback(True)


class _Publisher:
    """``Publisher`` without subscribers: broadcasts are hints, and nothing here needs one."""

    endpoint = ""

    def start(self) -> None:
        """See ``Publisher``."""

    def publish(self, broadcast: wire.Broadcast) -> None:
        """See ``Publisher``."""

    def silence(self) -> None:
        """See ``Publisher``."""

    def stop(self) -> None:
        """See ``Publisher``."""


class Plane:
    """The leader's parts, put together as ``controlplane.service`` does it."""

    def __init__(
        self, clock: Clock, random: Random, network: Network, durations: Durations
    ) -> None:
        self.clock = clock
        self.consensus = SimConsensus(clock, random)
        self.liveness = Liveness(durations, clock.seconds())
        self.planner = Planner(
            lambda: self.registry, self.liveness, node_down_after_s=NODE_DOWN_AFTER_S
        )
        self.executor = Executor(
            clock,
            self.consensus,
            self.liveness,
            self.planner,
            cast(Any, network),
            _Publisher(),
            durations,
            wall_clock,
        )
        moves = Moves(lambda: self.registry, self.liveness, self.planner)
        self.requests = Requests(
            clock,
            self.consensus,
            self.liveness,
            self.planner,
            self.executor,
            wall_clock,
            Migrating(
                clock,
                self.consensus,
                self.liveness,
                moves,
                self.executor,
                cast(Any, network),
                wall_clock,
            ),
        )
        network.member(self.requests)
        self.executor.start()

    @property
    def registry(self) -> Registry:
        """Applied state."""
        return self.consensus.registry

    def create(self, tenant_id: str, name: str, durability: Durability, epoch: int) -> None:
        """An operator creates a tenant; at once, since it is before everything else.

        :param epoch: its first assignment gets the next one.
        """
        command = c.CreateTenant(
            wall_clock(),
            tenant_id,
            name,
            f"{name}.{BASE_DOMAIN}",
            durability,
            initial_superuser=InitialSuperuser(email="me@example.com", password_hash="x"),
        )
        self.registry.apply(self.registry.applied_index + 1, c.Keyed("", command))
        self.registry._put(msgspec.structs.replace(self.registry.tenant(tenant_id), epoch=epoch))
