"""The registry's form in a snapshot. Pure.

Both ways go through :class:`RegistryState`, whose fields are only appended, with defaults, so that
what an older member wrote is read.
"""

from __future__ import annotations

import msgspec

from pbcluster.controlplane.api_tokens import ApiToken
from pbcluster.controlplane.audit import AuditEntry
from pbcluster.controlplane.join_tokens import JoinToken
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.token_keys import SigningKey
from pbcluster.records import (
    MemberRecord,
    MigrationRecord,
    NodeRecord,
    ProcessRecord,
    RebalanceRecord,
    TenantRecord,
)

#: MessagePack's heads of an array whose length follows, in 16 bits and in 32.
_ARRAY_16, _ARRAY_32 = b"\xdc", b"\xdd"


class RegistryState(msgspec.Struct, array_like=True):
    """The form of a snapshot. Fields are only appended."""

    applied_index: int
    last_broadcast: int
    tenants: list[TenantRecord]
    nodes: list[NodeRecord]
    outcomes: list[tuple[str, Outcome]]
    starts: dict[str, list[str]] = {}
    members: list[MemberRecord] = []
    former_members: list[MemberRecord] = []
    members_index: int = 0
    spent_keys: bytes = b""
    token_keys: list[SigningKey] = []
    api_tokens: list[ApiToken] = []
    audit: list[AuditEntry] = []
    migrations: list[MigrationRecord] = []
    processes: list[ProcessRecord] = []
    former_processes: list[ProcessRecord] = []
    join_tokens: list[JoinToken] = []
    #: The last one, or none.
    rebalances: list[RebalanceRecord] = []


class RegistryImage:
    """A registry at one index, detached from it: the records in it never change."""

    def __init__(self, state: RegistryState) -> None:
        self._state = state

    def to_bytes(self) -> bytes:
        """What :meth:`Registry.from_bytes` reads.

        Record by record: one call that encodes a hundred thousand of them would keep every other
        thread waiting for its whole time.
        """
        fields = [getattr(self._state, name) for name in RegistryState.__struct_fields__]
        encode = msgspec.msgpack.Encoder().encode
        parts = [_ARRAY_16, len(fields).to_bytes(2)]
        for value in fields:
            if not isinstance(value, list):
                parts.append(encode(value))
                continue
            parts.append(_ARRAY_32 + len(value).to_bytes(4))
            for item in value:
                parts.append(encode(item))
        return b"".join(parts)
