"""Snapshots of one member: those it makes, and those that come from the leader.

Neither stops the rest. A snapshot of our own is an image that is taken in one turn, encoded in a
thread, written piece by piece between the log's entries, and only then pointed at; then the log
before it goes. One that comes in is written as its chunks come, checked and read in a thread, and
only then put in force, by a small write of its own. Which snapshot counts is the core's to say.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pbcluster.controlplane.raft_store import Compaction, MemberStore, Piece, Write, pieces_of
from pbcluster.errors import NotFound, StorageCorrupt
from pbcluster.raft import (
    AnyMessage,
    ChunkReceived,
    ChunkToSend,
    ConfState,
    Entry,
    RaftCore,
    SnapshotMeta,
)

#: After so many entries, or bytes of them, a snapshot replaces the log: replay stays below a
#: second, and the log is bounded however large commands are.
SNAPSHOT_EVERY = 20_000
SNAPSHOT_EVERY_BYTES = 64 * 1024**2
#: Entries kept behind a snapshot for members that lag little (a restart takes about a second).
KEEP_ENTRIES = 2_000
#: Pieces of an own snapshot in one transaction: between them entries get their turn.
PIECES_AT_ONCE = 4
#: Pieces of a coming snapshot that wait for the disk; more are dropped, the leader repeats them.
MAX_STAGING = 32

log = Logger()


class Driver(Protocol):
    """What is needed of the driver."""

    @property
    def core(self) -> RaftCore | None:
        """None: this member does nothing any more."""

    def submit(self, writes: tuple[Write, ...], then: Callable[[], None]) -> None:
        """Write; ``then`` is called once it is durable."""

    def pump(self) -> None:
        """Do what the core wants done."""

    def end(self, reason: str) -> None:
        """This member cannot be trusted any more."""


class Imaged(Protocol):
    """What is needed of the state machine."""

    def load(self, data: bytes) -> Any:
        """The state that the bytes of a snapshot describe, in any thread; it is not in force yet.

        :raises ValueError: they describe none.
        """

    def install(self, state: Any, meta: SnapshotMeta) -> None:
        """What :meth:`load` gave is the state from now on."""

    def image(self) -> Callable[[], bytes]:
        """The state as it is now; the function gives its bytes, in any thread."""


@attrs.define(eq=False)
class _Staging:
    """A snapshot that is coming in."""

    meta: SnapshotMeta
    size_bytes: int = 0
    checksum: int = 0


class Snapshots:
    """See the module."""

    def __init__(
        self,
        driver: Driver,
        store: MemberStore,
        machine: Imaged,
        in_thread: Callable[..., Awaitable[Any]],
        *,
        snapshot_every: int,
        keep: int,
    ) -> None:
        """
        :param snapshot_every: entries after which a snapshot is made.
        :param keep: entries kept behind it.
        """
        self._driver = driver
        self._store = store
        self._machine = machine
        self._in_thread = in_thread
        self._snapshot_every = snapshot_every
        self._keep_entries = keep
        self._staging: _Staging | None = None
        self._staging_writes = 0
        #: All of them came in: they are being written, checked, or wait to be installed. One may be
        #: there twice, if it came twice.
        self._verifying: list[SnapshotMeta] = []
        self._loaded: dict[SnapshotMeta, Any] = {}
        self._installing: SnapshotMeta | None = None
        self._snapshotting = False
        self._since_entries = 0
        self._since_bytes = 0

    def recover(self, meta: SnapshotMeta) -> None:
        """At a start: put in force what is stored.

        :raises StorageCorrupt: it fails its check, or describes no state.
        """
        data = self._store.read_snapshot(meta)
        try:
            state = self._machine.load(data)
        except ValueError as error:
            raise StorageCorrupt(f"snapshot {meta.index}: {error}") from None
        self._machine.install(state, meta)

    # -- to others --

    def message(self, chunk: ChunkToSend) -> AnyMessage | None:
        """What brings a piece of our snapshot to another member; None: the snapshot is gone."""
        try:
            data = self._store.read_piece(chunk.meta, chunk.offset, chunk.length_bytes)
        except NotFound as error:
            log.warn("{to} gets no snapshot: {error}", to=chunk.to, error=error.message)
            return None
        return chunk.message(data)

    # -- from the leader --------------------------------------------------------------------------

    def is_behind(self) -> bool:
        """Whether further chunks should be dropped."""
        return self._staging_writes >= MAX_STAGING

    def stage(self, part: ChunkReceived) -> None:
        """Put a chunk in its place."""
        if part.offset == 0:
            self._staging = _Staging(part.meta)
        staging = self._staging
        if staging is None or staging.meta != part.meta:
            raise AssertionError("a chunk of a snapshot that never began")
        staging.size_bytes += len(part.data)
        staging.checksum = zlib.crc32(part.data, staging.checksum)
        self._staging_writes += 1
        if part.last:
            self._verifying.append(part.meta)

        def written() -> None:
            self._staging_writes -= 1
            if part.last:
                self._verify(staging)

        self._driver.submit((Write(pieces=(Piece(part.meta, part.offset, part.data),)),), written)

    def _verify(self, staging: _Staging) -> None:
        """All is on the disk: see whether it is sound, and what state it describes."""
        meta = staging.meta
        if (staging.size_bytes, staging.checksum) != (meta.size_bytes, meta.checksum):
            self._refused(meta, "size or checksum are wrong")
            return

        def read() -> Any:
            return self._machine.load(self._store.read_snapshot(meta))

        work = self._later(read)
        work.addCallback(self._verified, meta)
        work.addErrback(lambda failure: self._refused(meta, str(failure.value)))

    def _later(self, function: Callable[[], Any]) -> Deferred[Any]:
        async def run() -> Any:
            return await self._in_thread(function)

        return Deferred.fromCoroutine(run())

    def _verified(self, state: Any, meta: SnapshotMeta) -> None:
        # It may have come in twice, and be waiting to be installed already.
        if self._driver.core is None or meta in self._loaded:
            return
        self._loaded[meta] = state
        if not self._driver.core.install_snapshot(meta):
            self._forget(meta)
        self._driver.pump()

    def _refused(self, meta: SnapshotMeta, why: str) -> None:
        if meta in self._loaded:
            return
        self._forget(meta)
        if self._driver.core is not None:
            log.critical("the snapshot {i} that came in is refused: {why}", i=meta.index, why=why)
            self._driver.core.refuse_snapshot(meta)
            self._driver.pump()

    def _forget(self, meta: SnapshotMeta) -> None:
        self._loaded.pop(meta, None)
        if meta in self._verifying:
            self._verifying.remove(meta)

    def to_install(self, meta: SnapshotMeta | None) -> None:
        """The core wants ``meta`` installed, if it is one."""
        self._installing = meta or self._installing

    def coming(self) -> tuple[SnapshotMeta, ...]:
        """Those that come in or wait to be installed: their pieces are still needed, also when an
        older one is installed, which may be written later than they were staged."""
        staging = () if self._staging is None else (self._staging.meta,)
        return (*staging, *self._verifying)

    def installed(self, meta: SnapshotMeta) -> None:
        """The snapshot is durable: the state machine becomes what it says."""
        self._machine.install(self._loaded[meta], meta)
        self._since_entries = self._since_bytes = 0
        # A newer one may be ready already.
        for old in [one for one in self._verifying if one.index <= meta.index]:
            self._forget(old)
        if self._installing == meta:
            self._installing = None
        log.info("installed the leader's snapshot {index}", index=meta.index)

    # -- our own ----------------------------------------------------------------------------

    def applied(self, entry: Entry) -> None:
        """One more entry that a snapshot will replace."""
        self._since_entries += 1
        self._since_bytes += entry.size_bytes

    def make_if_due(self, index: int, term: int, conf: ConfState) -> None:
        """Begin a snapshot if enough was applied since the last.

        :param index: what is applied; its term, and the membership after it.
        """
        due = (
            self._since_entries >= self._snapshot_every or self._since_bytes >= SNAPSHOT_EVERY_BYTES
        )
        # Not while one from the leader is being installed: that one is newer.
        if not due or self._snapshotting or self._installing is not None:
            return
        self._snapshotting = True
        self._since_entries = self._since_bytes = 0
        encode = self._machine.image()

        def made() -> tuple[SnapshotMeta, bytes]:
            data = encode()
            return SnapshotMeta(index, term, conf, len(data), zlib.crc32(data)), data

        work = self._later(made)
        work.addCallback(lambda both: self._write_pieces(both[0], pieces_of(*both)))
        work.addErrback(
            lambda failure: self._driver.end(f"no snapshot can be made: {failure.value}")
        )

    def _write_pieces(self, meta: SnapshotMeta, pieces: Iterator[Piece]) -> None:
        if self._driver.core is None:
            return
        some = tuple(islice(pieces, PIECES_AT_ONCE))
        if some:
            self._driver.submit((Write(pieces=some),), lambda: self._write_pieces(meta, pieces))
        else:
            self._compact(meta)

    def _compact(self, meta: SnapshotMeta) -> None:
        core = self._driver.core
        assert core is not None
        if self._installing is not None or meta.index <= core.snapshots_in_use()[0].index:
            # A newer one came from the leader meanwhile.
            self._snapshotting = False
            return
        upto = core.compact(meta, max(0, meta.index - self._keep_entries))
        keep = (*core.snapshots_in_use(), *self.coming())

        def written() -> None:
            self._snapshotting = False
            log.info("snapshot {index}, log kept from {upto}", index=meta.index, upto=upto + 1)

        self._driver.submit((Write(compaction=Compaction(meta, upto, keep)),), written)
