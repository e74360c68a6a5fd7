"""What a core gives to and takes from its driver: frozen values, no behaviour."""

from __future__ import annotations

import enum

from attrs import frozen

from pbcluster.raft.messages import (
    AnyMessage,
    ConfState,
    Entry,
    HardState,
    MemberId,
    SnapshotChunk,
    SnapshotMeta,
)


class Role(enum.Enum):
    """What a member is at the moment."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@frozen
class StoredState:
    """What a member finds on its disk at start. A new one that joins a group has nothing.

    ``conf`` is the membership after ``applied``: of the stored applied state, or of the snapshot
    if that is newer. ``entries`` are all in the log.
    """

    conf: ConfState = ConfState()
    hard: HardState = HardState()
    snapshot: SnapshotMeta = SnapshotMeta()
    entries: tuple[Entry, ...] = ()
    applied: int = 0

    @classmethod
    def first(cls, conf: ConfState, size_bytes: int, checksum: int, index: int = 1) -> StoredState:
        """What the first members of a new group find on their disks: as if a snapshot of the state
        machine, with this membership, had been installed. So whoever joins later gets a snapshot,
        and with it the membership, which no entry of the log tells.

        :param size_bytes: of the bytes of that snapshot, which the driver stores beside it.
        :param index: that the state machine says it is at: 1 for an empty one.
        """
        meta = SnapshotMeta(index, 1, conf, size_bytes, checksum)
        return cls(conf, HardState(1, "", index), meta, (), index)


@frozen
class PersistToken:
    """Given back when a :class:`Ready` and all before it are durable.

    It names the last entry of the log as of then, and the term and vote under which it was made:
    an entry that was replaced meanwhile must not be taken for durable.
    """

    number: int
    term: int
    vote: MemberId
    index: int
    index_term: int
    snapshot_index: int = 0


@frozen
class ReadState:
    """The read ``context`` may be answered once ``index`` is applied."""

    context: int
    index: int


@frozen
class ChunkToSend:
    """Read ``length_bytes`` of the snapshot ``meta`` at ``offset`` and send them to ``to``."""

    to: MemberId
    sender: MemberId
    term: int
    meta: SnapshotMeta
    offset: int
    length_bytes: int

    def message(self, data: bytes) -> SnapshotChunk:
        """The message, once ``data`` was read."""
        return SnapshotChunk(self.sender, self.to, self.term, self.meta, self.offset, data)


@frozen
class ChunkReceived:
    """Put ``data`` at ``offset`` of the staging file of ``meta``; 0 begins a new one. After the
    ``last``, check size and checksum and call ``install_snapshot`` or ``refuse_snapshot``."""

    meta: SnapshotMeta
    offset: int
    data: bytes
    last: bool


@frozen
class Ready:
    """All that is to be done now. ``pbcluster.raft`` has the duties, in order."""

    token: PersistToken
    role: Role
    term: int
    leader: MemberId
    #: To write, in one transaction: first the snapshot, then the entries, then the hard state.
    snapshot: SnapshotMeta | None = None
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None
    #: Whether the write must be durable before ``after``; a commit index alone need not be.
    must_sync: bool = False
    #: To send at once.
    messages: tuple[AnyMessage, ...] = ()
    #: To send when this write and all before it are durable.
    after: tuple[AnyMessage, ...] = ()
    #: To apply, in order; and the membership after the last of them.
    committed: tuple[Entry, ...] = ()
    conf: ConfState = ConfState()
    reads: tuple[ReadState, ...] = ()
    cancelled_reads: tuple[int, ...] = ()
    chunks_to_send: tuple[ChunkToSend, ...] = ()
    chunks_received: tuple[ChunkReceived, ...] = ()


@frozen
class Proposed:
    """Where a proposal stands in the log. It is committed if and only if the entry applied at
    ``index`` has this ``term``; another one there means that it is lost."""

    index: int
    term: int


@frozen
class Status:
    """For people and for tests."""

    member: MemberId
    role: Role
    term: int
    leader: MemberId
    last_index: int
    commit: int
    applied: int
    conf: ConfState
    transferee: MemberId
    #: A leader's view: the durable index and state of each member.
    progress: dict[MemberId, tuple[int, str]]
