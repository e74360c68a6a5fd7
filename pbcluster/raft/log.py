"""The log of one member, as its core sees it: everything kept is in memory.

Positions, each at most the next one of its line::

    compacted <= applied <= handed <= min(commit, durable)
    durable <= saved <= last

``saved`` has been handed to the driver for writing, ``durable`` is known to be on disk, ``handed``
was given out to be applied, ``applied`` is. Entries at or below ``compacted`` are gone and covered
by a snapshot. Invariants: terms never fall; nothing at or below ``commit`` is ever replaced; an
entry is replaced only by one of another term.

What is kept is bounded by whoever calls :meth:`compact` (the driver, after a snapshot) and by the
bound on uncommitted bytes. This module does no I/O and knows nothing of roles.
"""

from __future__ import annotations

from collections.abc import Sequence

from pbcluster.errors import LocalProtocolError
from pbcluster.raft.messages import Entry, EntryKind, SnapshotMeta


class InvariantViolated(LocalProtocolError):
    """The core met a state that cannot be: a bug, or storage that lies. The process must end."""

    code = "raft_invariant"


class RaftLog:
    """See the module. Indexes count from 1; 0 is before the first, of term 0."""

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[Entry] = ()) -> None:
        """
        :param snapshot: the latest durable snapshot; ``SnapshotMeta()`` if there is none.
        :param entries: all durable entries, in a row; they reach back to the snapshot or further.
        :raises InvariantViolated: there is a gap.
        """
        first = entries[0].index if entries else snapshot.index + 1
        if first > snapshot.index + 1:
            raise InvariantViolated(f"entries begin at {first}, the snapshot ends {snapshot.index}")
        if any(entry.index != first + offset for offset, entry in enumerate(entries)):
            raise InvariantViolated("entries are not in a row")
        if first <= snapshot.index:
            entries = entries[snapshot.index + 1 - first :]
        #: The snapshot that may be sent to others.
        self.snapshot = snapshot
        #: A snapshot from the leader that is not durable yet.
        self.pending_snapshot: SnapshotMeta | None = None
        self._pending_handed = False
        self.compacted_index = snapshot.index
        self._compacted_term = snapshot.term
        self._entries = list(entries)
        self.commit = snapshot.index
        self.handed = snapshot.index
        self.applied = snapshot.index
        self.durable = self.last_index
        self.saved = self.durable
        self._handed_bytes = 0

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the snapshot if there is none after it."""
        return self.compacted_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self._entries[-1].term if self._entries else self._compacted_term

    def term(self, index: int) -> int | None:
        """The term of the entry at ``index``; None if it is compacted or not there yet."""
        offset = index - self.compacted_index
        if offset == 0:
            return self._compacted_term
        if 0 < offset <= len(self._entries):
            return self._entries[offset - 1].term
        return None

    def entry(self, index: int) -> Entry:
        """The entry at ``index``.

        :raises InvariantViolated: it is not here.
        """
        offset = index - self.compacted_index
        if not 0 < offset <= len(self._entries):
            raise InvariantViolated(f"no entry {index} between {self.compacted_index} and last")
        return self._entries[offset - 1]

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as good as this one (paper, section 5.4.1)."""
        own_term = self.last_term
        return last_term > own_term or (last_term == own_term and last_index >= self.last_index)

    def read(self, first: int, max_bytes: int, last: int | None = None) -> tuple[Entry, ...]:
        """Entries from ``first`` (to ``last``), at most ``max_bytes`` but at least one if any."""
        start = first - self.compacted_index - 1
        stop = len(self._entries) if last is None else last - self.compacted_index
        size = 0
        end = start
        while end < stop:
            size += self._entries[end].size_bytes
            if size > max_bytes and end > start:
                break
            end += 1
        return tuple(self._entries[start:end])

    # -- changing the tail ------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """A leader adds to its own log."""
        self._entries.extend(entries)

    def try_append(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        """A follower takes a leader's entries.

        :returns: the last index now known to agree with the leader, or None: the logs do not agree
            at ``prev_index`` and nothing was changed.
        :raises InvariantViolated: a committed entry would be replaced.
        """
        if self.term(prev_index) != prev_term:
            return None
        last_new = prev_index + len(entries)
        for position, entry in enumerate(entries):
            known = self.term(entry.index)
            if known == entry.term:
                continue
            if known is not None:
                self._truncate(entry.index)
            self._entries.extend(entries[position:])
            break
        return last_new

    def _truncate(self, first: int) -> None:
        """Drop ``first`` and everything after it: it conflicts with the leader's log."""
        if first <= self.commit:
            raise InvariantViolated(f"entry {first} conflicts, but {self.commit} is committed")
        del self._entries[first - self.compacted_index - 1 :]
        self.durable = min(self.durable, first - 1)
        self.saved = min(self.saved, first - 1)

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """The highest position, at most ``index``, whose term is at most ``term``: below it the
        other log may agree, above it cannot. Terms never fall, so whole terms are skipped.

        :returns: index and term; term 0 where this log cannot tell.
        """
        index = min(index, self.last_index)
        while index > self.compacted_index:
            own = self._entries[index - self.compacted_index - 1].term
            if own <= term:
                return index, own
            index -= 1
        return index, self._compacted_term if index == self.compacted_index else 0

    # -- commit and apply -------------------------------------------------------------------------

    def commit_to(self, index: int) -> bool:
        """Everything up to ``index`` is committed; False if that was known."""
        if index <= self.commit:
            return False
        if index > self.last_index:
            raise InvariantViolated(f"commit {index} beyond the last entry {self.last_index}")
        self.commit = index
        return True

    def has_next_to_apply(self) -> bool:
        """Whether :meth:`next_to_apply` would give something."""
        return self.pending_snapshot is None and self.handed < min(self.commit, self.durable)

    def next_to_apply(self, max_bytes: int) -> tuple[Entry, ...]:
        """Hand out committed, durable entries; at most ``max_bytes`` wait for ``applied_to``."""
        limit = min(self.commit, self.durable)
        room = max_bytes - self._handed_bytes
        if self.pending_snapshot is not None or self.handed >= limit or room <= 0:
            return ()
        entries = self.read(self.handed + 1, room, limit)
        self.handed += len(entries)
        self._handed_bytes += sum(entry.size_bytes for entry in entries)
        return entries

    def applied_to(self, index: int) -> None:
        """The driver applied everything up to ``index``; late news after a snapshot are none."""
        if index > self.handed:
            raise InvariantViolated(f"applied {index}, but handed out {self.handed}")
        if index <= self.applied:
            return
        done = self.read(self.applied + 1, 2**62, index)
        self._handed_bytes -= sum(entry.size_bytes for entry in done)
        self.applied = index

    # -- durability -------------------------------------------------------------------------------

    def unsaved(self) -> tuple[Entry, ...]:
        """Entries that were not yet handed out for writing; they are now."""
        entries = tuple(self._entries[self.saved - self.compacted_index :])
        self.saved = self.last_index
        return entries

    def take_snapshot_to_persist(self) -> SnapshotMeta | None:
        """The pending snapshot, once."""
        if self.pending_snapshot is None or self._pending_handed:
            return None
        self._pending_handed = True
        return self.pending_snapshot

    def has_unsaved(self) -> bool:
        """Whether there is something to write."""
        pending = self.pending_snapshot is not None and not self._pending_handed
        return pending or self.saved < self.last_index

    def stable_to(self, index: int, term: int) -> bool:
        """A write that ended at (``index``, ``term``) is durable; False if that says nothing about
        the log as it is now (the entry was replaced meanwhile, or was durable before)."""
        if self.term(index) != term or not self.durable < index <= self.saved:
            return False
        self.durable = index
        return True

    # -- snapshots --------------------------------------------------------------------------------

    def restore(self, meta: SnapshotMeta) -> None:
        """Throw the log away: ``meta`` covers all of it that counts."""
        if meta.index <= self.commit:
            raise InvariantViolated(f"snapshot {meta.index} at or below commit {self.commit}")
        self.pending_snapshot = meta
        self._pending_handed = False
        self._entries = []
        self.compacted_index = meta.index
        self._compacted_term = meta.term
        self.commit = self.handed = meta.index
        # Nothing before the snapshot is wanted from the disk any more; the snapshot itself becomes
        # durable by snapshot_durable, until when nothing is handed out.
        self.durable = self.saved = meta.index
        self.applied = meta.index
        self._handed_bytes = 0

    def snapshot_durable(self, index: int) -> None:
        """The snapshot at ``index`` was installed and is durable."""
        if self.pending_snapshot is not None and self.pending_snapshot.index == index:
            self.snapshot = self.pending_snapshot
            self.pending_snapshot = None
            self._pending_handed = False

    def compact(self, meta: SnapshotMeta, index: int) -> None:
        """``meta`` is a durable snapshot of applied state; entries up to ``index`` may go.

        :raises InvariantViolated: not applied yet, or the snapshot does not cover ``index``.
        """
        if not index <= meta.index <= self.applied:
            raise InvariantViolated(
                f"compact to {index} with snapshot {meta.index}, applied {self.applied}"
            )
        if meta.index >= self.snapshot.index:
            self.snapshot = meta
        if index <= self.compacted_index:
            return
        term = self.entry(index).term
        del self._entries[: index - self.compacted_index]
        self.compacted_index = index
        self._compacted_term = term

    # -- what the core asks -----------------------------------------------------------------------

    def tail_bytes(self) -> int:
        """Bytes of the entries after ``commit``."""
        tail = self._entries[self.commit - self.compacted_index :]
        return sum(entry.size_bytes for entry in tail)

    def has_config_in(self, after: int, upto: int) -> bool:
        """Whether a CONFIG entry lies in (``after``, ``upto``]."""
        low = max(after, self.compacted_index) - self.compacted_index
        high = upto - self.compacted_index
        return any(entry.kind is EntryKind.CONFIG for entry in self._entries[low:high])
