"""The registry: all replicated state, changed only by :meth:`Registry.apply`, in log order.

Invariants, held after every command:

* a tenant's epoch never goes back, and each assignment has an epoch of its own;
* a tenant has at most one node; ``tenants_of`` is the exact inverse of ``TenantRecord.node_id``;
* living tenants have different names, and no host name is that of two; an id never comes back,
  deleted tenants stay as tombstones;
* a node's ``assignments_index`` is the log index of the last change to its list of tenants;
* applying the same log gives the same state, from the beginning or from a snapshot: no clock, no
  random numbers, no I/O.

``registry_records`` holds tenants and nodes; ``tenant_changes``, ``tenant_ends``, ``node_changes``,
``migration_changes`` and ``join_changes`` apply commands to them. It says nothing of who lives
(``liveness``) and decides nothing (``planner``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import attrs
import msgspec

from pbcluster import wire
from pbcluster.controlplane import audit
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.api_tokens import ApiTokens
from pbcluster.controlplane.audit import AuditTrail
from pbcluster.controlplane.durability_changes import DurabilityChanges
from pbcluster.controlplane.join_changes import JoinChanges
from pbcluster.controlplane.join_tokens import JoinTokens
from pbcluster.controlplane.migration_changes import MigrationChanges
from pbcluster.controlplane.node_changes import NodeChanges
from pbcluster.controlplane.outcomes import Outcome, Outcomes
from pbcluster.controlplane.rebalance_changes import RebalanceChanges
from pbcluster.controlplane.registry_image import RegistryImage, RegistryState
from pbcluster.controlplane.registry_records import LIVING, Change
from pbcluster.controlplane.roster import Roster
from pbcluster.controlplane.tenant_changes import TenantChanges
from pbcluster.controlplane.tenant_ends import TenantEnds
from pbcluster.controlplane.token_keys import TokenKeys
from pbcluster.errors import PBClusterError, SessionExpired

__all__ = ["LIVING", "Applied", "Registry"]


@attrs.frozen
class Applied:
    """The effects of one applied command.

    :ivar changed_nodes: nodes whose list of assignments changed.
    :ivar repeated: the key was known; nothing changed, and ``outcome`` is the first one's, or an
        error if that is forgotten.
    """

    outcome: Outcome
    broadcast: wire.Broadcast | None = None
    changed_nodes: tuple[str, ...] = ()
    repeated: bool = False


class Registry(
    TenantChanges,
    DurabilityChanges,
    TenantEnds,
    NodeChanges,
    MigrationChanges,
    RebalanceChanges,
    JoinChanges,
):
    """Everything the control plane must not forget."""

    def __init__(self, base_domain: str) -> None:
        """
        :param base_domain: a tenant's domain is ``NAME.base_domain``.
        """
        super().__init__(base_domain)
        self.applied_index = 0
        self.last_broadcast = 0
        #: What signs platform tokens.
        self.token_keys = TokenKeys()
        #: Who may use the admin API, beside the bearer of the cluster's own admin token.
        self.api_tokens = ApiTokens()
        self.audit = AuditTrail()
        self._outcomes = Outcomes()
        self._appliers: dict[type, Callable[[int, Any], Change]] = {
            c.CreateTenant: self._create_tenant,
            c.UpdateTenant: self._update_tenant,
            c.AssignTenant: self._assign_tenant,
            c.MarkReady: self._mark_ready,
            c.SetTenantStatus: self._set_tenant_status,
            c.DeleteTenant: self._delete_tenant,
            c.ArchiveTenant: self._archive_tenant,
            c.ActivateTenant: self._activate_tenant,
            c.TenantEnded: self._tenant_ended,
            c.TenantReleased: self._tenant_released,
            c.RegisterNode: self._register_node,
            c.SetNodeStatus: self._set_node_status,
            c.SetNodeCapacity: self._set_node_capacity,
            c.SetMember: self._set_member,
            c.RotateTokenKey: self._rotate_token_key,
            c.NoteToken: self._note_token,
            c.RenameTenant: self._rename_tenant,
            c.CreateApiToken: self._create_api_token,
            c.RevokeApiToken: self._revoke_api_token,
            c.Noted: self._noted,
            c.StartMigration: self._start_migration,
            c.MigrationWarmed: self._migration_warmed,
            c.DrainTenant: self._drain_tenant,
            c.MigrationDrained: self._migration_drained,
            c.MigrationReady: self._migration_ready,
            c.AbortMigration: self._abort_migration,
            c.RetireRoute: self._retire_route,
            c.DrainNode: self._drain_node,
            c.SetDegraded: self._set_degraded,
            c.SettleDurability: self._settle_durability,
            c.GiveAway: self._give_away,
            c.CreateJoinToken: self._create_join_token,
            c.RevokeJoinToken: self._revoke_join_token,
            c.Join: self._join,
            c.SetProcess: self._set_process,
            c.RemoveProcess: self._remove_process,
            c.StartRebalance: self._start_rebalance,
            c.EndRebalance: self._end_rebalance,
        }

    def outcome(self, key: str) -> Outcome | None:
        """What the command under an idempotency key came to; None: there was none.

        :raises SessionExpired: it is forgotten.
        """
        return self._outcomes.recall(key)

    # -- snapshots --------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The whole state."""
        return self.image().to_bytes()

    def image(self, *, for_operators: bool = False) -> RegistryImage:
        """The whole state as it is now, quickly: to be encoded later, in any thread.

        :param for_operators: it leaves the control plane: the keys that sign tokens do not, nor
            the tokens of the admin API and those to join by, which could be revoked by the time
            it is used.
        """
        return RegistryImage(
            RegistryState(
                self.applied_index,
                self.last_broadcast,
                list(self._tenants.values()),
                list(self._nodes.values()),
                [],
                # Its lists are replaced, never changed.
                dict(self._starts),
                list(self.roster.members()),
                list(self.roster.former()),
                self.roster.index,
                b"",
                [] if for_operators else list(self.token_keys),
                [] if for_operators else list(self.api_tokens),
                list(self.audit),
                list(self._migrations.values()),
                list(self.roster.processes()),
                list(self.roster.former_processes()),
                [] if for_operators else list(self.join_tokens),
                [] if self.rebalance is None else [self.rebalance],
            ),
            self._outcomes.image(),
        )

    @classmethod
    def from_bytes(cls, base_domain: str, data: bytes) -> Registry:
        """The state that :meth:`to_bytes` wrote. :raises msgspec.DecodeError: it is none."""
        state = msgspec.msgpack.decode(data, type=RegistryState)
        registry = cls(base_domain)
        registry.applied_index = state.applied_index
        registry.last_broadcast = state.last_broadcast
        registry._outcomes = Outcomes(state.outcomes, state.spent_keys)
        registry._starts = state.starts
        registry.roster = Roster(
            state.members,
            state.former_members,
            state.members_index,
            state.processes,
            state.former_processes,
        )
        registry.join_tokens = JoinTokens(state.join_tokens)
        registry.token_keys = TokenKeys(state.token_keys)
        registry.api_tokens = ApiTokens(state.api_tokens)
        registry.audit = AuditTrail(state.audit)
        registry.rebalance = next(iter(state.rebalances), None)
        for node in state.nodes:
            registry._nodes[node.id] = node
        registry._put_all(state.tenants)
        for migration in state.migrations:
            registry._put_migration(migration)
        return registry

    # -- applying ---------------------------------------------------------------------------------

    def apply(self, index: int, keyed: c.Keyed) -> Applied:
        """Apply the command at log index ``index``, the one after ``applied_index``.

        A command that may not be carried out changes nothing but the index; its outcome says why.
        """
        if index != self.applied_index + 1:
            raise AssertionError(f"index {index} applied after {self.applied_index}")
        self.applied_index = index
        try:
            known = self._outcomes.recall(keyed.key)
        except SessionExpired as error:
            return Applied(Outcome(index, error=wire.ErrorReply.of(error)), repeated=True)
        if known is not None:
            return Applied(known, repeated=True)
        try:
            change = self._appliers[type(keyed.command)](index, keyed.command)
            if change.outcome.tenant_id:
                change = self._settle(index, change.outcome.tenant_id, keyed.command.at, change)
        except PBClusterError as error:
            change = Change(Outcome(index, error=wire.ErrorReply.of(error)))
        self._outcomes.remember(keyed.key, change.outcome)
        if keyed.note is not None:
            refused = change.outcome.error
            told = audit.DONE if refused is None else refused.code
            self.audit.add(index, keyed.command.at, keyed.note, told)
        return Applied(change.outcome, self._numbered(change), change.nodes)

    def members_changed(self, index: int, left: Collection[str]) -> Applied:
        """The entry at log index ``index``, the next one, changed the group.

        :param left: who is no member any more: their ids never come back.
        """
        self.skip(index)
        self.roster.left(left)
        self.roster.index = index
        change = Change(Outcome(index), topic="members.changed")
        return Applied(change.outcome, self._numbered(change))

    def skip(self, index: int) -> None:
        """The entry at log index ``index``, the next one, is none of ours: only the index moves."""
        if index != self.applied_index + 1:
            raise AssertionError(f"index {index} skipped after {self.applied_index}")
        self.applied_index = index

    def _numbered(self, change: Change) -> wire.Broadcast | None:
        if change.topic == "":
            return None
        broadcast = wire.Broadcast(
            topic=change.topic,
            index=self.applied_index,
            previous=self.last_broadcast,
            tenant_id=change.outcome.tenant_id,
            node_id=change.node_id,
            incarnation=change.outcome.incarnation,
            route=change.route,
        )
        self.last_broadcast = self.applied_index
        return broadcast

    # -- members --

    def _set_member(self, index: int, command: c.SetMember) -> Change:
        changed = self.roster.put(command.member)
        if changed:
            self.roster.index = index
        return Change(Outcome(index), topic="members.changed" if changed else "")

    # -- keys of platform tokens --

    def _rotate_token_key(self, index: int, command: c.RotateTokenKey) -> Change:
        self.token_keys.rotate(command)
        return Change(Outcome(index), topic="keys.changed")

    def _note_token(self, index: int, command: c.NoteToken) -> Change:
        self.token_keys.note(command)
        return Change(Outcome(index))

    # -- tokens of the admin API, and what only leaves its note --

    def _create_api_token(self, index: int, command: c.CreateApiToken) -> Change:
        self.api_tokens.create(command)
        return Change(Outcome(index))

    def _revoke_api_token(self, index: int, command: c.RevokeApiToken) -> Change:
        self.api_tokens.revoke(command.token_id)
        return Change(Outcome(index))

    def _noted(self, index: int, command: c.Noted) -> Change:
        return Change(Outcome(index))
