"""What a member of a Raft group keeps on disk: its log, its hard state and snapshots.

One :class:`Write` is the part of one ``Ready`` that must become durable as a whole; a submission is
several of them, in order, and one transaction holds all submissions that waited for the writer
(:mod:`pbcluster.controlplane.lmdb_store`). A snapshot comes in pieces, each a record of its own, so
that no write and no read is longer than a piece: first the pieces become durable, then the record
that points at them. What a crash leaves of pieces nobody points at is removed at the next start.

Everything has a checksum with its own key in it. One that fails is reported with the place it
stands at, and the member refuses to serve: it does not guess. A store belongs to one member: one
that is gone must not come back empty under its old id (see ``beginning``).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs
import lmdb
import msgspec

from pbcluster.controlplane.lmdb_store import MAP_BYTES, Done, LmdbStore
from pbcluster.errors import NotFound, StorageCorrupt
from pbcluster.raft import Entry, EntryKind, HardState, SnapshotMeta, StoredState

__all__ = ["Compaction", "MemberStore", "Piece", "RaftStore", "Write", "pieces_of"]

FORMAT = "raft-1"
#: Bytes of one piece of a snapshot made here: as many as in a chunk from the leader
#: (``RaftOptions.snapshot_chunk_bytes``), since a snapshot of the same index may come in while one
#: is made here, and then their pieces share their keys.
PIECE_BYTES = 256 * 1024
_CRC = struct.Struct(">I")
_KEY = struct.Struct(">Q")
#: Term, kind.
_ENTRY = struct.Struct(">QB")
#: Index, term, checksum of the whole; then the offset.
_PIECE = struct.Struct(">QQIQ")
_NAME_BYTES = _PIECE.size - 8
_HARD, _SNAPSHOT, _INCARNATION = b"hard_state", b"snapshot", b"incarnation"

T = TypeVar("T")


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


def _name(meta: SnapshotMeta) -> bytes:
    """The beginning of the keys of a snapshot's pieces."""
    return _PIECE.pack(meta.index, meta.term, meta.checksum, 0)[:_NAME_BYTES]


def _sealed(key: bytes, tail: bytes) -> bytes:
    return _CRC.pack(zlib.crc32(key + tail)) + tail


def _opened(key: bytes, value: bytes, what: str) -> bytes:
    """:raises StorageCorrupt: names ``what``."""
    if len(value) < _CRC.size or _CRC.unpack_from(value)[0] != zlib.crc32(key + value[4:]):
        raise StorageCorrupt(f"{what} fails its checksum")
    return value[_CRC.size :]


class RaftStore(LmdbStore[tuple[Write, ...]]):
    """The LMDB environment of one member."""

    databases = ("log", "snapshots")

    def __init__(
        self, directory: Path, cluster_id: str, member_id: str, *, map_bytes: int = MAP_BYTES
    ) -> None:
        """Open or create.

        :raises ConfigError: it is another member's or cluster's, has another format, or cannot be
            opened.
        """
        identity = {"cluster_id": cluster_id, "format": FORMAT, "member": member_id}
        super().__init__(directory, identity, map_bytes=map_bytes)
        self._log = self._databases["log"]
        self._snapshots = self._databases["snapshots"]

    # -- at the start: before the writer's thread runs --------------------------------------------

    def is_new(self) -> bool:
        """Whether nothing was ever written for a group: neither founded nor joined."""
        with self._env.begin() as transaction:
            return transaction.get(_HARD, db=self._meta) is None

    def begin(self, first: StoredState, image: bytes = b"") -> None:
        """Write what the member begins with; durable when this returns.

        :param first: see ``StoredState.first``; an empty one waits for a snapshot.
        :param image: the state machine in ``first.snapshot``.
        """
        with self._env.begin(write=True) as transaction:
            if first.snapshot.index:
                pieces = tuple(pieces_of(first.snapshot, image))
                self._put(transaction, (Write(first.snapshot, (), first.hard, pieces),))
            else:
                self._put(transaction, (Write(hard_state=first.hard),))

    def begin_life(self) -> int:
        """Raise the incarnation; durable when this returns."""
        with self._env.begin(write=True, db=self._meta) as transaction:
            found = transaction.get(_INCARNATION)
            last = 0 if found is None else self._decoded(_INCARNATION, found, int)
            transaction.put(_INCARNATION, _sealed(_INCARNATION, msgspec.msgpack.encode(last + 1)))
        return last + 1

    def recover(self) -> StoredState:
        """Read and check everything; remove what no record points at.

        :raises StorageCorrupt: a checksum or the order of the log is wrong; names the place.
        """
        try:
            return self._recover()
        except lmdb.Error as error:
            told = f"the store in {self._directory} cannot be read: {error}"
            raise StorageCorrupt(told) from None

    def _recover(self) -> StoredState:
        with self._env.begin(write=True) as transaction:
            hard = self._record(transaction, _HARD, HardState) or HardState()
            meta = self._record(transaction, _SNAPSHOT, SnapshotMeta) or SnapshotMeta()
            self._forget_pieces(transaction, (meta,))
            entries = tuple(self._entries(transaction))
        if entries and entries[0].index > meta.index + 1:
            raise StorageCorrupt(
                f"log entry {meta.index + 1} is missing: {entries[0].index} comes next"
            )
        if entries and hard.commit > max(meta.index, entries[-1].index):
            raise StorageCorrupt(f"log entry {entries[-1].index + 1} is missing: it is committed")
        return StoredState(meta.conf, hard, meta, entries, meta.index)

    def _record(self, transaction: Any, key: bytes, kind: type[T]) -> T | None:
        value = transaction.get(key, db=self._meta)
        return None if value is None else self._decoded(key, value, kind)

    @staticmethod
    def _decoded(key: bytes, value: bytes, kind: type[T]) -> T:
        what = f"the record {key.decode()}"
        try:
            return msgspec.msgpack.decode(_opened(key, value, what), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageCorrupt(f"{what} cannot be read: {error}") from None

    def _entries(self, transaction: Any) -> Iterator[Entry]:
        expected = 0
        for key, value in transaction.cursor(db=self._log):
            if len(key) != _KEY.size:
                raise StorageCorrupt(f"the log has a key that is no index: {key.hex()}")
            index = _KEY.unpack(key)[0]
            if expected not in (0, index):
                raise StorageCorrupt(f"log entry {expected} is missing: {index} comes next")
            expected = index + 1
            tail = _opened(key, value, f"log entry {index}")
            term, kind = _ENTRY.unpack_from(tail)
            yield Entry(index, term, EntryKind(kind), tail[_ENTRY.size :])

    # -- snapshots --------------------------------------------------------------------------------

    def read_piece(self, meta: SnapshotMeta, offset: int, length: int) -> bytes:
        """Bytes of a snapshot, from any thread.

        :raises NotFound: they are not there (any more).
        :raises StorageCorrupt: they fail their checksum.
        """
        found = bytearray()
        name = _name(meta)
        with self._env.begin(db=self._snapshots) as transaction:
            cursor = transaction.cursor()
            at = cursor.set_range(_PIECE.pack(meta.index, meta.term, meta.checksum, offset))
            exact = at and cursor.key() == name + _KEY.pack(offset)
            if not exact:
                # The piece before holds the beginning: its maker had other sizes.
                at = cursor.prev() if at else cursor.last()
            while at and len(found) < length and cursor.key()[:_NAME_BYTES] == name:
                begin = _KEY.unpack(cursor.key()[_NAME_BYTES:])[0]
                data = self._piece(cursor.key(), cursor.value())
                wanted = offset + len(found)
                if not begin <= wanted < begin + len(data):
                    break
                found += data[wanted - begin :]
                at = cursor.next()
        if len(found) < length:
            raise NotFound(f"snapshot {meta.index} lacks its bytes from {offset + len(found)}")
        return bytes(found[:length])

    @staticmethod
    def _piece(key: bytes, value: bytes) -> bytes:
        index, _, _, offset = _PIECE.unpack(key)
        return _opened(key, value, f"snapshot {index} at byte {offset}")

    def read_snapshot(self, meta: SnapshotMeta) -> bytes:
        """All bytes of a snapshot, checked; from any thread.

        :raises StorageCorrupt: they do not match ``meta``; names the place.
        """
        if not meta.size_bytes:
            return b""
        try:
            data = self.read_piece(meta, 0, meta.size_bytes)
        except NotFound as error:
            raise StorageCorrupt(error.message) from None
        if zlib.crc32(data) != meta.checksum:
            raise StorageCorrupt(f"snapshot {meta.index} fails its checksum")
        return data

    # -- writing, in the writer's thread ----------------------------------------------------------

    def _put(self, transaction: Any, batch: tuple[Write, ...]) -> None:
        for write in batch:
            for piece in write.pieces:
                key = _name(piece.meta) + _KEY.pack(piece.offset)
                transaction.put(key, _sealed(key, piece.data), db=self._snapshots)
            if write.install is not None:
                self._put_record(transaction, _SNAPSHOT, write.install)
                transaction.drop(self._log, delete=False)
                self._forget_pieces(transaction, (write.install, *write.keep))
            if write.entries:
                self._put_entries(transaction, write.entries)
            if write.hard_state is not None:
                self._put_record(transaction, _HARD, write.hard_state)
            if write.compaction is not None:
                self._compact(transaction, write.compaction)

    def _put_record(self, transaction: Any, key: bytes, value: Any) -> None:
        sealed = _sealed(key, msgspec.msgpack.encode(value))
        transaction.put(key, sealed, db=self._meta)

    def _put_entries(self, transaction: Any, entries: tuple[Entry, ...]) -> None:
        cursor = transaction.cursor(db=self._log)
        if cursor.set_range(_KEY.pack(entries[0].index)):
            while cursor.delete():
                pass
        for entry in entries:
            key = _KEY.pack(entry.index)
            tail = _ENTRY.pack(entry.term, entry.kind) + entry.data
            transaction.put(key, _sealed(key, tail), db=self._log)

    def _compact(self, transaction: Any, compaction: Compaction) -> None:
        self._put_record(transaction, _SNAPSHOT, compaction.meta)
        cursor = transaction.cursor(db=self._log)
        while cursor.first() and _KEY.unpack(cursor.key())[0] <= compaction.upto:
            cursor.delete()
        self._forget_pieces(transaction, (compaction.meta, *compaction.keep))

    def _forget_pieces(self, transaction: Any, keep: tuple[SnapshotMeta, ...]) -> None:
        names = {_name(meta) for meta in keep}
        cursor = transaction.cursor(db=self._snapshots)
        at = cursor.first()
        while at:
            kept = cursor.key()[:_NAME_BYTES] in names
            # After a deletion the cursor stands at the next record already.
            at = cursor.next() if kept else cursor.delete()


def pieces_of(meta: SnapshotMeta, data: bytes) -> Iterator[Piece]:
    """A snapshot made here, in pieces."""
    for offset in range(0, len(data), PIECE_BYTES):
        yield Piece(meta, offset, data[offset : offset + PIECE_BYTES])
