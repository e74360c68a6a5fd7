"""How tenants are archived, woken, deleted and purged: rule 7.10 in the registry. Pure.

An end is ordered from a node under an epoch of its own, and done only when that node reports it:

    living --archive--> archiving --ended--> archived --activate--> idle
    living, archived --delete--> deleting --ended--> deleted --(retention) ended--> purged

While *archiving* or *deleting* the tenant has no route. Its node stops it with a last sync, claims
the new epoch with the terminal state, removes its copy, and reports. If the node dies, the planner
orders another one, under a newer epoch. A tenant that never had a node has nothing in S3: it ends
at once. A deleted tenant's record stays as a tombstone; its objects go after ``purge_at``, ordered
the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heappop

import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry_records import (
    LIVING,
    Change,
    RegistryRecords,
    ending_of,
    may_end,
)
from pbcluster.errors import Conflict, WrongEpoch
from pbcluster.records import TenantRecord, TenantStatus


class TenantEnds(RegistryRecords):
    """One method a command; each raises what refuses it, and has changed nothing then."""

    def to_end(self, wall: datetime | None) -> Iterator[TenantRecord]:
        """Tenants whose end no node is ordered to carry out, though it is time.

        :param wall: the time at which a purge is due or not; None: none is.
        """
        while wall is not None and self._purges and self._purges[0][0] <= wall:
            at, tenant_id = heappop(self._purges)
            tenant = self._tenants[tenant_id]
            if may_end(tenant) == "purged" and not tenant.node_id and tenant.purge_at == at:
                self._without_node[tenant_id] = None
        for tenant_id in list(self._without_node):
            tenant = self._tenants[tenant_id]
            if tenant.status is TenantStatus.DELETED:
                due = tenant.purge_at is not None and wall is not None and tenant.purge_at <= wall
                if not due:
                    continue
            yield tenant

    def ending_count(self) -> int:
        """How many ends nodes are carrying out now."""
        return len(self._ending)

    def _archive_tenant(self, index: int, command: c.ArchiveTenant) -> Change:
        tenant = self.tenant(command.tenant_id)
        if tenant.status in (TenantStatus.ARCHIVING, TenantStatus.ARCHIVED):
            return Change(Outcome(index, tenant.id, tenant.epoch))
        tenant = self._living(command.tenant_id)
        self._check_version(tenant, command.expected_version)
        if tenant.degraded:
            raise Conflict(
                f"tenant {tenant.name!r} is degraded: node {tenant.node_id} has writes of it that "
                "are not in S3 yet; archive it when S3 has caught up"
            )
        done = TenantStatus.ARCHIVED if not tenant.epoch else TenantStatus.ARCHIVING
        return self._begin_end(index, command.at, msgspec.structs.replace(tenant, status=done))

    def _activate_tenant(self, index: int, command: c.ActivateTenant) -> Change:
        tenant = self.tenant(command.tenant_id)
        if tenant.status in LIVING:
            return Change(Outcome(index, tenant.id, tenant.epoch))
        if tenant.status is not TenantStatus.ARCHIVED:
            raise Conflict(f"tenant {tenant.name!r} is {tenant.status.value}, not archived")
        self._check_version(tenant, command.expected_version)
        status = TenantStatus.IDLE if tenant.ever_ready else TenantStatus.CREATED
        awake = msgspec.structs.replace(tenant, status=status, version=index, updated=command.at)
        self._put(awake)
        return Change(Outcome(index, tenant.id, tenant.epoch), topic="tenant.updated")

    def _delete_tenant(self, index: int, command: c.DeleteTenant) -> Change:
        tenant = self.tenant(command.tenant_id)
        purge_at = command.at + timedelta(seconds=command.keep_s)
        if tenant.status in (TenantStatus.DELETING, TenantStatus.DELETED):
            return self._purge_earlier(index, tenant, purge_at)
        self._check_version(tenant, command.expected_version)
        never = not tenant.epoch
        ended = msgspec.structs.replace(
            tenant,
            status=TenantStatus.DELETED if never else TenantStatus.DELETING,
            initial_superuser=None,
            purge_at=purge_at,
            purged=never,
        )
        return self._begin_end(index, command.at, ended, topic="tenant.deleted")

    def _purge_earlier(self, index: int, tenant: TenantRecord, purge_at: datetime) -> Change:
        """A repeated deletion may bring the removal of the objects nearer, never put it off."""
        if not tenant.purged and (tenant.purge_at is None or purge_at < tenant.purge_at):
            sooner = msgspec.structs.replace(tenant, purge_at=purge_at, version=index)
            self._put(sooner)
        return Change(Outcome(index, tenant.id, tenant.epoch))

    def _begin_end(
        self, index: int, at: datetime, tenant: TenantRecord, topic: str = "tenant.updated"
    ) -> Change:
        """Order it from the node that has the tenant, if one does; else the planner will."""
        nodes = (tenant.node_id,) if tenant.node_id else ()
        epoch = tenant.epoch + len(nodes)
        self._put(msgspec.structs.replace(tenant, epoch=epoch, version=index, updated=at))
        for node_id in nodes:
            self._touch_node(index, node_id)
        return Change(Outcome(index, tenant.id, epoch), nodes=nodes, topic=topic)

    def _tenant_ended(self, index: int, command: c.TenantEnded) -> Change:
        tenant = self.tenant(command.tenant_id)
        ending = ending_of(tenant)
        if not ending or (tenant.node_id, tenant.epoch) != (command.node_id, command.epoch):
            raise WrongEpoch(f"tenant {tenant.name!r} is at epoch {tenant.epoch}")
        status = {"archived": TenantStatus.ARCHIVED}.get(ending, TenantStatus.DELETED)
        ended = msgspec.structs.replace(
            tenant,
            status=status,
            node_id="",
            purged=tenant.purged or ending == "purged",
            version=index,
            updated=command.at,
        )
        self._put(ended)
        self._touch_node(index, command.node_id)
        return Change(Outcome(index, tenant.id, tenant.epoch), nodes=(command.node_id,))
