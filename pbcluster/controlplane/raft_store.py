"""What a member of a Raft group keeps on disk: its log, its hard state and snapshots.

What is written is :mod:`pbcluster.controlplane.raft_writes`'s; all submissions that waited for the
writer become durable together (:mod:`pbcluster.controlplane.lmdb_store`). A snapshot comes in
pieces, each a record of its own, so that no write and no read is longer than a piece: first the
pieces become durable, then the record that points at them. What a crash leaves of pieces nobody
points at is removed at the next start.

Entries and hard states go into a journal, which makes them durable at a fraction of the cost, and
are held in memory. LMDB gets them when the journal is full, before whatever is written after them,
when the store is closed, or at the next start: it says what is true as of the journal's record
whose number it holds, and the records after that one complete it.

Everything has a checksum with its own key in it. One that fails is reported with the place it
stands at, and the member refuses to serve: it does not guess. A store belongs to one member: one
that is gone must not come back empty under its old id (see ``beginning``).
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgspec

from pbcluster.controlplane.journal import Journal
from pbcluster.controlplane.lmdb_store import MAP_BYTES, LmdbStore
from pbcluster.controlplane.raft_writes import Compaction, MemberStore, Piece, Write
from pbcluster.controlplane.unsettled import Unsettled
from pbcluster.errors import ConfigError, NotFound, StorageCorrupt
from pbcluster.raft import Entry, EntryKind, HardState, SnapshotMeta, StoredState

__all__ = ["Compaction", "MemberStore", "Piece", "RaftStore", "Write", "pieces_of"]

FORMAT = "raft-2"
#: As many entries as between two snapshots, if each has a record of its own and none is large.
JOURNAL_BYTES = 24 * 1024**2
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
#: Number of the journal's last record that is in LMDB too.
_JOURNALED = b"journaled"

T = TypeVar("T")


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
    formerly = frozenset({("format", "raft-1")})

    def __init__(
        self,
        directory: Path,
        cluster_id: str,
        member_id: str,
        *,
        map_bytes: int = MAP_BYTES,
        journal_bytes: int = JOURNAL_BYTES,
    ) -> None:
        """Open or create.

        :raises ConfigError: it is another member's or cluster's, has another format, is not whole,
            or cannot be opened.
        """
        identity = {"cluster_id": cluster_id, "format": FORMAT, "member": member_id}
        super().__init__(directory, identity, map_bytes=map_bytes)
        self._log = self._databases["log"]
        self._snapshots = self._databases["snapshots"]
        self._unsettled = Unsettled()
        try:
            self._journal = self._open_journal(journal_bytes, f"{cluster_id}/{member_id}")
        except BaseException:
            super().close()
            raise

    def _open_journal(self, size_bytes: int, owner: str) -> Journal:
        path = self._directory / "journal"
        with self._env.begin(write=True, db=self._meta) as transaction:
            known = transaction.get(_JOURNALED) is not None
            if known and not path.exists():
                raise ConfigError(
                    f"{path} is missing, and what was written last with it: a member that lost a "
                    "part of its disk must not come back under its old id; remove it and add a new "
                    "one"
                )
            try:
                journal = Journal(path, size_bytes, owner)
            except OSError as error:
                raise ConfigError(f"cannot open {path}: {error}") from None
            if not known:
                self._put_record(transaction, _JOURNALED, 0)
        return journal

    def close(self) -> None:
        """As :meth:`LmdbStore.close`."""
        super().close()
        self._journal.close()

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
            self._take_over(transaction)
            hard = self._record(transaction, _HARD, HardState) or HardState()
            meta = self._record(transaction, _SNAPSHOT, SnapshotMeta) or SnapshotMeta()
            self._forget_pieces(transaction, (meta,))
            entries = tuple(self._entries(transaction))
        self._unsettled.clear()
        self._journal.rewind()
        if entries and entries[0].index > meta.index + 1:
            raise StorageCorrupt(
                f"log entry {meta.index + 1} is missing: {entries[0].index} comes next"
            )
        if entries and hard.commit > max(meta.index, entries[-1].index):
            raise StorageCorrupt(f"log entry {entries[-1].index + 1} is missing: it is committed")
        return StoredState(meta.conf, hard, meta, entries, meta.index)

    def _take_over(self, transaction: Any) -> None:
        """Put into LMDB what stands in the journal only."""
        self._unsettled.clear()
        for record in self._journal.read(self._record(transaction, _JOURNALED, int) or 0):
            self._unsettled.add_record(record)
        self._settle(transaction)

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

    def _owed_bytes(self) -> int:
        # Keys, checksums and half-filled pages come to less than the entries themselves.
        return 2 * self._unsettled.size_bytes

    # -- writing, in the writer's thread ----------------------------------------------------------

    def _make_durable(self, batches: Sequence[tuple[Write, ...]]) -> None:
        writes = tuple(write for batch in batches for write in batch)
        if not all(w.install is None and w.compaction is None for w in writes):
            self._write_through(writes)
            return
        pieces = [write for write in writes if write.pieces]
        if pieces:
            # Nothing points at them yet: they may come before whatever else is written.
            with self._env.begin(write=True) as transaction:
                for write in pieces:
                    self._put_pieces(transaction, write)
        small = [write for write in writes if write.entries or write.hard_state is not None]
        if not small:
            return
        if self._journal.append(self._unsettled.record(small)):
            self._unsettled.add(small)
        else:
            self._write_through(writes)

    def _write_through(self, writes: tuple[Write, ...]) -> None:
        """Write into LMDB, after what only the journal has; that begins anew."""
        compacted = [write.compaction.upto for write in writes if write.compaction is not None]
        with self._env.begin(write=True) as transaction:
            self._settle(transaction, max(compacted, default=0))
            self._put(transaction, writes)
        self._unsettled.clear()
        self._journal.rewind()

    def _ending(self) -> None:
        # The journal has it all: if this fails, the next start does it.
        with suppress(lmdb.Error), self._env.begin(write=True) as transaction:
            self._settle(transaction)

    def _settle(self, transaction: Any, forgotten: int = 0) -> None:
        """Put into LMDB what only the journal has, but for entries up to ``forgotten``."""
        unsettled = self._unsettled
        if unsettled.first:
            self._cut_log(transaction, unsettled.first)
            kept = bisect_right(unsettled.entries, forgotten, key=attrgetter("index"))
            self._put_entries(transaction, unsettled.entries[kept:])
        if unsettled.hard_state is not None:
            self._put_record(transaction, _HARD, unsettled.hard_state)
        self._put_record(transaction, _JOURNALED, self._journal.last)

    def _put(self, transaction: Any, batch: tuple[Write, ...]) -> None:
        for write in batch:
            self._put_pieces(transaction, write)
            if write.install is not None:
                self._put_record(transaction, _SNAPSHOT, write.install)
                transaction.drop(self._log, delete=False)
                self._forget_pieces(transaction, (write.install, *write.keep))
            if write.entries:
                self._cut_log(transaction, write.entries[0].index)
                self._put_entries(transaction, write.entries)
            if write.hard_state is not None:
                self._put_record(transaction, _HARD, write.hard_state)
            if write.compaction is not None:
                self._compact(transaction, write.compaction)

    def _put_record(self, transaction: Any, key: bytes, value: Any) -> None:
        sealed = _sealed(key, msgspec.msgpack.encode(value))
        transaction.put(key, sealed, db=self._meta)

    def _put_pieces(self, transaction: Any, write: Write) -> None:
        for piece in write.pieces:
            key = _name(piece.meta) + _KEY.pack(piece.offset)
            transaction.put(key, _sealed(key, piece.data), db=self._snapshots)

    def _cut_log(self, transaction: Any, first: int) -> None:
        """Forget the entry at ``first`` and all after it."""
        cursor = transaction.cursor(db=self._log)
        if cursor.set_range(_KEY.pack(first)):
            while cursor.delete():
                pass

    def _put_entries(self, transaction: Any, entries: Sequence[Entry]) -> None:
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
