"""The commands of the replicated log: every change of the registry is one of these.

A command holds all that applying needs: the proposer puts in the time, the random ids and the
hashes, so that applying it is the same everywhere and at every replay. Fields are only appended,
with defaults; a command's tag never changes its meaning.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from pbcluster.controlplane.command_base import Command
from pbcluster.controlplane.join_commands import (
    CreateJoinToken,
    Join,
    RemoveProcess,
    RevokeJoinToken,
    SetProcess,
)
from pbcluster.controlplane.migration_commands import (
    AbortMigration,
    DrainTenant,
    MigrationDrained,
    MigrationReady,
    MigrationWarmed,
    RetireRoute,
    StartMigration,
)
from pbcluster.controlplane.rebalance_commands import EndRebalance, StartRebalance
from pbcluster.records import (
    Durability,
    InitialSuperuser,
    MemberRecord,
    NodeStatus,
    OnOutage,
    Role,
    TenantLogs,
    TenantQuotas,
    TenantStatus,
)

__all__ = [
    "AbortMigration",
    "AnyCommand",
    "AuditNote",
    "Command",
    "CreateJoinToken",
    "DrainTenant",
    "EndRebalance",
    "Join",
    "Keyed",
    "MigrationDrained",
    "MigrationReady",
    "MigrationWarmed",
    "RemoveProcess",
    "RetireRoute",
    "RevokeJoinToken",
    "SetProcess",
    "StartMigration",
    "StartRebalance",
    "decode",
    "encode",
]


class CreateTenant(Command, frozen=True):
    """A new tenant. Fails if the name is taken.

    Its first epoch is given to ``node_id`` in the same entry, if that is a node which may take it;
    else it is created without a node.
    """

    at: datetime
    tenant_id: str
    name: str
    domain: str
    durability: Durability = Durability.SYNC
    metadata: dict[str, Any] = {}
    quotas: TenantQuotas = TenantQuotas()
    initial_superuser: InitialSuperuser | None = None
    durable_reads: bool = False
    on_s3_outage: OnOutage = OnOutage.DEGRADE
    placement: dict[str, str] = {}
    node_id: str = ""


class UpdateTenant(Command, frozen=True):
    """Change what an operator may change; None leaves it. ``expected_version`` 0: any.

    Fails if another tenant has one of ``custom_domains``, which are all it has afterwards.
    """

    at: datetime
    tenant_id: str
    expected_version: int = 0
    metadata: dict[str, Any] | None = None
    quotas: TenantQuotas | None = None
    custom_domains: tuple[str, ...] | None = None
    logs: TenantLogs | None = None
    #: It counts at once if no node has the tenant, else once its owner reports that it caught up.
    durability: Durability | None = None
    durable_reads: bool | None = None
    on_s3_outage: OnOutage | None = None
    #: For the next time that it needs a node; it is not moved for it.
    placement: dict[str, str] | None = None


class AssignTenant(Command, frozen=True):
    """Give a tenant to a node under a new epoch above both its own and ``above_epoch``.

    Fails unless the tenant's epoch still is ``expected_epoch``: two proposers that decided from the
    same view cannot both succeed. Fails if the tenant is degraded: its owner acknowledged writes
    that nobody else has (:class:`GiveAway` is an operator's word that they may be lost), unless
    ``keeps_data``: the owner itself goes on with its own copy under the new epoch.
    """

    at: datetime
    tenant_id: str
    node_id: str
    expected_epoch: int
    above_epoch: int = 0
    keeps_data: bool = False


class SetDegraded(Command, frozen=True):
    """The owner acknowledges writes that are on its disk only, or does so no more.

    Fails unless it still owns the tenant under this epoch, in this incarnation.
    """

    at: datetime
    tenant_id: str
    node_id: str
    epoch: int
    incarnation: int
    degraded: bool


class SettleDurability(Command, frozen=True):
    """The owner has everything in S3: the wanted durability counts. Fails if another is wanted."""

    at: datetime
    tenant_id: str
    node_id: str
    epoch: int
    durability: Durability


class GiveAway(Command, frozen=True):
    """An operator accepts that what only the owner's disk has of a degraded tenant is lost."""

    at: datetime
    tenant_id: str
    epoch: int


class MarkReady(Command, frozen=True):
    """The owner wrote READY or woke the tenant: it answers."""

    at: datetime
    tenant_id: str
    node_id: str
    epoch: int


class SetTenantStatus(Command, frozen=True):
    """Active or idle, as its owner reported."""

    at: datetime
    tenant_id: str
    epoch: int
    status: TenantStatus


class DeleteTenant(Command, frozen=True):
    """Begin to delete: routes end now, the name is free again, the id never is.

    The objects in S3 stay for ``keep_s`` seconds; again with less: for less.
    """

    at: datetime
    tenant_id: str
    expected_version: int = 0
    keep_s: float = 7 * 86400.0


class ArchiveTenant(Command, frozen=True):
    """Begin to archive: routes end now, the name stays taken. Fails for a degraded tenant."""

    at: datetime
    tenant_id: str
    expected_version: int = 0


class ActivateTenant(Command, frozen=True):
    """An archived tenant may be placed again; it wakes at its next request."""

    at: datetime
    tenant_id: str
    expected_version: int = 0


class TenantEnded(Command, frozen=True):
    """The node carried out what was ordered under ``epoch``: archived, deleted or purged."""

    at: datetime
    tenant_id: str
    node_id: str
    epoch: int


class TenantReleased(Command, frozen=True):
    """Nothing of a tenant runs any more on the node that had it."""

    at: datetime
    tenant_id: str
    node_id: str
    epoch: int


class RegisterNode(Command, frozen=True):
    """A node started. The same ``start_id`` again changes nothing."""

    at: datetime
    node_id: str
    start_id: str
    address: str
    capacity: int
    region: str = ""
    zone: str = ""
    software_version: str = ""


class SetNodeStatus(Command, frozen=True):
    """Healthy, degraded, draining or down, of this incarnation."""

    at: datetime
    node_id: str
    incarnation: int
    status: NodeStatus


class SetNodeCapacity(Command, frozen=True):
    """The node's bound on tenants changed."""

    at: datetime
    node_id: str
    incarnation: int
    capacity: int


class SetMember(Command, frozen=True):
    """Where a member is reached, before it joins or when it moved. Fails for the id of one that
    left, and for a key that another has."""

    at: datetime
    member: MemberRecord


class RotateTokenKey(Command, frozen=True):
    """A new Ed25519 key signs platform tokens from now on (both halves raw, 32 bytes).

    Fails unless ``expected_kid`` signs until now (empty: none does). Former keys verify what they
    signed until that ends, or, with ``at_once``, nothing any more.
    """

    at: datetime
    kid: str
    public: bytes
    private: bytes
    expected_kid: str = ""
    at_once: bool = False

    def __repr__(self) -> str:
        return f"RotateTokenKey({self.kid!r})"


class NoteToken(Command, frozen=True):
    """Tokens are about to be signed by ``kid`` that are valid until ``until`` at most. Fails unless
    that key signs now."""

    at: datetime
    kid: str
    until: datetime


class RenameTenant(Command, frozen=True):
    """Another name, and with it another domain; the id stays. Fails if the name is taken."""

    at: datetime
    tenant_id: str
    name: str
    domain: str
    expected_version: int = 0


class CreateApiToken(Command, frozen=True):
    """A new token of the admin API, known by its SHA-256 alone. Fails if its name is taken."""

    at: datetime
    token_id: str
    name: str
    role: Role
    digest: bytes
    created_by: str = ""
    expires: datetime | None = None

    def __repr__(self) -> str:
        return f"CreateApiToken({self.token_id!r})"


class RevokeApiToken(Command, frozen=True):
    """A token of the admin API is valid no more."""

    at: datetime
    token_id: str


class Noted(Command, frozen=True):
    """Something was done that changes nothing here: only its audit note is kept."""

    at: datetime


class DrainNode(Command, frozen=True):
    """An operator wants a node empty (``wanted``), or in use again."""

    at: datetime
    node_id: str
    wanted: bool


AnyCommand = (
    CreateTenant
    | UpdateTenant
    | AssignTenant
    | MarkReady
    | SetTenantStatus
    | DeleteTenant
    | ArchiveTenant
    | ActivateTenant
    | TenantEnded
    | TenantReleased
    | RegisterNode
    | SetNodeStatus
    | SetNodeCapacity
    | SetMember
    | RotateTokenKey
    | NoteToken
    | RenameTenant
    | CreateApiToken
    | RevokeApiToken
    | Noted
    | StartMigration
    | MigrationWarmed
    | DrainTenant
    | MigrationDrained
    | MigrationReady
    | AbortMigration
    | RetireRoute
    | DrainNode
    | SetDegraded
    | SettleDurability
    | GiveAway
    | CreateJoinToken
    | RevokeJoinToken
    | Join
    | SetProcess
    | RemoveProcess
    | StartRebalance
    | EndRebalance
)


class AuditNote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who wants a command, from where and what for; ``audit.note`` makes one within its bounds."""

    actor: str
    role: str
    address: str
    request_id: str
    action: str
    target: str = ""
    detail: str = ""


class Keyed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stands in the log: a command, its idempotency key (empty: none) and what the audit trail
    shall tell of it (None: nothing)."""

    key: str
    command: AnyCommand
    note: AuditNote | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Keyed)


def encode(keyed: Keyed) -> bytes:
    """The bytes of a log entry."""
    return _encoder.encode(keyed)


def decode(data: bytes) -> Keyed:
    """The command of a log entry. :raises msgspec.DecodeError: it is none."""
    return _decoder.decode(data)
