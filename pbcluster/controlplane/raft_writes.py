"""What a member of a Raft group has written, and what it asks of its store.

One :class:`Write` is the part of one ``Ready`` that must become durable as a whole; a submission is
several of them, in order.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from pbcluster.controlplane.lmdb_store import Done
from pbcluster.raft import Entry, HardState, SnapshotMeta, StoredState


@attrs.frozen
class Piece:
    """Bytes ``offset`` and following of the snapshot ``meta``."""

    meta: SnapshotMeta
    offset: int
    data: bytes


@attrs.frozen
class Compaction:
    """Point at ``meta``, whose pieces are durable; forget the log up to ``upto`` and the pieces of
    all snapshots but ``keep``."""

    meta: SnapshotMeta
    upto: int
    keep: tuple[SnapshotMeta, ...]


@attrs.frozen
class Write:
    """What becomes durable together, in this order.

    :ivar install: the snapshot, whose pieces are durable, replaces the whole log.
    :ivar keep: newer snapshots that are coming in: their pieces stay when one is installed.
    :ivar entries: everything at or after the first of them goes before.
    """

    install: SnapshotMeta | None = None
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None
    pieces: tuple[Piece, ...] = ()
    compaction: Compaction | None = None
    keep: tuple[SnapshotMeta, ...] = ()


class MemberStore(Protocol):
    """What a member asks of its store. Each call does, and fails, as that of :class:`RaftStore`."""

    def recover(self) -> StoredState:
        """Read and check everything."""

    def begin_life(self) -> int:
        """Raise the incarnation; durable when this returns."""

    def start(self) -> None:
        """From now on it writes."""

    def submit(self, batch: tuple[Write, ...], done: Done) -> None:
        """Write, in order; ``done`` is called in another thread once it is on disk."""

    def read_piece(self, meta: SnapshotMeta, offset: int, length: int) -> bytes:
        """Bytes of a snapshot, from any thread."""

    def read_snapshot(self, meta: SnapshotMeta) -> bytes:
        """All bytes of a snapshot, checked; from any thread."""

    def nearly_full(self) -> bool:
        """Whether proposals should be refused."""

    def close(self) -> None:
        """Write what was submitted, then close."""
