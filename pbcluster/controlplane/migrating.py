"""Carries migrations out: from ``moves``' effects to holds and proposals, from reports to commands.

It decides nothing. The orders to nodes are part of their lists of assignments and go out by
themselves when a command is applied (``executor``); what is left is to ask gateways for the hold,
to turn nodes' reports into commands, and to propose the steps. Every call may be made twice and by
any leader: the registry refuses what is out of date, and a report is answered only after its
command was committed, so that a node repeats it to the next leader.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster import wire
from pbcluster.controlplane import audit
from pbcluster.controlplane import commands as c
from pbcluster.controlplane import migration as m
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.moves import MAX_MOVES, Effect, Moves, Start
from pbcluster.controlplane.planner import Assign
from pbcluster.controlplane.rebalancing import Finish
from pbcluster.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    NotFound,
    PBClusterError,
    Unavailable,
    WrongEpoch,
)
from pbcluster.records import MigrationPhase, MigrationRecord, TenantRecord
from pbcluster.transport.interfaces import RequestServer

#: Steps are looked for so often; none of them is within the pause that clients see.
TICK_S = 0.05
#: What a node may report of a migration.
OUTCOMES = frozenset(("warmed", "warm_failed", "drained", "not_drained"))

log = Logger()


def new_migration_id() -> str:
    """A random id."""
    return "migration_" + secrets.token_hex(8)


class Migrating:
    """The leader's hands for migrations."""

    def __init__(
        self,
        clock: IReactorTime,
        consensus: Consensus,
        liveness: Liveness,
        moves: Moves,
        executor: Executor,
        server: RequestServer,
        wall_clock: Callable[[], datetime] = utc_now,
        new_id: Callable[[], str] = new_migration_id,
    ) -> None:
        self._clock = clock
        self._consensus = consensus
        self._liveness = liveness
        self._moves = moves
        self._executor = executor
        self._server = server
        self._wall_clock = wall_clock
        self._new_id = new_id
        self._loop = LoopingCall(self.tick)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin; the consensus must have started."""
        self._consensus.subscribe_leadership(lambda leads: self._moves.reset())
        self._loop.start(TICK_S, now=True).addErrback(
            lambda failure: log.failure("migrations are not looked after any more", failure)
        )

    def stop(self) -> None:
        """End; what is under way ends by its own deadline."""
        if self._loop.running:
            self._loop.stop()

    # -- what operators want --

    def start_command(self, tenant: TenantRecord, target: str) -> c.StartMigration:
        """What begins to move a tenant.

        :raises Conflict: its target does not answer. :raises Busy: too many move at once.
        """
        registry = self._consensus.registry
        under_way = len(registry.active_migrations())
        if under_way >= MAX_MOVES:
            raise Busy(f"{under_way} tenants are being moved already", retry_after_s=2.0)
        if any(node.id == target for node in registry.nodes()) and not self._liveness.alive(target):
            raise Conflict(f"node {target!r} does not answer", field="targetNode")
        return c.StartMigration(self._wall_clock(), self._new_id(), tenant.id, target, tenant.epoch)

    def abort_command(self, record: MigrationRecord, reason: str) -> c.AbortMigration:
        """What ends a migration. :raises Conflict: it is over."""
        if record.phase not in m.ACTIVE:
            raise Conflict(
                f"the migration is {record.phase.value}: there is nothing to abort",
                phase=record.phase.value,
            )
        return self._abort_of(record, reason)

    def rebalance_command(self, total_moves: int, at_once: int) -> c.StartRebalance:
        """What begins to even the nodes out."""
        rebalance_id = "rebalance_" + secrets.token_hex(8)
        return c.StartRebalance(self._wall_clock(), rebalance_id, total_moves, at_once)

    def rebalance_left(self) -> int:
        """How many moves of the rebalancing are not done, as far as this leader knows."""
        return self._moves.rebalancing.left()

    # -- what nodes report --

    async def reported(self, body: wire.TenantReport) -> None:
        """A node says how far its part of a migration is; returns when that is committed.

        A report that is out of date is of no consequence, and answered all the same.
        """
        record = self._consensus.registry.last_migration(body.tenant_id)
        if record is None or record.id != body.migration_id:
            return
        at_source = body.outcome in ("drained", "not_drained")
        if body.node_id != (record.source_node if at_source else record.target_node):
            return
        command = self._command_of(record, body)
        if command is None:
            return
        try:
            if isinstance(command, c.AbortMigration):
                await self._abort(command)
            else:
                await self._propose(command)
        except (Conflict, WrongEpoch, NotFound) as error:
            log.info("{tenant}: late: {why}", tenant=body.tenant_id, why=error.message)
        except Unavailable as error:
            if error.code != "no_capacity":
                raise
            await self._abort(self._abort_of(record, error.message))

    def _command_of(self, record: MigrationRecord, body: wire.TenantReport) -> c.AnyCommand | None:
        now, tenant_id = self._wall_clock(), record.tenant_id
        if body.outcome == "warmed":
            size, txid = body.size_bytes, body.txid
            return c.MigrationWarmed(now, record.id, tenant_id, size, txid)
        if body.outcome == "drained" and record.phase is MigrationPhase.DRAINING:
            settled = body.settled
            return c.MigrationDrained(now, record.id, tenant_id, body.epoch, body.txid, settled)
        if body.outcome == "drained" or record.phase not in m.BEFORE_SWITCH:
            return None
        return self._abort_of(record, f"{body.node_id}: {body.detail}")

    def _abort_of(self, record: MigrationRecord, reason: str) -> c.AbortMigration:
        return c.AbortMigration(self._wall_clock(), record.id, record.tenant_id, reason)

    async def _abort(self, command: c.AbortMigration) -> None:
        action, tenant_id = "tenant.abort-migration", command.tenant_id
        await self._propose(command, audit.by_itself(action, tenant_id, command.reason))

    async def ready(self, tenant_id: str, epoch: int) -> None:
        """The owner of a tenant serves under ``epoch``: a migration to it is done."""
        record = self._consensus.registry.last_migration(tenant_id)
        switching = record is not None and record.phase is MigrationPhase.SWITCHING
        if record is None or not switching or record.target_epoch != epoch:
            return
        await self._propose(c.MigrationReady(self._wall_clock(), record.id, tenant_id, epoch))

    def heartbeat(self, beat: wire.Heartbeat) -> None:
        """A node's heartbeat may name tenants for which requests still come by the old route."""
        moved = [each.tenant_id for each in beat.tenants if each.state == wire.MOVED]
        self._moves.old_route_used(beat.node_id, moved, self._clock.seconds())

    def leaves(self, node_id: str, incarnation: int) -> None:
        """A node is being stopped: its running tenants go elsewhere.

        :raises NoCapacity: no other node can take any.
        """
        self._moves.leaves(node_id, incarnation)

    # -- what the plan wants --

    def tick(self) -> None:
        """One round."""
        if not self._consensus.is_leader:
            return
        try:
            effects = self._moves.tick(self._clock.seconds())
        except Exception:
            log.failure("planning migrations failed")
            return
        for effect in effects:
            self._run(self._carry_out(effect))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("failed", failure))

    async def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Finish):
            await self._finish(effect)
            return
        failed = True
        try:
            await self._do(effect)
            failed = False
        except PBClusterError as error:
            log.warn("{tenant} does not move: {why}", tenant=effect.tenant_id, why=error.message)
        finally:
            self._moves.ended(effect.tenant_id, self._clock.seconds(), failed=failed)

    async def _finish(self, effect: Finish) -> None:
        command = c.EndRebalance(self._wall_clock(), effect.rebalance_id, effect.reason)
        try:
            why = effect.reason or "the nodes are even"
            note = audit.by_itself("cluster.end-rebalance", effect.rebalance_id, why)
            await self._propose(command, note)
            log.info("rebalancing ended: {why}", why=effect.reason or "the nodes are even")
        except PBClusterError as error:
            log.warn("rebalancing did not end: {why}", why=error.message)

    async def _do(self, effect: Effect) -> None:
        now = self._wall_clock()
        match effect:
            case m.Hold():
                gateways = await self._hold(effect)
                await self._propose(
                    c.DrainTenant(now, effect.migration_id, effect.tenant_id, gateways)
                )
            case m.Abort():
                await self._abort(
                    c.AbortMigration(now, effect.migration_id, effect.tenant_id, effect.reason)
                )
            case m.Retire():
                await self._propose(c.RetireRoute(now, effect.migration_id, effect.tenant_id))
            case Start():
                await self._start(effect)
            case Assign():
                await self._executor.assign(effect)

    async def _start(self, effect: Start) -> None:
        tenant_id, target = effect.tenant_id, effect.target_node
        await self._consensus.propose(
            c.StartMigration(
                self._wall_clock(), self._new_id(), tenant_id, target, effect.expected_epoch
            ),
            "",
            audit.by_itself("tenant.migrate", tenant_id, f"to {target}: {effect.reason}"),
        )
        log.info("{t} moves to {target}: {why}", t=tenant_id, target=target, why=effect.reason)

    async def _hold(self, effect: m.Hold) -> int:
        """Survey the gateways: each holds the tenant before it answers.

        :returns: how many gateways do. One that is silent is not waited for: what it lets through
            waits at the node.
        """
        registry = self._consensus.registry
        nodes = {node.id for node in registry.nodes()}
        gone = {process.id for process in registry.roster.former_processes()}
        order = wire.HoldTenant(effect.tenant_id, effect.epoch, int(m.HOLD_LIMIT_S * 1000))
        answers = await self._server.survey(
            order, timeout_s=m.HOLD_ACK_S, among=lambda peer: peer not in nodes | gone
        )
        return sum(any(isinstance(each, wire.Ok) for each in all_) for all_ in answers.values())

    async def _propose(self, command: c.AnyCommand, note: c.AuditNote | None = None) -> None:
        """Propose until the answer is known, as long as this member leads: each command names its
        migration and is refused when it is out of date, so that a second one does no harm."""
        while True:
            try:
                await self._consensus.propose(command, "", note)
                return
            except DeadlineExceeded:
                if not self._consensus.is_leader:
                    raise
