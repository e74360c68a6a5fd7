"""How commands about a tenant's durability change the registry. Pure.

What holds: a degraded tenant's node and epoch never change by a decision of the control plane's own
(:func:`check_not_degraded`, asked where assignments are applied, so that a decision made just
before the flag was committed is refused). The flag goes when its owner says that S3 has everything,
or when an operator accepts the loss.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry_records import Change, RegistryRecords
from pbcluster.errors import Conflict, WrongEpoch
from pbcluster.records import Durability, TenantRecord, TenantStatus


def check_not_degraded(tenant: TenantRecord, command: c.AssignTenant) -> None:
    """:raises Conflict: the assignment would lose acknowledged writes."""
    keeps = command.keeps_data and command.node_id == tenant.node_id
    if tenant.degraded and not keeps:
        raise Conflict(
            f"tenant {tenant.name!r} is degraded: node {tenant.node_id!r} acknowledged writes that "
            "are on its disk only; an operator must give it away"
        )


def wanted_changes(tenant: TenantRecord, command: c.UpdateTenant) -> dict[str, Any]:
    """The fields of the record that an operator's wish about durability changes."""
    changed: dict[str, Any] = {}
    if command.durable_reads is not None:
        changed["durable_reads"] = command.durable_reads
    if command.on_s3_outage is not None:
        changed["on_s3_outage"] = command.on_s3_outage
    if command.durability is not None:
        # What a sync tenant that rests acknowledged is in S3 already.
        rests = tenant.status is not TenantStatus.ACTIVE and tenant.durability is Durability.SYNC
        at_once = not tenant.node_id or rests or command.durability is tenant.durability
        changed["wanted_durability"] = None if at_once else command.durability
        if at_once:
            changed["durability"] = command.durability
    return changed


class DurabilityChanges(RegistryRecords):
    """One method a command; each raises what refuses it, and has changed nothing then."""

    def _set_degraded(self, index: int, command: c.SetDegraded) -> Change:
        tenant = self._owned(command.tenant_id, command.node_id, command.epoch)
        if self.node(command.node_id).incarnation != command.incarnation:
            raise WrongEpoch(f"node {command.node_id!r} was started again")
        return self._durability(index, command, tenant, degraded=command.degraded)

    def _settle_durability(self, index: int, command: c.SettleDurability) -> Change:
        tenant = self._owned(command.tenant_id, command.node_id, command.epoch)
        if tenant.wanted_durability is not command.durability:
            raise Conflict(f"{command.durability.value} is not wanted of {tenant.name!r} any more")
        return self._durability(
            index, command, tenant, durability=command.durability, wanted_durability=None
        )

    def _give_away(self, index: int, command: c.GiveAway) -> Change:
        tenant = self._living(command.tenant_id)
        if tenant.epoch != command.epoch:
            raise WrongEpoch(f"tenant {tenant.name!r} is at epoch {tenant.epoch}")
        return self._durability(index, command, tenant, degraded=False)

    def _durability(
        self,
        index: int,
        command: c.SetDegraded | c.SettleDurability | c.GiveAway,
        tenant: TenantRecord,
        **changed: Any,
    ) -> Change:
        outcome = Outcome(index, tenant.id, tenant.epoch)
        if all(getattr(tenant, name) == value for name, value in changed.items()):
            return Change(outcome)
        self._put(msgspec.structs.replace(tenant, **changed, version=index, updated=command.at))
        if not tenant.node_id:
            return Change(outcome)
        self._touch_node(index, tenant.node_id)
        return Change(outcome, nodes=(tenant.node_id,))
