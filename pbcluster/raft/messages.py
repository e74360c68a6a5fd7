"""What members of a Raft group say to each other, and what they store.

Frozen, array-like, tagged :class:`msgspec.Struct` values. Fields are only ever appended, always
with a default, so that old and new members read each other during an upgrade. Numbers are checked
while decoding; what no type can express (entries in a row, terms that never fall) is checked by
:func:`pbcluster.raft.frames.check`.

Every message names its sender, its recipient and the sender's term. Nothing here decides anything.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

#: A member's id. Never reused: a member that lost its disk returns under a new one.
MemberId = str
#: No member: no leader known, no vote given.
NOBODY: MemberId = ""

#: Log positions and terms; 0 is "before the first".
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class EntryKind(enum.IntEnum):
    """What an entry is for."""

    #: A command of the state machine; its data is opaque here.
    COMMAND = 0
    #: The empty entry by which a new leader commits what earlier terms left (paper, section 8).
    NOOP = 1
    #: A :class:`ConfigChange`.
    CONFIG = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One position of the replicated log."""

    index: Count
    term: Count
    kind: EntryKind = EntryKind.COMMAND
    data: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Bytes that count against the bounds; the constant stands for what surrounds the data."""
        return len(self.data) + ENTRY_OVERHEAD_BYTES


#: Index, term, kind and framing of an entry, rounded up.
ENTRY_OVERHEAD_BYTES = 24


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """What a member must not forget. ``commit`` may be stored late, term and vote may not."""

    term: Count = 0
    vote: MemberId = NOBODY
    commit: Count = 0


class ConfState(msgspec.Struct, frozen=True, array_like=True):
    """A membership. All tuples are sorted. ``outgoing`` is not empty only in joint consensus, where
    both ``voters`` and ``outgoing`` must agree by a majority each."""

    voters: tuple[MemberId, ...] = ()
    outgoing: tuple[MemberId, ...] = ()
    learners: tuple[MemberId, ...] = ()
    #: Voters of ``outgoing`` that become learners when the joint configuration is left.
    learners_next: tuple[MemberId, ...] = ()

    @property
    def joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    def is_voter(self, member: MemberId) -> bool:
        """Whether ``member`` votes in either half."""
        return member in self.voters or member in self.outgoing

    def members(self) -> tuple[MemberId, ...]:
        """Everyone who gets the log, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))


class ConfigAction(enum.IntEnum):
    """One step of a membership change."""

    ADD_LEARNER = 0
    #: Make a learner that has caught up a voter.
    PROMOTE = 1
    REMOVE = 2


class ConfigStep(msgspec.Struct, frozen=True, array_like=True):
    """``action`` on ``member``."""

    action: ConfigAction
    member: MemberId


class ConfigChange(msgspec.Struct, frozen=True, array_like=True):
    """The data of a CONFIG entry. No steps: leave the joint configuration.

    ``context`` is the driver's, for instance the addresses of new members.
    """

    steps: tuple[ConfigStep, ...] = ()
    context: bytes = b""


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot: the state after ``index``, the membership then, and what its bytes must be."""

    index: Count = 0
    term: Count = 0
    conf: ConfState = ConfState()
    size_bytes: Count = 0
    checksum: Count = 0


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""

    sender: MemberId
    to: MemberId
    term: Count


class VoteRequest(Message, frozen=True, array_like=True, tag=1):
    """Vote for me. ``pre``: would you? (asked without raising any term; thesis, section 9.6).
    ``transfer``: the leader itself asked me to, so its lease does not stand in the way."""

    last_index: Count
    last_term: Count
    pre: bool = False
    transfer: bool = False


class VoteReply(Message, frozen=True, array_like=True, tag=2):
    """The answer. A granted pre-vote carries the term that was asked about."""

    granted: bool
    pre: bool = False


class Append(Message, frozen=True, array_like=True, tag=3):
    """The entries after (``prev_index``, ``prev_term``), and what is committed."""

    prev_index: Count
    prev_term: Count
    commit: Count
    entries: tuple[Entry, ...] = ()


class AppendReply(Message, frozen=True, array_like=True, tag=4):
    """``index`` is durable here; or, if ``rejected``, ``index`` is the append's ``prev_index`` and
    the hint the highest position at which the logs might still agree."""

    index: Count
    rejected: bool = False
    hint_index: Count = 0
    hint_term: Count = 0


class Heartbeat(Message, frozen=True, array_like=True, tag=5):
    """I lead. ``round`` numbers the leader's rounds of this term, for reads."""

    commit: Count
    round: Count = 0


class HeartbeatReply(Message, frozen=True, array_like=True, tag=6):
    """At this term too, when ``round`` came."""

    round: Count = 0


class SnapshotChunk(Message, frozen=True, array_like=True, tag=7):
    """Bytes ``offset`` and following of the snapshot ``meta``."""

    meta: SnapshotMeta
    offset: Count
    data: bytes


class SnapshotReply(Message, frozen=True, array_like=True, tag=8):
    """Of the snapshot at ``index`` I have the bytes before ``next_offset``. Flow control only."""

    index: Count
    next_offset: Count


class TimeoutNow(Message, frozen=True, array_like=True, tag=9):
    """The leader hands over: campaign at once."""


class ReadRequest(Message, frozen=True, array_like=True, tag=10):
    """Which index must be applied for a linearizable read? ``context`` is never used twice."""

    context: Count


class ReadReply(Message, frozen=True, array_like=True, tag=11):
    """That one; or ``refused``: not leader, too many, or nothing of this term committed yet."""

    context: Count
    index: Count = 0
    refused: bool = False


AnyMessage = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | SnapshotChunk
    | SnapshotReply
    | TimeoutNow
    | ReadRequest
    | ReadReply
)

_encoder = msgspec.msgpack.Encoder()
_change_decoder = msgspec.msgpack.Decoder(ConfigChange)


def encode_change(change: ConfigChange) -> bytes:
    """The data of a CONFIG entry."""
    return _encoder.encode(change)


def decode_change(data: bytes) -> ConfigChange:
    """Read the data of a CONFIG entry.

    :raises msgspec.DecodeError: it is none (the log is corrupt: it was written by a core).
    """
    return _change_decoder.decode(data)
