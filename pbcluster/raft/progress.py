"""What a leader knows of one member's log, and how fast it may send.

Three states (as in etcd's tracker): in PROBE one append at a time finds where the logs agree; in
REPLICATE appends are pipelined, bounded in number and bytes; in SNAPSHOT nothing but chunks of a
snapshot goes out. ``match`` is known to be durable there and only grows; ``match < next`` always.
"""

from __future__ import annotations

import enum
from collections import deque

from pbcluster.raft.messages import SnapshotMeta


class ProgressState(enum.Enum):
    """How the member is fed."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """Appends that were sent and not yet acknowledged, oldest first; bounded in count and bytes.

    The byte bound may be overrun by the last message let in: at least one must always fit.
    """

    __slots__ = ("_bytes", "_max_bytes", "_max_count", "_sent")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sent: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def size_bytes(self) -> int:
        """Bytes in flight."""
        return self._bytes

    def full(self) -> bool:
        """Whether nothing more may be sent."""
        return len(self._sent) >= self._max_count or self._bytes >= self._max_bytes

    def add(self, last_index: int, size_bytes: int) -> None:
        """A message whose last entry is ``last_index`` was sent."""
        self._sent.append((last_index, size_bytes))
        self._bytes += size_bytes

    def free_to(self, index: int) -> None:
        """Everything up to ``index`` arrived."""
        while self._sent and self._sent[0][0] <= index:
            self._bytes -= self._sent.popleft()[1]

    def clear(self) -> None:
        """Nothing is in flight any more, or nothing is known about it."""
        self._sent.clear()
        self._bytes = 0


class Progress:
    """One member as its leader sees it."""

    __slots__ = (
        "chunk_wait_ticks",
        "heard",
        "heard_before",
        "inflights",
        "match",
        "next",
        "next_offset",
        "paused",
        "pending",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, next_index: int, inflights: Inflights) -> None:
        self.match = 0
        self.next = next_index
        self.state = ProgressState.PROBE
        self.inflights = inflights
        #: An append is out (PROBE) or the pipe is full (REPLICATE): wait for an answer.
        self.paused = False
        #: Heard from since the last check of the quorum, or new in the group.
        self.recent_active = False
        #: Really heard from since then, and between that check and the one before.
        self.heard = False
        self.heard_before = False
        #: Highest commit index told.
        self.sent_commit = 0
        #: In SNAPSHOT: which one, the bytes acknowledged, and ticks since the last chunk.
        self.pending: SnapshotMeta | None = None
        self.next_offset = 0
        self.chunk_wait_ticks = 0

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.paused = False
        self.pending = None
        self.next_offset = 0
        self.chunk_wait_ticks = 0
        self.inflights.clear()

    def hear(self) -> None:
        """The member spoke."""
        self.recent_active = True
        self.heard = True

    def become_probe(self, after: int = 0) -> None:
        """Send one append at a time, beginning after ``match`` or, if higher, ``after``."""
        self._enter(ProgressState.PROBE)
        self.next = max(self.match, after) + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """The logs agree up to ``match``: pipeline."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, meta: SnapshotMeta) -> None:
        """The log no longer reaches back: send the snapshot ``meta``, to its end, even if newer
        ones are made meanwhile, or none would ever arrive."""
        self._enter(ProgressState.SNAPSHOT)
        self.pending = meta
        self.next = meta.index + 1
        self.sent_commit = meta.index

    def may_send_entries(self) -> bool:
        """Whether an append may carry entries; an empty one may go even into a full pipe, or a
        pipe whose content was lost would stay full for ever."""
        return self.state is not ProgressState.REPLICATE or not self.inflights.full()

    def is_paused(self) -> bool:
        """Whether no append at all may be sent now."""
        return self.paused or self.state is ProgressState.SNAPSHOT

    def sent_entries(self, last_index: int, count: int, size_bytes: int) -> None:
        """An append with ``count`` entries up to ``last_index`` was sent."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next = last_index + 1
                self.inflights.add(last_index, size_bytes)
            self.paused = self.inflights.full()
        elif count:
            self.paused = True

    def can_bump_commit(self, commit: int) -> bool:
        """Whether telling ``commit`` would tell the member anything."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def acknowledged(self, index: int) -> bool:
        """``index`` is durable there; False if that was known."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.paused = False
        return True

    def rejected(self, index: int, hint: int) -> bool:
        """The append after ``index`` did not fit; the logs may agree at ``hint``. False: an old
        answer, already overtaken."""
        if self.state is ProgressState.REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != index:
                return False
            self.next = max(min(index, hint + 1), self.match + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.paused = False
        return True
