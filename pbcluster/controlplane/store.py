"""What a member keeps on disk: log entries and one snapshot, in LMDB, each with a checksum.

One dedicated thread does every write transaction from begin to commit (LMDB binds it to its
thread); what is submitted while it is busy goes into its next transaction: one fsync for all
(group commit). ``sync`` is never turned off. Reads happen once, at the start.

A checksum that fails is reported with the place it stands at, and the member refuses to serve: it
does not guess. After a failed write nothing more is written, whatever was queued behind it (else
the log could get a hole), and the member must end (its caller's duty): after a failed fsync nobody
knows what is on the disk. A second process with the same directory is refused.
"""

from __future__ import annotations

import fcntl
import os
import queue
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import lmdb

from pbcluster.errors import ConfigError, StorageCorrupt

#: Address space, not disk: the file grows as needed. 100,000 tenants need about 100 MB.
MAP_BYTES = 16 * 1024**3
#: Above this share of the map proposals are refused, long before a commit fails.
FULL_SHARE = 0.8
#: So much must be free on the disk: a snapshot, and what is under way.
MIN_FREE_DISK_BYTES = 64 * 1024**2
#: Batches that may wait for the writer; the callers bound what they submit, this is the last net.
MAX_BATCHES = 10_000
FORMAT = b"1"
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


Done = Callable[[BaseException | None], None]


class LogStore:
    """The LMDB environment of one member."""

    def __init__(self, directory: Path, cluster_id: str, *, map_bytes: int = MAP_BYTES) -> None:
        """Open or create.

        :raises ConfigError: it belongs to another cluster, has another format, or cannot be opened.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._map_bytes = map_bytes
        self._failed: BaseException | None = None
        self._lock = _locked(directory)
        try:
            self._env = lmdb.open(
                str(directory), map_size=map_bytes, max_dbs=3, sync=True, metasync=True, mode=0o600
            )
        except lmdb.Error as error:
            self._unlock()
            raise ConfigError(f"cannot open the store in {directory}: {error}") from None
        try:
            self._prepare(directory, cluster_id)
        except BaseException:
            self._env.close()
            self._unlock()
            raise

    def _prepare(self, directory: Path, cluster_id: str) -> None:
        self._env.reader_check()
        self._meta = self._env.open_db(b"meta")
        self._log = self._env.open_db(b"log")
        self._snapshots = self._env.open_db(b"snapshots")
        self._check_identity(directory, cluster_id.encode())
        self._queue: queue.Queue[tuple[Batch, Done] | None] = queue.Queue(MAX_BATCHES)
        self._thread: threading.Thread | None = None

    def _check_identity(self, directory: Path, cluster_id: bytes) -> None:
        wanted = {b"cluster_id": cluster_id, b"format": FORMAT}
        with self._env.begin(write=True, db=self._meta) as transaction:
            for key, value in wanted.items():
                found = transaction.get(key)
                if found is None:
                    transaction.put(key, value)
                elif found != value:
                    raise ConfigError(
                        f"the store in {directory} has {key.decode()} {found.decode()!r}, "
                        f"this member has {value.decode()!r}"
                    )

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

    def nearly_full(self) -> bool:
        """Whether proposals should be refused: the map or the disk is nearly full."""
        info, page = self._env.info(), self._env.stat()["psize"]
        disk = os.statvfs(self._directory)
        if disk.f_bavail * disk.f_frsize < MIN_FREE_DISK_BYTES:
            return True
        return bool((info["last_pgno"] + 1) * page > FULL_SHARE * self._map_bytes)

    # -- writing ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the writer thread."""
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch, done: Done) -> None:
        """Write ``batch`` with the next transaction.

        :param done: called *in the writer's thread* with None once it is on disk, or with the error
            after which nothing more may be written.
        """
        self._queue.put_nowait((batch, done))

    def close(self) -> None:
        """Write what was submitted, end the thread, close the environment."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._env.close()
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _run(self) -> None:
        open_ = True
        while open_:
            items: list[tuple[Batch, Done]] = []
            item = self._queue.get()
            while item is not None:
                items.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            open_ = item is not None
            if items:
                self._write(items)

    def _write(self, items: Sequence[tuple[Batch, Done]]) -> None:
        try:
            if self._failed is None:
                with self._env.begin(write=True) as transaction:
                    for batch, _ in items:
                        self._put(transaction, batch)
        except Exception as caught:
            self._failed = caught
        for _, done in items:
            done(self._failed)

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


def _locked(directory: Path) -> int:
    """An open lock file of ``directory``. :raises ConfigError: another process has it."""
    lock = os.open(directory / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ConfigError(f"the store in {directory} is in use by another process") from None
    return lock
