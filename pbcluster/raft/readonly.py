"""Reads waiting for proof that their leader still leads (thesis, section 6.4).

A read that arrives at a leader notes the commit index and joins the *next* round; a round is one
number, put on heartbeats, and confirmed when a quorum answered it. Numbers only grow within a term,
so an answer to a round confirms all before it too, and no read is ever confirmed by an answer to a
question asked before the read arrived. A repeated heartbeat may carry the same number: its reads
had arrived before the number was first used.
"""

from __future__ import annotations

from collections import deque

from attrs import frozen

from pbcluster.raft import quorum
from pbcluster.raft.messages import ConfState, MemberId


@frozen
class PendingRead:
    """``context`` is the asker's; ``index`` must be applied before the read may be answered."""

    asker: MemberId
    context: int
    index: int


class ReadRounds:
    """The reads of one leader in one term."""

    __slots__ = ("_acknowledged", "_confirmed", "_rounds", "_waiting", "count", "number")

    def __init__(self) -> None:
        #: The last round begun.
        self.number = 0
        #: Reads in here, for the bound.
        self.count = 0
        self._confirmed = 0
        self._waiting: list[PendingRead] = []
        self._rounds: deque[tuple[int, list[PendingRead]]] = deque()
        self._acknowledged: dict[MemberId, int] = {}

    def add(self, read: PendingRead) -> None:
        """``read`` joins the next round."""
        self._waiting.append(read)
        self.count += 1

    def open_rounds(self) -> int:
        """Rounds with reads that were begun and are not confirmed."""
        return len(self._rounds)

    def has_waiting(self) -> bool:
        """Whether a round should begin."""
        return bool(self._waiting)

    def begin(self, leader: MemberId) -> int:
        """Begin a round for all who wait, and give its number. The leader agrees with itself."""
        self.number += 1
        self._acknowledged[leader] = self.number
        self._rounds.append((self.number, self._waiting))
        self._waiting = []
        return self.number

    def acknowledge(self, member: MemberId, number: int) -> None:
        """``member`` answered round ``number``; one never begun is ignored."""
        if self._acknowledged.get(member, 0) < number <= self.number:
            self._acknowledged[member] = number

    def release(self, conf: ConfState) -> list[PendingRead]:
        """Take out the reads that a quorum of ``conf`` confirms by now."""
        if not self._rounds:
            return []
        confirmed = quorum.agreed_index(conf, self._acknowledged)
        released: list[PendingRead] = []
        while self._rounds and self._rounds[0][0] <= confirmed:
            released.extend(self._rounds.popleft()[1])
        self.count -= len(released)
        return released

    def everything(self) -> list[PendingRead]:
        """All reads in here, to be cancelled."""
        begun = [read for _number, reads in self._rounds for read in reads]
        return begun + self._waiting
