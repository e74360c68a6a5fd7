"""What a single member keeps on disk: log entries and one snapshot, each with a checksum.

A checksum that fails is reported with the place it stands at, and the member refuses to serve: it
does not guess. How it is written: :mod:`pbcluster.controlplane.lmdb_store`. Reads happen once, at
the start.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import attrs
import lmdb

from pbcluster.controlplane.lmdb_store import MAP_BYTES, Done, LmdbStore
from pbcluster.errors import StorageCorrupt

__all__ = ["Batch", "Done", "Entry", "LogStore", "Recovered", "StoredSnapshot"]

FORMAT = "1"
_KEY = struct.Struct(">Q")
#: CRC-32 of what follows, term.
_ENTRY = struct.Struct(">IQ")
#: CRC-32 of what follows, index, term.
_SNAPSHOT = struct.Struct(">IQQ")


@attrs.frozen
class Entry:
    """One log entry."""

    index: int
    term: int
    data: bytes


@attrs.frozen
class StoredSnapshot:
    """The state machine after ``index``."""

    index: int
    term: int
    data: bytes


@attrs.frozen
class Batch:
    """What one transaction writes: entries to append, then perhaps a snapshot that replaces all
    entries up to its index."""

    entries: tuple[Entry, ...] = ()
    snapshot: StoredSnapshot | None = None


@attrs.frozen
class Recovered:
    """What was on the disk: a snapshot, and the entries after it without a gap."""

    snapshot: StoredSnapshot | None
    entries: tuple[Entry, ...]


class LogStore(LmdbStore[Batch]):
    """The LMDB environment of one member."""

    databases = ("log", "snapshots")

    def __init__(self, directory: Path, cluster_id: str, *, map_bytes: int = MAP_BYTES) -> None:
        """Open or create.

        :raises ConfigError: it belongs to another cluster, has another format, or cannot be opened.
        """
        identity = {"cluster_id": cluster_id, "format": FORMAT}
        super().__init__(directory, identity, map_bytes=map_bytes)
        self._log = self._databases["log"]
        self._snapshots = self._databases["snapshots"]

    # -- reading ----------------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """Read everything, checked.

        :raises StorageCorrupt: a checksum or the order of the log is wrong; names the place.
        """
        try:
            return self._recover()
        except lmdb.Error as error:
            told = f"the store in {self._directory} cannot be read: {error}"
            raise StorageCorrupt(told) from None

    def _recover(self) -> Recovered:
        with self._env.begin() as transaction:
            snapshot = self._read_snapshot(transaction.get(b"latest", db=self._snapshots))
            entries: list[Entry] = []
            for key, value in transaction.cursor(db=self._log):
                if len(key) != _KEY.size:
                    raise StorageCorrupt(f"the log has a key that is no index: {key.hex()}")
                index = _KEY.unpack(key)[0]
                if snapshot is not None and index <= snapshot.index:
                    continue
                expected = entries[-1].index + 1 if entries else (snapshot.index if snapshot else 0)
                expected += not entries
                if index != expected:
                    raise StorageCorrupt(f"log entry {expected} is missing: {index} comes next")
                entries.append(self._read_entry(index, value))
        return Recovered(snapshot, tuple(entries))

    @staticmethod
    def _read_entry(index: int, value: bytes) -> Entry:
        if len(value) < _ENTRY.size:
            raise StorageCorrupt(f"log entry {index} is cut short")
        crc, term = _ENTRY.unpack_from(value)
        if zlib.crc32(_KEY.pack(index) + value[4:]) != crc:
            raise StorageCorrupt(f"log entry {index} fails its checksum")
        return Entry(index, term, value[_ENTRY.size :])

    @staticmethod
    def _read_snapshot(value: bytes | None) -> StoredSnapshot | None:
        if value is None:
            return None
        if len(value) < _SNAPSHOT.size:
            raise StorageCorrupt("the snapshot is cut short")
        crc, index, term = _SNAPSHOT.unpack_from(value)
        if zlib.crc32(value[4:]) != crc:
            raise StorageCorrupt(f"the snapshot at index {index} fails its checksum")
        return StoredSnapshot(index, term, value[_SNAPSHOT.size :])

    # -- writing ----------------------------------------------------------------------------------

    def _put(self, transaction: Any, batch: Batch) -> None:
        for entry in batch.entries:
            key = _KEY.pack(entry.index)
            tail = struct.pack(">Q", entry.term) + entry.data
            crc = zlib.crc32(key + tail)
            transaction.put(key, struct.pack(">I", crc) + tail, db=self._log)
        if batch.snapshot is None:
            return
        tail = struct.pack(">QQ", batch.snapshot.index, batch.snapshot.term) + batch.snapshot.data
        value = struct.pack(">I", zlib.crc32(tail)) + tail
        transaction.put(b"latest", value, db=self._snapshots)
        cursor = transaction.cursor(db=self._log)
        while cursor.first() and _KEY.unpack(cursor.key())[0] <= batch.snapshot.index:
            cursor.delete()
