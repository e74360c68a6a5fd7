"""The access log: one line of JSON for each request that is over.

Lines are collected and written together, by a thread, so that neither a request nor the loop waits
for a disk. A file that is full is put aside under a number; the oldest goes. If the disk takes
nothing for so long that :data:`MAX_WAITING` lines wait, further ones are dropped and counted: the
log gives way, not the requests.

No query and no header stands in a line: they may hold secrets.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.gateway.parts import Record

#: Lines reach the file within so long.
FLUSH_S = 0.25
#: ... or when so many wait: a write of about 1.5 MiB.
FLUSH_LINES = 4_000
#: So many are encoded at once: what they are made of is still in the processor's cache then, and
#: there again for those that follow.
ENCODE_LINES = 64
#: About 8 MiB.
MAX_WAITING = 20_000
#: A write waits so long for one before it, which a disk holds.
LOCK_S = 2.0
MAX_FILE_BYTES = 64 * 1024 * 1024
#: Full files kept beside the one that is written.
KEPT_FILES = 4

_QUERY = ord("?")

log = Logger(__name__)


class AccessLine(msgspec.Struct, gc=False):
    """What a line tells; times in milliseconds, but for ``time``, Unix seconds."""

    time: float
    request_id: str
    peer: str
    method: str
    path: str
    status: int
    tenant: str
    node: str
    route: str
    breaker: str
    outcome: str
    attempts: int
    stream: bool
    held_ms: int
    first_byte_ms: float
    duration_ms: float
    bytes_in: int
    bytes_out: int


_encode_lines = msgspec.json.Encoder().encode_lines


def access_line(record: Record, at_s: float) -> AccessLine:
    """What is told of one request. It is encoded later, many at once.

    :param at_s: when the request was over, Unix seconds.
    """
    head, held_s = record.head, record.held_s
    method: bytes = head.method
    path: bytes = head.target
    if _QUERY in path:
        path = path.partition(b"?")[0]
    return AccessLine(
        int(at_s * 1000) / 1000,
        record.request_id,
        head.peer_host,
        method.decode("ascii"),
        path.decode("latin-1"),
        record.status,
        record.tenant,
        record.node,
        record.source,
        record.breaker,
        record.outcome,
        record.attempts,
        record.stream,
        round(held_s * 1000) if held_s else 0,
        int(record.first_byte_s * 10_000) / 10,
        int(record.duration_s * 10_000) / 10,
        record.request_bytes,
        record.response_bytes,
    )


class AccessLog:
    """Writes the lines of one process.

    :ivar dropped: lines that found no room.
    """

    def __init__(
        self,
        reactor: Any,
        file: Path,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """
        :param reactor: provides IReactorTime and IReactorThreads.
        """
        self.dropped = 0
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._unix_s = unix_s
        self._file = _RotatedFile(file, max_file_bytes)
        #: Those that are not encoded yet, those that are, and how many both are.
        self._lines: list[AccessLine] = []
        self._encoded: list[bytes] = []
        self._waiting = 0
        self._writing = False
        self._due: IDelayedCall | None = None

    def add(self, record: Record) -> None:
        """Log one request that is over."""
        if self._waiting >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting += 1
        lines = self._lines
        lines.append(access_line(record, self._unix_s()))
        if self._due is None:
            self._due = self._clock.callLater(FLUSH_S, self._flush)
        if len(lines) >= ENCODE_LINES:
            self._encode()
            if self._waiting >= FLUSH_LINES and not self._writing:
                self._write()

    def reopen(self) -> None:
        """Whoever rotates logs moved the file: the next lines go to a new one."""
        self._file.reopen_wanted = True

    def close(self) -> None:
        """Write what waits, in this thread: the process ends. It is not held by a hung write."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        try:
            self._file.append(self._take())
        except OSError as error:
            log.warn("the last lines of the access log are lost: {error}", error=error)
        self._file.close()

    def _flush(self) -> None:
        self._due = None
        if self._writing:
            self._due = self._clock.callLater(FLUSH_S, self._flush)
        elif self._waiting:
            self._write()

    def _write(self) -> None:
        lines = self._waiting
        data = self._take()
        self._writing = True
        pool = self._reactor.getThreadPool()
        written = deferToThreadPool(self._reactor, pool, self._file.append, data)
        written.addErrback(self._failed, lines)
        written.addCallback(self._written)

    def _failed(self, failure: Failure, lines: int) -> None:
        self.dropped += lines
        log.warn("the access log cannot be written: {error}", error=failure.getErrorMessage())

    def _written(self, _: object) -> None:
        self._writing = False
        if self._waiting >= FLUSH_LINES:
            self._write()

    def _encode(self) -> None:
        lines, self._lines = self._lines, []
        self._encoded.append(_encode_lines(lines))

    def _take(self) -> bytes:
        """All lines that wait; none does then."""
        self._encode()
        data = b"".join(self._encoded)
        self._encoded.clear()
        self._waiting = 0
        return data


class _RotatedFile:
    """The file and the full ones before it."""

    def __init__(self, file: Path, max_bytes: int) -> None:
        self.reopen_wanted = False
        self._lock = threading.Lock()
        self._path = file
        self._max_bytes = max_bytes
        self._fd = -1
        self._size = 0

    def append(self, data: bytes) -> None:
        if not data:
            return
        if not self._lock.acquire(timeout=LOCK_S):
            raise OSError(errno.EBUSY, "a write before it has not ended")
        try:
            self._append(data)
        finally:
            self._lock.release()

    def _append(self, data: bytes) -> None:
        if self.reopen_wanted:
            self.reopen_wanted = False
            self.close()
        if self._fd >= 0 and self._size >= self._max_bytes:
            self.close()
            self._rotate()
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._fd).st_size
        while data:
            written = os.write(self._fd, data)
            self._size += written
            data = data[written:]

    def _rotate(self) -> None:
        for number in range(KEPT_FILES, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
