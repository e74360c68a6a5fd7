"""The registry's form in a snapshot. Pure.

Both ways go through :class:`RegistryState`, whose fields are only appended, with defaults, so that
what an older member wrote is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from pbcluster.controlplane.api_tokens import ApiToken
from pbcluster.controlplane.audit import AuditEntry
from pbcluster.controlplane.join_tokens import JoinToken
from pbcluster.controlplane.outcomes import Outcome, OutcomesImage, encode_each
from pbcluster.controlplane.token_keys import SigningKey
from pbcluster.records import (
    MemberRecord,
    MigrationRecord,
    NodeRecord,
    ProcessRecord,
    RebalanceRecord,
    TenantRecord,
)

#: Records that are encoded at a stretch: in some hundred microseconds.
REST_AFTER = 200
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

    def __init__(self, state: RegistryState, outcomes: OutcomesImage) -> None:
        """:param state: all but the outcomes and the spent keys, which ``outcomes`` has."""
        state.spent_keys = outcomes.spent
        self._state = state
        self._outcomes = outcomes

    def to_bytes(self, rest: Callable[[], object] = lambda: None) -> bytes:
        """What :meth:`Registry.from_bytes` reads.

        Some records at a time: one call that encodes a hundred thousand of them would keep every
        other thread waiting for its whole time.

        :param rest: called after some records each: a thread lets others go before.
        """
        names = RegistryState.__struct_fields__
        parts = [_ARRAY_16, len(names).to_bytes(2)]
        for name in names:
            value = getattr(self._state, name)
            encoded: Iterable[bytes]
            if name == "outcomes":
                parts.append(_ARRAY_32 + len(self._outcomes).to_bytes(4))
                encoded = self._outcomes.encoded()
            elif isinstance(value, list):
                parts.append(_ARRAY_32 + len(value).to_bytes(4))
                some = (value[at : at + REST_AFTER] for at in range(0, len(value), REST_AFTER))
                encoded = map(encode_each, some)
            else:
                encoded = (msgspec.msgpack.encode(value),)
            for part in encoded:
                parts.append(part)
                rest()
        return b"".join(parts)
