"""How commands about migrations and drains change the registry. Pure.

Invariants beside the registry's: a tenant has at most one migration under way, and while it has
one before its switch, it belongs to the source under ``source_epoch``; between switch and end it
belongs to the target. Whatever else changes the owner (a rescue, a deletion, an archiving) ends the
migration within the same log entry: :meth:`MigrationChanges._settle`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane import migration as m
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry_records import LIVING, Change, RegistryRecords
from pbcluster.errors import Conflict, InvalidInput, NoCapacity, NotFound, WrongEpoch
from pbcluster.records import (
    MigrationPhase,
    MigrationRecord,
    NodeRecord,
    NodeStatus,
    TenantRecord,
    TenantStatus,
)


class MigrationChanges(RegistryRecords):
    """One method a command; each raises what refuses it, and has changed nothing then."""

    # -- reading --

    def migration(self, tenant_id: str) -> MigrationRecord:
        """The tenant's last migration. :raises NotFound: it never had one."""
        record = self._migrations.get(tenant_id)
        if record is None:
            raise NotFound(f"tenant {tenant_id!r} was never migrated")
        return record

    def last_migration(self, tenant_id: str) -> MigrationRecord | None:
        """As :meth:`migration`; None: it never had one."""
        return self._migrations.get(tenant_id)

    def migrations(self) -> Iterator[MigrationRecord]:
        """The last migration of each tenant that had one."""
        return iter(self._migrations.values())

    def active_migrations(self) -> list[MigrationRecord]:
        """Those under way."""
        return [self._migrations[tenant_id] for tenant_id in self._active_migrations]

    def old_routes(self) -> list[MigrationRecord]:
        """Those that are done, and whose old route is kept until nobody uses it."""
        return [self._migrations[tenant_id] for tenant_id in self._old_routes]

    def open_migrations(self) -> list[MigrationRecord]:
        """Those of which something is still to be done."""
        return self.active_migrations() + self.old_routes()

    # -- commands --

    def _start_migration(self, index: int, command: c.StartMigration) -> Change:
        tenant = self._living(command.tenant_id)
        known = self._migrations.get(tenant.id)
        if known is not None and known.id == command.migration_id:
            return Change(Outcome(index, tenant.id, tenant.epoch))
        if tenant.epoch != command.expected_epoch:
            raise WrongEpoch(
                f"tenant {tenant.name!r} is at epoch {tenant.epoch}, not {command.expected_epoch}"
            )
        self._check_movable(tenant, known)
        target = self._target(tenant, command.target_node)
        record = m.begun(command, index, tenant.node_id, tenant.epoch)
        self._put_migration(record)
        self._touch_node(index, target.id)
        return Change(
            Outcome(index, tenant.id, tenant.epoch),
            nodes=(target.id,),
            topic="tenant.migrating",
            node_id=target.id,
        )

    def _check_movable(self, tenant: TenantRecord, known: MigrationRecord | None) -> None:
        """:raises Conflict: why the tenant cannot be moved."""
        if known is not None and known.phase in m.ACTIVE:
            raise Conflict(
                f"tenant {tenant.name!r} is being migrated to {known.target_node} already: it is "
                f"{known.phase.value}",
                phase=known.phase.value,
                targetNode=known.target_node,
            )
        if not tenant.node_id:
            raise Conflict(f"tenant {tenant.name!r} has no node to be moved from")
        if not tenant.ever_ready:
            raise Conflict(f"tenant {tenant.name!r} was never ready: there is nothing to move yet")
        if tenant.degraded:
            raise Conflict(
                f"tenant {tenant.name!r} is degraded: acknowledged writes are on its node only, "
                "until S3 is back"
            )

    def _target(self, tenant: TenantRecord, node_id: str) -> NodeRecord:
        """:raises InvalidInput: no such node. :raises Conflict: it may not have the tenant."""
        node = self._nodes.get(node_id)
        if node is None:
            raise UnusableTarget(f"no node {node_id!r}")
        if node.id == tenant.node_id:
            raise Conflict(f"tenant {tenant.name!r} is on {node.id} already", field="targetNode")
        if node.status is not NodeStatus.HEALTHY:
            raise Conflict(f"node {node.id!r} is {node.status.value}", field="targetNode")
        if self.count_of(node.id) + self.coming().get(node.id, 0) >= node.capacity:
            raise Conflict(
                f"node {node.id!r} is full: it has its {node.capacity} tenants",
                field="targetNode",
            )
        return node

    def _migration_warmed(self, index: int, command: c.MigrationWarmed) -> Change:
        record = self._open(command.tenant_id, command.migration_id)
        if record.warmed:
            return self._unchanged(index, record)
        return self._kept(index, m.warmed(record, index, command), ())

    def _drain_tenant(self, index: int, command: c.DrainTenant) -> Change:
        record = self._open(command.tenant_id, command.migration_id)
        if record.phase is MigrationPhase.DRAINING:
            return self._unchanged(index, record)
        return self._kept(index, m.held(record, index, command), (record.source_node,))

    def _migration_drained(self, index: int, command: c.MigrationDrained) -> Change:
        record = self._open(command.tenant_id, command.migration_id)
        tenant = self._living(command.tenant_id)
        if tenant.epoch != command.epoch:
            raise WrongEpoch(f"tenant {tenant.name!r} is at epoch {tenant.epoch}")
        epoch = tenant.epoch + 1
        switched = m.drained(record, index, command, epoch)
        target = self.node(record.target_node)
        if target.status is not NodeStatus.HEALTHY:
            raise NoCapacity(f"the target {target.id} is {target.status.value}")
        moved = msgspec.structs.replace(
            tenant, node_id=target.id, epoch=epoch, version=index, updated=command.at
        )
        self._put(moved)
        if tenant.status is TenantStatus.IDLE:
            # Nothing is started before a request comes: nobody will report it ready.
            switched = m.ready(switched, index, command.at)
        self._put_migration(switched)
        for node_id in (record.source_node, target.id):
            self._touch_node(index, node_id)
        return Change(
            Outcome(index, tenant.id, epoch, target.incarnation),
            nodes=(record.source_node, target.id),
            topic="tenant.moved",
            node_id=target.id,
            route=self.route(moved),
        )

    def _migration_ready(self, index: int, command: c.MigrationReady) -> Change:
        record = self._open(command.tenant_id, command.migration_id)
        if record.phase is MigrationPhase.DONE:
            return self._unchanged(index, record)
        if record.target_epoch != command.epoch:
            raise WrongEpoch(f"the target's epoch is {record.target_epoch}")
        return self._kept(index, m.ready(record, index, command.at), (record.target_node,))

    def _abort_migration(self, index: int, command: c.AbortMigration) -> Change:
        record = self._open(command.tenant_id, command.migration_id)
        ended = m.aborted(record, index, command.at, command.reason)
        return self._ended(index, record, ended)

    def _retire_route(self, index: int, command: c.RetireRoute) -> Change:
        record = self._open(command.tenant_id, command.migration_id)
        if record.phase is not MigrationPhase.DONE:
            raise Conflict(f"migration {record.id} is {record.phase.value}")
        retired = msgspec.structs.replace(record, old_route=False, version=index)
        return self._kept(index, retired, ())

    def _drain_node(self, index: int, command: c.DrainNode) -> Change:
        node = self.node(command.node_id)
        if node.drain_wanted == command.wanted:
            return Change(Outcome(index, incarnation=node.incarnation))
        status = node.status
        if status is not NodeStatus.DOWN:
            status = NodeStatus.DRAINING if command.wanted else NodeStatus.HEALTHY
        self._nodes[node.id] = msgspec.structs.replace(
            node, drain_wanted=command.wanted, status=status, version=index
        )
        return Change(
            Outcome(index, incarnation=node.incarnation),
            topic="node.draining" if command.wanted else "node.up",
            node_id=node.id,
        )

    # -- storing --

    def _open(self, tenant_id: str, migration_id: str) -> MigrationRecord:
        """:raises Conflict: another migration of this tenant, or none, is the last one."""
        record = self._migrations.get(tenant_id)
        if record is None or record.id != migration_id:
            raise Conflict(f"migration {migration_id!r} is not the tenant's last one")
        return record

    @staticmethod
    def _unchanged(index: int, record: MigrationRecord) -> Change:
        return Change(Outcome(index, record.tenant_id))

    def _kept(self, index: int, record: MigrationRecord, nodes: tuple[str, ...]) -> Change:
        self._put_migration(record)
        for node_id in nodes:
            self._touch_node(index, node_id)
        return Change(Outcome(index, record.tenant_id), nodes=nodes)

    def _put_migration(self, record: MigrationRecord) -> None:
        tenant_id = record.tenant_id
        self._migrations[tenant_id] = record
        self._assignments.pop(tenant_id, None)
        tenant = self._tenants.get(tenant_id)
        if tenant is not None and tenant.node_id:
            self.touched.note(tenant.node_id, tenant_id)
        for kept, belongs in (
            (self._active_migrations, record.phase in m.ACTIVE),
            (self._old_routes, record.phase not in m.ACTIVE and record.old_route),
        ):
            if belongs:
                kept[tenant_id] = None
            else:
                kept.pop(tenant_id, None)

    def _ended(self, index: int, before: MigrationRecord, ended: MigrationRecord) -> Change:
        """An abort: orders end; before the switch, gateways are told that the route is right."""
        nodes: tuple[str, ...] = (before.target_node,)
        route: wire.Route | None = None
        if before.phase in m.BEFORE_SWITCH:
            nodes = (before.source_node, before.target_node)
            tenant = self._tenants[before.tenant_id]
            if tenant.status in LIVING and tenant.node_id:
                route = self.route(tenant)
        change = self._kept(index, ended, nodes)
        topic = "tenant.updated" if route is not None else ""
        return Change(change.outcome, nodes=nodes, topic=topic, route=route)

    def _settle(self, index: int, tenant_id: str, at: datetime, change: Change) -> Change:
        """After a command about this tenant: end or follow its migration if its owner changed.

        :returns: the command's change, with what ending the migration adds.
        """
        record = self._migrations.get(tenant_id)
        if record is None:
            return change
        tenant = self._tenants[tenant_id]
        if tenant.status is TenantStatus.DELETED:
            del self._migrations[tenant_id]
            self._active_migrations.pop(tenant_id, None)
            self._old_routes.pop(tenant_id, None)
        if record.phase not in m.ACTIVE:
            return change
        switching = record.phase is MigrationPhase.SWITCHING
        owner = record.target_node if switching else record.source_node
        epoch = record.target_epoch if switching else record.source_epoch
        if tenant.status in LIVING and (tenant.node_id, tenant.epoch) == (owner, epoch):
            return change
        if switching and tenant.status in LIVING and tenant.node_id == owner:
            # Its target needed another epoch.
            followed = msgspec.structs.replace(record, target_epoch=tenant.epoch, version=index)
            self._put_migration(followed)
            return change
        if tenant.status is TenantStatus.DELETED:
            return self._with_nodes(index, change, record.target_node)
        where = f"{tenant.node_id or 'no node'} has it under epoch {tenant.epoch}"
        told = where if tenant.status in LIVING else f"the tenant is {tenant.status.value}"
        self._put_migration(m.aborted(record, index, at, f"overtaken: {told}"))
        return self._with_nodes(index, change, record.target_node)

    def _with_nodes(self, index: int, change: Change, node_id: str) -> Change:
        if node_id in change.nodes:
            return change
        self._touch_node(index, node_id)
        return Change(
            change.outcome, (*change.nodes, node_id), change.topic, change.node_id, change.route
        )


class UnusableTarget(InvalidInput):
    """The migration's target does not exist."""

    status = 422
    code = "no_such_target"

    def __init__(self, message: str) -> None:
        super().__init__(message, field="targetNode", allowed="the id of a healthy node")
