"""A simulated disk: what is durable, and what a crash takes away.

A transaction is all or nothing (as in LMDB); transactions become durable in order, when their fsync
ends. What was not synced is lost in a crash; whether the transaction under way made it is chance.
"""

from __future__ import annotations

from collections.abc import Sequence

from pbcluster.raft import ConfState, Entry, HardState, Ready, SnapshotMeta, StoredState
from pbcluster.testing.raft_sim.machine import Machine, checksum


class SimDisk:
    """The durable state of one member."""

    __slots__ = (
        "applied",
        "applied_conf",
        "applied_image",
        "entries",
        "first_index",
        "hard",
        "incarnation",
        "older_snapshots",
        "snapshot",
        "snapshot_data",
    )

    def __init__(self) -> None:
        self.hard = HardState()
        self.snapshot = SnapshotMeta()
        self.snapshot_data = b""
        self.older_snapshots: dict[SnapshotMeta, bytes] = {}
        self.entries: list[Entry] = []
        self.incarnation = 0
        #: Applied state that was stored apart from snapshots, if the member does so.
        self.applied = 0
        self.applied_conf = ConfState()
        self.applied_image = b""

    def format(self, conf: ConfState) -> None:
        """The disk of a first member of a group."""
        data = Machine().dump()
        first = StoredState.first(conf, len(data), checksum(data))
        self.hard, self.snapshot, self.snapshot_data = first.hard, first.snapshot, data

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

    def write(self, readys: Sequence[Ready], staged: dict[SnapshotMeta, bytes]) -> None:
        """One transaction became durable."""
        for ready in readys:
            if ready.snapshot is not None:
                self.snapshot = ready.snapshot
                self.snapshot_data = staged[ready.snapshot]
                self.entries = []
                self.applied = 0
            if ready.entries:
                first = ready.entries[0].index
                if self.entries:
                    del self.entries[max(0, first - self.entries[0].index) :]
                self.entries.extend(ready.entries)
            if ready.hard_state is not None:
                self.hard = ready.hard_state

    def store_applied(self, index: int, conf: ConfState, image: bytes) -> None:
        """Applied state became durable; a driver stores it with the transaction that follows."""
        if index > self.snapshot.index:
            self.applied, self.applied_conf, self.applied_image = index, conf, image

    def store_snapshot(self, meta: SnapshotMeta, data: bytes, upto: int) -> None:
        """A snapshot of applied state became durable; entries up to ``upto`` go."""
        self.older_snapshots[self.snapshot] = self.snapshot_data
        self.snapshot, self.snapshot_data = meta, data
        self.entries = [entry for entry in self.entries if entry.index > upto]

    def keep_snapshots(self, used: Sequence[SnapshotMeta]) -> None:
        """Remove all older snapshots but those ``used``."""
        for meta in [one for one in self.older_snapshots if one not in used]:
            del self.older_snapshots[meta]

    def snapshot_bytes(self, meta: SnapshotMeta) -> bytes | None:
        """The bytes of a snapshot that is still here."""
        return self.snapshot_data if meta == self.snapshot else self.older_snapshots.get(meta)

    def read(self) -> tuple[StoredState, bytes]:
        """What a start finds: the core's part, and the state machine's bytes."""
        conf, applied, image = self.snapshot.conf, self.snapshot.index, self.snapshot_data
        if self.applied > applied:
            conf, applied, image = self.applied_conf, self.applied, self.applied_image
        entries = tuple(e for e in self.entries if e.index > self.snapshot.index)
        stored = StoredState(conf, self.hard, self.snapshot, entries, applied)
        return stored, image
