"""What nodes say of the tenants that are assigned to them, turned into commands.

What holds:

* A report counts only from the present process of the tenant's present owner, under its present
  epoch; a late one was true then and changes nothing.
* A report is answered well only when what follows from it is committed: told too early and followed
  by a crash it would be lost, since its node forgets it then.
* Migrations have outcomes of their own (``migrating``).

It places no tenant by itself: the planner says where. Soft knowledge for operators is kept here,
and lost with the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.executor import Executor
from pbcluster.controlplane.incarnations import check_incarnation
from pbcluster.controlplane.migrating import OUTCOMES, Migrating
from pbcluster.controlplane.planner import Planner
from pbcluster.errors import (
    Conflict,
    InvalidInput,
    RemoteProtocolError,
    Unavailable,
    WrongEpoch,
)
from pbcluster.records import TenantRecord, TenantStatus
from pbcluster.transport.interfaces import Asked

#: 19 digits less a margin: no node may drive an epoch to where it cannot grow any more.
MAX_OBSERVED_EPOCH = 10**15

log = Logger()

#: Carries one outcome out: idempotency key, the tenant, the report.
_Handler = Callable[[str, TenantRecord, wire.TenantReport], Awaitable[None]]


class TenantReports:
    """See the module.

    :ivar failures: tenant id → what its node said when it failed: one line, until it is well.
    :ivar stranded: degraded tenants whose owner cannot go on under its epoch → that epoch.
    """

    def __init__(
        self,
        clock: IReactorTime,
        consensus: Consensus,
        planner: Planner,
        executor: Executor,
        wall_clock: Callable[[], datetime],
        *,
        migrating: Migrating | None,
    ) -> None:
        self.failures: dict[str, str] = {}
        self.stranded: dict[str, int] = {}
        self._clock = clock
        self._consensus = consensus
        self._planner = planner
        self._executor = executor
        self._wall_clock = wall_clock
        self._migrating = migrating
        self._outcomes: dict[str, _Handler] = {
            "ready": self._ready,
            "refused": self._refused,
            "failed": self._failed,
            "released": self._released,
            "stopped": self._stopped,
            "ended": self._ended,
            "deleted": self._deleted,
            "settled": self._settled,
            "restored": self._restored,
        }

    async def report(self, asked: Asked, body: wire.TenantReport) -> wire.Body:
        """Answer what became of an assignment.

        :raises Unavailable: it must be told again. :raises InvalidInput: a number out of range.
        :raises RemoteProtocolError: an outcome that is unknown.
        """
        try:
            check_incarnation(self._consensus.registry, body.node_id, body.incarnation)
        except WrongEpoch as error:
            # Not the report is wrong but the standing: it must be told again, not thrown away.
            told = f"{error.message}: register, then repeat"
            raise Unavailable(told, retry_after_s=0.2) from None
        if body.outcome in OUTCOMES and self._migrating is not None:
            await self._migrating.reported(body)
            return wire.Ok()
        tenant = self._consensus.registry.tenant(body.tenant_id)
        if (tenant.node_id, tenant.epoch) != (body.node_id, body.epoch):
            # Late, from before a take-over: true then, of no consequence now.
            return wire.Ok()
        if not 0 <= body.observed_epoch <= MAX_OBSERVED_EPOCH:
            raise InvalidInput(
                f"observed_epoch {body.observed_epoch} is not allowed: 0 to {MAX_OBSERVED_EPOCH}",
                field="observed_epoch",
                allowed=f"0 to {MAX_OBSERVED_EPOCH}",
            )
        handler = self._outcomes.get(body.outcome)
        if handler is None:
            known = ", ".join((*self._outcomes, *sorted(OUTCOMES)))
            raise RemoteProtocolError(f"outcome {body.outcome!r} is unknown; known are: {known}")
        await handler(asked.idempotency_key, tenant, body)
        return wire.Ok()

    async def _ready(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures.pop(tenant.id, None)
        if self._migrating is not None:
            await self._migrating.ready(tenant.id, body.epoch)
        if tenant.ever_ready and tenant.status is TenantStatus.ACTIVE:
            return
        command = c.MarkReady(self._wall_clock(), tenant.id, body.node_id, body.epoch)
        await self._consensus.propose(command, key)

    async def _refused(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        if tenant.degraded and self.stranded.get(tenant.id) != tenant.epoch:
            self.stranded[tenant.id] = tenant.epoch
            log.critical(
                "{tenant} is degraded and its owner {node} cannot go on: {detail}; "
                "only an operator gives it away (pbcluster tenants give-away)",
                tenant=tenant.id,
                node=body.node_id,
                detail=body.detail,
            )
        effect = self._planner.replace_epoch(tenant, body.observed_epoch, self._clock.seconds())
        log.warn(
            "{node} cannot own {tenant} under epoch {epoch}: {detail}",
            node=body.node_id,
            tenant=tenant.id,
            epoch=body.epoch,
            detail=body.detail,
        )
        self.stranded.pop(tenant.id, None)
        if effect is None:
            # Done only when a new epoch is committed: told too early and followed by a crash, it
            # would leave a tenant that nobody brings up again.
            raise Unavailable(f"tenant {tenant.name!r} is being placed", retry_after_s=0.2)
        try:
            await self._executor.assign(effect)
        except (Conflict, WrongEpoch) as error:
            # Something else was committed first. Whether the report still matters shows when it
            # comes again; a refusal would make the node forget it.
            raise Unavailable(error.message, retry_after_s=0.2) from None

    async def _failed(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures[tenant.id] = body.detail[:500]

    async def _released(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures.pop(tenant.id, None)
        command = c.TenantReleased(self._wall_clock(), tenant.id, body.node_id, body.epoch)
        await self._consensus.propose(command, key)

    async def _ended(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures.pop(tenant.id, None)
        command = c.TenantEnded(self._wall_clock(), tenant.id, body.node_id, body.epoch)
        await self._consensus.propose(command, key)

    async def _deleted(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        """After a recovery the registry may be older than a deletion: it is made again."""
        log.warn("{tenant} is deleted, says S3: {detail}", tenant=tenant.id, detail=body.detail)
        await self._consensus.propose(c.DeleteTenant(self._wall_clock(), tenant.id), key)

    async def _stopped(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        if tenant.status is TenantStatus.IDLE:
            return
        at = self._wall_clock()
        command = c.SetTenantStatus(at, tenant.id, body.epoch, TenantStatus.IDLE)
        await self._consensus.propose(command, key)

    async def _settled(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        if tenant.wanted_durability is None or tenant.wanted_durability.value != body.detail:
            return  # an operator has changed its mind
        wanted = tenant.wanted_durability
        at = self._wall_clock()
        command = c.SettleDurability(at, tenant.id, body.node_id, body.epoch, wanted)
        await self._consensus.propose(command, key)

    async def _restored(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        effect = self._planner.renew(tenant, self._clock.seconds())
        if effect is None:
            raise Unavailable(f"tenant {tenant.name!r} is being placed", retry_after_s=0.2)
        await self._executor.assign(effect)

    async def set_degraded(self, asked: Asked, body: wire.SetDegraded) -> wire.Body:
        """Commit that a tenant's writes are acknowledged by its node's disk, or no more.

        :raises PBClusterError: it is not committed, or not known to be.
        """
        check_incarnation(self._consensus.registry, body.node_id, body.incarnation)
        command = c.SetDegraded(
            self._wall_clock(),
            body.tenant_id,
            body.node_id,
            body.epoch,
            body.incarnation,
            body.degraded,
        )
        await self._consensus.propose(command, asked.idempotency_key)
        if body.degraded:
            log.critical(
                "{tenant} is degraded: {node} acknowledges writes that only its disk has",
                tenant=body.tenant_id,
                node=body.node_id,
            )
        else:
            log.info("{tenant} is degraded no more: all is in S3", tenant=body.tenant_id)
        return wire.Ok()
