"""How commands about tenants change the registry. Pure; the invariants are the registry's."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.durability_changes import check_not_degraded, wanted_changes
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry_records import Change, RegistryRecords, ending_of, may_end
from pbcluster.controlplane.transitions import check_tenant
from pbcluster.errors import Conflict, NoCapacity, NotFound, WrongEpoch
from pbcluster.records import NodeStatus, TenantRecord, TenantStatus


def new_tenant(command: c.CreateTenant, index: int = 0) -> TenantRecord:
    """The record of a tenant that is created at log index ``index``; 0: that is to be."""
    return TenantRecord(
        id=command.tenant_id,
        name=command.name,
        domain=command.domain,
        status=TenantStatus.CREATED,
        created=command.at,
        updated=command.at,
        version=index,
        durability=command.durability,
        metadata=command.metadata,
        quotas=command.quotas,
        initial_superuser=command.initial_superuser,
        durable_reads=command.durable_reads,
        on_s3_outage=command.on_s3_outage,
        placement=command.placement,
    )


class TenantChanges(RegistryRecords):
    """One method a command; each raises what refuses it, and has changed nothing then."""

    def _create_tenant(self, index: int, command: c.CreateTenant) -> Change:
        if command.name in self._names:
            raise Conflict(f"the name {command.name!r} is taken", field="name")
        if command.tenant_id in self._tenants:
            raise Conflict(f"the id {command.tenant_id!r} was used before", field="id")
        self._put(new_tenant(command, index))
        if command.node_id:
            first = c.AssignTenant(command.at, command.tenant_id, command.node_id, 0)
            # What refuses it changed nothing: the tenant exists, and is placed later.
            with suppress(NotFound, NoCapacity):
                return self._assign_tenant(index, first)
        return Change(Outcome(index, command.tenant_id))

    def _update_tenant(self, index: int, command: c.UpdateTenant) -> Change:
        tenant = self._living(command.tenant_id)
        self._check_version(tenant, command.expected_version)
        changed: dict[str, Any] = {
            name: value
            for name in ("metadata", "quotas", "custom_domains", "logs", "placement")
            if (value := getattr(command, name)) is not None
        }
        for domain in changed.get("custom_domains", ()):
            self._check_free(domain, tenant)
        changed |= wanted_changes(tenant, command)
        updated = msgspec.structs.replace(tenant, **changed, version=index, updated=command.at)
        self._put(updated)
        if changed.keys() <= {"metadata", "placement"} or not tenant.node_id:
            return Change(Outcome(index, tenant.id), topic="tenant.updated")
        self._touch_node(index, tenant.node_id)
        return Change(
            Outcome(index, tenant.id),
            nodes=(tenant.node_id,),
            topic="tenant.updated",
            # Gateways follow at once: a domain that was removed must not answer any more.
            route=self.route(updated),
        )

    def _rename_tenant(self, index: int, command: c.RenameTenant) -> Change:
        tenant = self._living(command.tenant_id)
        self._check_version(tenant, command.expected_version)
        if command.name != tenant.name and command.name in self._names:
            raise Conflict(f"the name {command.name!r} is taken", field="name")
        renamed = msgspec.structs.replace(
            tenant, name=command.name, domain=command.domain, version=index, updated=command.at
        )
        self._put(renamed)
        if not tenant.node_id:
            return Change(Outcome(index, tenant.id), topic="tenant.updated")
        self._touch_node(index, tenant.node_id)
        return Change(
            Outcome(index, tenant.id),
            nodes=(tenant.node_id,),
            topic="tenant.updated",
            route=self.route(renamed),
        )

    def _check_free(self, domain: str, tenant: TenantRecord) -> None:
        """:raises Conflict: another tenant answers to this host name."""
        own = self._tenants.get(self._names.get(domain.partition(".")[0], ""))
        holder = own if own is not None and own.domain == domain else None
        holder = holder or self._tenants.get(self._domains.get(domain, ""))
        if holder is not None and holder.id != tenant.id:
            told = f"the domain {domain!r} belongs to tenant {holder.name!r}"
            raise Conflict(told, field="customDomains")

    def _assign_tenant(self, index: int, command: c.AssignTenant) -> Change:
        tenant = self.tenant(command.tenant_id)
        ends = bool(may_end(tenant))
        kept = tenant.purge_at is None or command.at < tenant.purge_at
        if not ends or (tenant.status is TenantStatus.DELETED and kept):
            tenant = self._living(command.tenant_id)
        node = self.node(command.node_id)
        if tenant.epoch != command.expected_epoch:
            raise WrongEpoch(
                f"tenant {tenant.name!r} is at epoch {tenant.epoch}, not {command.expected_epoch}"
            )
        check_not_degraded(tenant, command)
        stays = tenant.node_id == node.id and node.status is NodeStatus.DRAINING
        if node.status in (NodeStatus.DRAINING, NodeStatus.DOWN) and not stays:
            raise NoCapacity(f"node {node.id!r} is {node.status.value}")
        taken = self.count_of(node.id) + self.coming(but=tenant.id).get(node.id, 0)
        if tenant.node_id != node.id and taken >= node.capacity and not ends:
            raise NoCapacity(f"node {node.id!r} has its {node.capacity} tenants")
        epoch = max(tenant.epoch, command.above_epoch) + 1
        moved = msgspec.structs.replace(
            tenant, node_id=node.id, epoch=epoch, version=index, updated=command.at
        )
        self._put(moved)
        nodes = tuple(dict.fromkeys(n for n in (tenant.node_id, node.id) if n))
        for changed in nodes:
            self._touch_node(index, changed)
        return Change(
            Outcome(index, tenant.id, epoch, node.incarnation),
            nodes=nodes,
            # What is ended has no route: gateways were told when it began.
            topic="" if ends else "tenant.moved",
            node_id=node.id,
            route=None if ends else self.route(moved),
        )

    def _mark_ready(self, index: int, command: c.MarkReady) -> Change:
        tenant = self._owned(command.tenant_id, command.node_id, command.epoch)
        self._put(
            msgspec.structs.replace(
                tenant,
                ever_ready=True,
                status=TenantStatus.ACTIVE,
                initial_superuser=None,
                version=index,
                updated=command.at,
            )
        )
        return Change(Outcome(index, tenant.id, tenant.epoch))

    def _set_tenant_status(self, index: int, command: c.SetTenantStatus) -> Change:
        tenant = self._living(command.tenant_id)
        if tenant.epoch != command.epoch:
            raise WrongEpoch(f"tenant {tenant.name!r} is at epoch {tenant.epoch}")
        check_tenant(tenant.name, tenant.status, command.status, type(command).__name__)
        self._put(
            msgspec.structs.replace(
                tenant, status=command.status, version=index, updated=command.at
            )
        )
        return Change(Outcome(index, tenant.id, tenant.epoch))

    def _tenant_released(self, index: int, command: c.TenantReleased) -> Change:
        tenant = self.tenant(command.tenant_id)
        if not tenant.node_id or (tenant.node_id, tenant.epoch) != (command.node_id, command.epoch):
            raise WrongEpoch(f"tenant {tenant.name!r} is at epoch {tenant.epoch}")
        if ending_of(tenant):
            raise WrongEpoch(f"tenant {tenant.name!r} is {tenant.status.value}")
        self._put(msgspec.structs.replace(tenant, node_id="", version=index, updated=command.at))
        self._touch_node(index, command.node_id)
        return Change(Outcome(index, tenant.id, tenant.epoch), nodes=(command.node_id,))
