"""A simulated disk: what is durable, and what a crash takes away.

:class:`SimDisk` means by a ``Write`` what ``RaftStore`` means (a test runs both side by side), and
outlives its member. :class:`SimStore` is what one life of the member has of it: a writer that joins
what waits into one transaction, all or nothing, durable in order when its fsync ends. What was not
synced is lost in a crash; whether the transaction under way made it is chance.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

from pbcluster.controlplane.lmdb_store import Done
from pbcluster.controlplane.raft_store import Compaction, Write
from pbcluster.errors import NotFound, StorageCorrupt
from pbcluster.raft import ConfState, Entry, HardState, SnapshotMeta, StoredState

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.process import SimProcess

#: A hanging fsync is looked after so often.
HANGING_RETRY = 20
Batch = tuple[Write, ...]
#: What tells the pieces of one snapshot from those of others.
Name = tuple[int, int, int]


def _name(meta: SnapshotMeta) -> Name:
    return meta.index, meta.term, meta.checksum


class SimDisk:
    """The durable state of one member."""

    def __init__(self) -> None:
        self.hard = HardState()
        self.snapshot = SnapshotMeta()
        self.entries: list[Entry] = []
        self.pieces: dict[Name, dict[int, bytes]] = {}
        self.incarnation = 0
        #: For the checker: term → the end of the log after a write under it. A transaction may hold
        #: several writes; each of them was durable in its turn, as if it had been one of its own.
        self.reached: dict[int, int] = {}

    def format(self, conf: ConfState, image: bytes) -> None:
        """The disk of a first member of a group."""
        first = StoredState.first(conf, len(image), zlib.crc32(image))
        self.hard, self.snapshot = first.hard, first.snapshot
        self.pieces = {_name(first.snapshot): {0: image}}

    # -- reading ----------------------------------------------------------------------------------

    def last_index(self) -> int:
        """The last index covered by log or snapshot."""
        return self.entries[-1].index if self.entries else self.snapshot.index

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is durable here, or covered by the snapshot."""
        if index <= self.snapshot.index:
            return True
        if not self.entries:
            return False
        offset = index - self.entries[0].index
        return 0 <= offset < len(self.entries) and self.entries[offset].term == term

    def recover(self) -> StoredState:
        """As ``RaftStore.recover``."""
        entries, meta = tuple(self.entries), self.snapshot
        for before, after in pairwise(entries):
            if after.index != before.index + 1:
                raise StorageCorrupt(f"log entry {before.index + 1} is missing")
        self._forget_pieces((meta,))
        if entries and entries[0].index > meta.index + 1:
            raise StorageCorrupt(f"log entry {meta.index + 1} is missing")
        if entries and self.hard.commit > max(meta.index, entries[-1].index):
            raise StorageCorrupt(f"log entry {entries[-1].index + 1} is missing: it is committed")
        return StoredState(meta.conf, self.hard, meta, entries, meta.index)

    def read_piece(self, meta: SnapshotMeta, offset: int, length: int) -> bytes:
        """As ``RaftStore.read_piece``."""
        found = bytearray()
        for begin, data in sorted(self.pieces.get(_name(meta), {}).items()):
            wanted = offset + len(found)
            if begin <= wanted < begin + len(data):
                found += data[wanted - begin :]
        if len(found) < length:
            raise NotFound(f"snapshot {meta.index} lacks its bytes from {offset + len(found)}")
        return bytes(found[:length])

    def read_snapshot(self, meta: SnapshotMeta) -> bytes:
        """As ``RaftStore.read_snapshot``."""
        try:
            data = self.read_piece(meta, 0, meta.size_bytes)
        except NotFound as error:
            raise StorageCorrupt(error.message) from None
        if meta.size_bytes and zlib.crc32(data) != meta.checksum:
            raise StorageCorrupt(f"snapshot {meta.index} fails its checksum")
        return data

    # -- writing ----------------------------------------------------------------------------------

    def is_whole(self) -> bool:
        """Whether a member could start from it."""
        meta, hard, entries = self.snapshot, self.hard, self.entries
        pieces = self.pieces.get(_name(meta), {})
        return (
            sum(map(len, pieces.values())) == meta.size_bytes
            and hard.commit <= max(meta.index, self.last_index())
            and (not entries or entries[0].index <= meta.index + 1)
        )

    def write(self, batches: list[Batch]) -> None:
        """One transaction became durable."""
        for batch in batches:
            for write in batch:
                self._put(write)

    def _put(self, write: Write) -> None:
        for piece in write.pieces:
            self.pieces.setdefault(_name(piece.meta), {})[piece.offset] = piece.data
        if write.install is not None:
            self.snapshot, self.entries = write.install, []
            self._forget_pieces((write.install, *write.keep))
        if write.entries:
            self._put_entries(write.entries)
        if write.hard_state is not None:
            self.hard = write.hard_state
        if write.compaction is not None:
            self._compact(write.compaction)
        if write.entries or write.install is not None:
            term = self.hard.term
            self.reached[term] = max(self.reached.get(term, 0), self.last_index())

    def _put_entries(self, entries: tuple[Entry, ...]) -> None:
        first = entries[0].index
        if self.entries and self.entries[-1].index >= first:
            self.entries = [entry for entry in self.entries if entry.index < first]
        self.entries.extend(entries)

    def _compact(self, compaction: Compaction) -> None:
        self.snapshot = compaction.meta
        self.entries = [entry for entry in self.entries if entry.index > compaction.upto]
        self._forget_pieces((compaction.meta, *compaction.keep))

    def _forget_pieces(self, keep: tuple[SnapshotMeta, ...]) -> None:
        names = {_name(meta) for meta in keep}
        self.pieces = {name: found for name, found in self.pieces.items() if name in names}


class SimStore:
    """A ``MemberStore`` on a :class:`SimDisk`, for one life."""

    def __init__(self, process: SimProcess, disk: SimDisk) -> None:
        self._process = process
        self._world = process.world
        self._disk = disk
        self._waiting: list[tuple[Batch, Done]] = []
        #: The transaction under way.
        self._writing: list[tuple[Batch, Done]] = []
        self._open = False
        self.failed: OSError | None = None

    def recover(self) -> StoredState:
        """As ``MemberStore``."""
        return self._disk.recover()

    def begin_life(self) -> int:
        """As ``MemberStore``."""
        self._disk.incarnation += 1
        return self._disk.incarnation

    def read_piece(self, meta: SnapshotMeta, offset: int, length: int) -> bytes:
        """As ``MemberStore``."""
        return self._disk.read_piece(meta, offset, length)

    def read_snapshot(self, meta: SnapshotMeta) -> bytes:
        """As ``MemberStore``."""
        return self._disk.read_snapshot(meta)

    def nearly_full(self) -> bool:
        """As ``MemberStore``."""
        return self._world.full == self._process.member_id

    # -- the writer -------------------------------------------------------------------------------

    def start(self) -> None:
        """As ``MemberStore``."""
        self._open = True
        self._begin()

    def submit(self, batch: Batch, done: Done) -> None:
        """As ``MemberStore``."""
        self._waiting.append((batch, done))
        self._begin()

    def _begin(self) -> None:
        if self._writing or not self._waiting or not self._open:
            return
        self._writing, self._waiting = self._waiting, []
        duration = self._world.fsync_duration(self._process.member_id)
        self._world.after(duration, self._process.in_turn, ("thread", self._synced, ()))

    def _synced(self) -> None:
        if self._world.hanging == self._process.member_id:
            self._world.after(HANGING_RETRY, self._process.in_turn, ("thread", self._synced, ()))
            return
        items, self._writing = self._writing, []
        if self.failed is None and self._world.fsync_fails(self._process.member_id):
            self._world.trace(f"{self._process.member_id} fsync failed")
            if self._world.disk_random.randrange(2):
                self._disk.write([batch for batch, _ in items])
            self.failed = OSError("simulated fsync error")
        elif self.failed is None:
            self._disk.write([batch for batch, _ in items])
        self._world.checker.states.written(self._process.member_id, self._disk)
        for _, done in items:
            done(self.failed)
        self._begin()

    def close(self) -> None:
        """As ``MemberStore``: at once, while the process waits."""
        if self._open and self.failed is None:
            self._disk.write([batch for batch, _ in (*self._writing, *self._waiting)])
        self._writing, self._waiting, self._open = [], [], False

    def crash(self) -> list[Done]:
        """The transaction under way became durable just before the end.

        :returns: who was to be told so.
        """
        items, self._writing = self._writing, []
        self._open = False
        if self.failed is None:
            self._disk.write([batch for batch, _ in items])
        return [done for _, done in items]
