"""The registry's form in a snapshot. Pure.

Both ways go through :class:`RegistryState`, whose fields are only appended, with defaults, so that
what an older member wrote is read.
"""

from __future__ import annotations

import msgspec

from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.token_keys import SigningKey
from pbcluster.records import MemberRecord, MigrationRecord, NodeRecord, TenantRecord

#: MessagePack's heads of an array with twelve items, and of one whose length follows in 32 bits.
_ARRAY_OF_12, _ARRAY_32 = b"\x9c", b"\xdd"


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
    migrations: list[MigrationRecord] = []


class RegistryImage:
    """A registry at one index, detached from it: the records in it never change."""

    def __init__(self, state: RegistryState) -> None:
        self._state = state

    def to_bytes(self) -> bytes:
        """What :meth:`Registry.from_bytes` reads.

        Record by record: one call that encodes a hundred thousand of them would keep every other
        thread waiting for its whole time.
        """
        state, encode = self._state, msgspec.msgpack.Encoder().encode
        parts = [_ARRAY_OF_12, encode(state.applied_index), encode(state.last_broadcast)]
        for items in (state.tenants, state.nodes, state.outcomes):
            parts.append(_ARRAY_32 + len(items).to_bytes(4))
            for item in items:
                parts.append(encode(item))
        parts += [encode(part) for part in (state.starts, state.members, state.former_members)]
        parts += [encode(state.members_index), encode(state.spent_keys)]
        parts.append(encode(state.token_keys))
        parts.append(_ARRAY_32 + len(state.migrations).to_bytes(4))
        parts += [encode(migration) for migration in state.migrations]
        return b"".join(parts)
