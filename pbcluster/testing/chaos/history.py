"""What clients, probes and the watcher of claims saw in one round. Values only.

All moments are seconds of one monotonic clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs

#: A new row; two rows in one transaction; a register that grows; a read of a row, of a register.
CREATE, PAIR, UPDATE, LOOK, READ = "create", "pair", "update", "look", "read"
#: A read of the admin API; a look-up of a route, as a gateway makes it.
ADMIN, LOOKUP = "admin", "lookup"
WRITES = frozenset((CREATE, PAIR, UPDATE))
READS = frozenset((LOOK, READ))
#: The halves of a pair; of a single row.
HALVES, WHOLE = ("a", "b"), ""
_OK = frozenset((200, 204))


def value_of(key: str, half: str = WHOLE) -> str:
    """The text that a row of this key has: some hundred bytes that depend on all of it."""
    return hashlib.sha256(f"{key}/{half}".encode()).hexdigest() * (2 + len(key) % 7)


@attrs.frozen(kw_only=True)
class Operation:
    """One request that is over.

    :ivar tenant: its name. :ivar kind: one of the constants above.
    :ivar key: of the row or rows, or the name of the register.
    :ivar status: of the answer; 0: none came.
    :ivar n: of a register: what was to be written, or what was read. An acknowledged write of a
        register says that it is at least ``n``.
    :ivar found: of a ``look``: the row was there, and ``right``: as it was written.
    :ivar durability: what the acknowledgement said of itself: ``s3``, ``async``, ``local``.
    :ivar client: who asked. :ivar node: which node was asked directly; empty: the gateway.
    """

    tenant: str
    kind: str
    key: str
    begun_s: float
    ended_s: float
    status: int
    n: int = 0
    found: bool = True
    right: bool = True
    durability: str = ""
    client: str = ""
    node: str = ""
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether it has the answer that it should have."""
        return self.status in _OK and self.found

    @property
    def acked(self) -> bool:
        """Whether a write was acknowledged."""
        return self.kind in WRITES and self.status in _OK

    @property
    def refused(self) -> bool:
        """Whether a write was surely not done: the answer says that it was wrong."""
        return 400 <= self.status < 500

    @property
    def took_s(self) -> float:
        """From the request to the end of the answer."""
        return self.ended_s - self.begun_s


@attrs.frozen
class Row:
    """One row of a tenant at the end. :ivar n: of a register; of others 0."""

    key: str
    half: str
    value: str
    n: int = 0


@attrs.frozen
class Claim:
    """An owner that stood in S3.

    :ivar after_s: it did not stand there before this moment. :ivar seen_s: it did at this one.
    """

    tenant: str
    epoch: int
    node: str
    after_s: float
    seen_s: float


@attrs.frozen
class Event:
    """What was done to the cluster. :ivar fault: it is one; else it ends one, or is neither."""

    at_s: float
    text: str
    fault: bool = False


@attrs.define
class History:
    """All of one round. Appending to its lists is safe from several threads.

    :ivar tenants: those under load. :ivar rows: tenant → its rows, as the gateway gives them at the
        end. :ivar replicas: tenant → its rows in a database restored from S3, which was whole.
    :ivar damaged: why a replica could not be restored, or was not whole.
    """

    operations: list[Operation] = attrs.field(factory=list)
    claims: list[Claim] = attrs.field(factory=list)
    events: list[Event] = attrs.field(factory=list)
    rows: dict[str, Sequence[Row]] = attrs.field(factory=dict)
    replicas: dict[str, Sequence[Row]] = attrs.field(factory=dict)
    damaged: list[str] = attrs.field(factory=list)

    def of(self, *kinds: str, node: str | None = "") -> list[Operation]:
        """Operations of these kinds, by their ends. :param node: None: of all, else as asked."""
        found = [o for o in list(self.operations) if o.kind in kinds and node in (None, o.node)]
        return sorted(found, key=lambda operation: operation.ended_s)
