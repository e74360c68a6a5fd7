"""The state of one member, shared by the modules that act on it, and its outbox.

:class:`Raft` holds what the paper's figure 2 lists and what a leader adds. It has no behaviour but
putting things into the outbox: ``elections``, ``replication``, ``following``, ``snapshots``,
``membership``, ``reads`` and ``transfer`` are functions on it, one page each, and
:class:`pbcluster.raft.core.RaftCore` is its only owner.
"""

from __future__ import annotations

from typing import Protocol

from pbcluster.raft.log import InvariantViolated, RaftLog
from pbcluster.raft.messages import NOBODY, AnyMessage, MemberId, SnapshotMeta
from pbcluster.raft.options import RaftOptions
from pbcluster.raft.readonly import ReadRounds
from pbcluster.raft.ready import (
    ChunkReceived,
    ChunkToSend,
    ReadState,
    Role,
    Status,
    StoredState,
)
from pbcluster.raft.tracker import Tracker


class RandomSource(Protocol):
    """What the core needs of a seeded ``random.Random``."""

    def randrange(self, start: int, stop: int, /) -> int:
        """A number from ``start`` up to but without ``stop``."""
        ...  # pragma: no cover


class Outbox:
    """Effects that wait for the next :class:`~pbcluster.raft.ready.Ready`."""

    __slots__ = (
        "after",
        "cancelled_reads",
        "chunks_received",
        "chunks_to_send",
        "messages",
        "reads",
    )

    def __init__(self) -> None:
        self.messages: list[AnyMessage] = []
        self.after: list[AnyMessage] = []
        self.reads: list[ReadState] = []
        self.cancelled_reads: list[int] = []
        self.chunks_to_send: list[ChunkToSend] = []
        self.chunks_received: list[ChunkReceived] = []

    def is_empty(self) -> bool:
        """Whether there is no effect."""
        return not (
            self.messages
            or self.after
            or self.reads
            or self.cancelled_reads
            or self.chunks_to_send
            or self.chunks_received
        )


class Staging:
    """The snapshot that is coming in: which one, and how far."""

    __slots__ = ("complete", "meta", "next_offset")

    def __init__(self, meta: SnapshotMeta) -> None:
        self.meta = meta
        self.next_offset = 0
        #: All bytes are there; the driver is checking them.
        self.complete = False


class Raft:
    """See the module."""

    __slots__ = (
        "commit_due",
        "contexts",
        "disk_wait_ticks",
        "election_elapsed",
        "election_timeout",
        "forwarded_reads",
        "heartbeat_elapsed",
        "id",
        "leader",
        "log",
        "now",
        "options",
        "outbox",
        "pending_config_index",
        "random",
        "reads",
        "role",
        "staging",
        "term",
        "tracker",
        "transferee",
        "uncommitted_bytes",
        "unsynced_token",
        "vote",
    )

    def __init__(self, options: RaftOptions, stored: StoredState, random: RandomSource) -> None:
        self.options = options
        self.id: MemberId = options.member
        self.random = random
        self.log = RaftLog(stored.snapshot, stored.entries)
        self._resume(stored)
        self.term = stored.hard.term
        self.vote: MemberId = stored.hard.vote
        self.role = Role.FOLLOWER
        self.leader: MemberId = NOBODY
        self.tracker = Tracker(options, stored.conf, self.log.last_index + 1)
        self.outbox = Outbox()
        #: Ticks since the start; only differences count.
        self.now = 0
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_timeout = 0
        #: The last token that stands for a write (0: all are durable), and the ticks since
        #: anything became durable while there was something to wait for.
        self.unsynced_token = 0
        self.disk_wait_ticks = 0
        #: To whom leadership is being handed.
        self.transferee: MemberId = NOBODY
        #: No change is proposed before this index is applied.
        self.pending_config_index = 0
        self.uncommitted_bytes = 0
        #: Where a commit may wait for the next entries: up to here it waits no longer.
        self.commit_due = 0
        self.reads = ReadRounds()
        #: Reads asked of the leader: context → tick at which it is given up.
        self.forwarded_reads: dict[int, int] = {}
        self.contexts = options.incarnation << 32
        self.staging: Staging | None = None

    def _resume(self, stored: StoredState) -> None:
        """Take up what had been applied and committed before the start."""
        log = self.log
        if not log.commit <= stored.applied <= log.last_index and stored.applied:
            raise InvariantViolated(
                f"applied {stored.applied} is outside of snapshot {log.commit} and log"
            )
        if stored.hard.commit > log.last_index:
            raise InvariantViolated(
                f"commit {stored.hard.commit} is beyond the last entry {log.last_index}"
            )
        log.applied = log.handed = max(log.applied, stored.applied)
        log.commit = max(log.commit, stored.applied, stored.hard.commit)

    # -- outbox -----------------------------------------------------------------------------------

    def send(self, message: AnyMessage) -> None:
        """To be sent at once."""
        self.outbox.messages.append(message)

    def send_after(self, message: AnyMessage) -> None:
        """To be sent when everything up to now is durable."""
        self.outbox.after.append(message)

    # -- questions --------------------------------------------------------------------------------

    def is_leader(self) -> bool:
        """Whether this member leads."""
        return self.role is Role.LEADER

    def in_lease(self) -> bool:
        """Whether a leader was heard from so recently that no other should be helped."""
        return self.leader != NOBODY and self.election_elapsed < self.options.election_ticks

    def may_campaign(self) -> bool:
        """Whether this member is a voter with a log it may stand for."""
        return self.tracker.conf.is_voter(self.id) and self.log.pending_snapshot is None

    def committed_in_term(self) -> bool:
        """Whether an entry of this term is committed: only then is the commit index current."""
        return self.log.term(self.log.commit) == self.term

    def status(self) -> Status:
        """Everything worth showing."""
        progress = {
            member: (one.match, one.state.value) for member, one in self.tracker.progress.items()
        }
        return Status(
            member=self.id,
            role=self.role,
            term=self.term,
            leader=self.leader,
            last_index=self.log.last_index,
            commit=self.log.commit,
            applied=self.log.applied,
            conf=self.tracker.conf,
            transferee=self.transferee,
            progress=progress if self.is_leader() else {},
        )
