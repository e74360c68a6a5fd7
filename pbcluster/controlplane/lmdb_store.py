"""An LMDB environment with one writer: what the stores of the control plane have in common.

One dedicated thread does every write transaction from begin to commit (LMDB binds it to its
thread); what is submitted while it is busy goes into its next transaction: one fsync for all
(group commit). ``sync`` is never turned off.

After a failed write nothing more is written, whatever was queued behind it (else the log could get
a hole), and the member must end (its caller's duty): after a failed fsync nobody knows what is on
the disk. A store belongs to one cluster and has one format; a second process with the same
directory is refused. What is written is the business of the class that inherits from this.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import lmdb

from pbcluster.errors import Busy, ConfigError

#: Address space, not disk: the file grows as needed. 100,000 tenants need about 100 MB.
MAP_BYTES = 16 * 1024**3
#: Above this share of the map proposals are refused, long before a commit fails.
FULL_SHARE = 0.8
#: So much must be free on the disk: a snapshot, and what is under way.
MIN_FREE_DISK_BYTES = 64 * 1024**2
#: With more room than so many proposals take (512 KiB each at most, and their pages), one look is
#: enough for all of them.
LOOK_EVERY = 64
MUCH_ROOM_BYTES = LOOK_EVERY * 1024 * 1024
LOOK_LASTS_S = 0.1
#: Batches that may wait for the writer; the callers bound what they submit, this is the last net.
MAX_BATCHES = 10_000

Done = Callable[[BaseException | None], None]
B = TypeVar("B")


class LmdbStore(Generic[B]):
    """See the module. ``B`` is what one submission asks to be written."""

    #: Names of the databases beside ``meta``.
    databases: tuple[str, ...] = ()
    #: Words of the identity that earlier versions wrote, and that are replaced.
    formerly: frozenset[tuple[str, str]] = frozenset()

    def __init__(self, directory: Path, identity: Mapping[str, str], *, map_bytes: int) -> None:
        """Open or create.

        :param identity: words that are written at the first start and must be the same ever after.
        :raises ConfigError: it belongs to another cluster, has another format, or cannot be opened.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = self._directory = directory
        self._map_bytes = map_bytes
        self._failed: BaseException | None = None
        self._looks_left = 0
        self._looked_at = 0.0
        self._work = -1
        self._lock = _locked(directory)
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=map_bytes,
                max_dbs=1 + len(self.databases),
                sync=True,
                metasync=True,
                mode=0o600,
            )
        except lmdb.Error as error:
            self._unlock()
            raise ConfigError(f"cannot open the store in {directory}: {error}") from None
        try:
            self._env.reader_check()
            self._meta = self._env.open_db(b"meta")
            self._databases = {name: self._env.open_db(name.encode()) for name in self.databases}
            self._check_identity(identity)
        except BaseException:
            self._env.close()
            self._unlock()
            raise
        #: None: the end.
        self._queue: deque[tuple[B, Done] | None] = deque()
        # Not a lock: a thread that wakes another one by it keeps the interpreter meanwhile.
        self._work = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    def _check_identity(self, identity: Mapping[str, str]) -> None:
        with self._env.begin(write=True, db=self._meta) as transaction:
            for name, value in identity.items():
                key = name.encode()
                found = transaction.get(key)
                if found is None or (name, found.decode()) in self.formerly:
                    transaction.put(key, value.encode())
                elif found != value.encode():
                    raise ConfigError(
                        f"the store in {self._directory} has {name} {found.decode()!r}, "
                        f"this member has {value!r}"
                    )

    def nearly_full(self) -> bool:
        """Whether proposals should be refused: the map or the disk is nearly full. While both have
        much room, only some calls look, but others fill the disk too: none believes a look that is
        older than ``LOOK_LASTS_S``."""
        now = time.monotonic()
        if self._looks_left and now - self._looked_at < LOOK_LASTS_S:
            self._looks_left -= 1
            return False
        self._looked_at = now
        info, page = self._env.info(), self._env.stat()["psize"]
        disk = os.statvfs(self._directory)
        left = min(
            disk.f_bavail * disk.f_frsize - MIN_FREE_DISK_BYTES,
            int(FULL_SHARE * self._map_bytes) - (info["last_pgno"] + 1) * page,
        )
        left -= self._owed_bytes()
        self._looks_left = LOOK_EVERY - 1 if left > MUCH_ROOM_BYTES else 0
        return left < 0

    def _owed_bytes(self) -> int:
        """What is going to be written into the map though nobody asks for it any more."""
        return 0

    # -- writing ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the writer thread."""
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def submit(self, batch: B, done: Done) -> None:
        """Write ``batch`` with the next transaction; batches are written in order.

        :param done: called *in the writer's thread* with None once it is on disk, or with the error
            after which nothing more may be written.
        :raises Busy: too many batches wait; nothing was done.
        """
        if len(self._queue) >= MAX_BATCHES:
            raise Busy(f"{MAX_BATCHES} writes wait for the disk", retry_after_s=0.1)
        self._queue.append((batch, done))
        if self._work >= 0:
            os.eventfd_write(self._work, 1)

    def close(self) -> None:
        """Write what was submitted, end the thread, close the environment."""
        if self._thread is not None:
            self._queue.append(None)
            os.eventfd_write(self._work, 1)
            self._thread.join()
            self._thread = None
        self._env.close()
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
        work, self._work = self._work, -1
        if work >= 0:
            os.close(work)

    def _run(self) -> None:
        open_ = True
        while open_:
            os.eventfd_read(self._work)
            items: list[tuple[B, Done]] = []
            while open_ and self._queue:
                item = self._queue.popleft()
                if item is None:
                    open_ = False
                else:
                    items.append(item)
            if items:
                self._write(items)
        if self._failed is None:
            self._ending()

    def _write(self, items: Sequence[tuple[B, Done]]) -> None:
        try:
            if self._failed is None:
                self._make_durable([batch for batch, _ in items])
        except Exception as caught:
            self._failed = caught
        for _, done in items:
            done(self._failed)

    def _make_durable(self, batches: Sequence[B]) -> None:
        """Write batches in the writer's thread, in order; all are durable when this returns."""
        with self._env.begin(write=True) as transaction:
            for batch in batches:
                self._put(transaction, batch)

    def _ending(self) -> None:
        """The last thing that the writer's thread does, if nothing failed."""

    def _put(self, transaction: Any, batch: B) -> None:
        """Write one batch in the writer's thread, within its transaction."""
        raise TypeError(f"{type(self).__name__} does not say how it writes")


def _locked(directory: Path) -> int:
    """An open lock file of ``directory``. :raises ConfigError: another process has it."""
    lock = os.open(directory / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ConfigError(f"the store in {directory} is in use by another process") from None
    return lock
