"""Proposals of one member that wait until their entry is applied.

What holds: each is answered once, with the outcome of its own entry, or by an error that says
whether it may have been done. An entry of another term at its index means that it was not. It
proposes nothing: ``raft_member`` does, through the driver.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pbcluster.controlplane.outcomes import Outcome
from pbcluster.errors import Busy, DeadlineExceeded, PBClusterError
from pbcluster.raft import Entry, Proposed

#: Nobody waits longer for a commit; a leader that lost its quorum is none after 0.5 s already.
PROPOSAL_TIMEOUT_S = 10.0
#: Proposals that wait for their commit. At 4,000 a second this is a second.
MAX_PENDING = 4096


@attrs.frozen
class _Pending:
    term: int
    answer: Deferred[Outcome]
    deadline: float


class Proposals:
    """See the module."""

    def __init__(self, clock: IReactorTime, not_done: Callable[[], PBClusterError]) -> None:
        """
        :param not_done: what one is told that was not done: to be made at the leader.
        """
        self._clock = clock
        self._not_done = not_done
        #: By the index of their entry, in order.
        self._pending: dict[int, _Pending] = {}

    def check_room(self) -> None:
        """:raises Busy: too many wait."""
        if len(self._pending) >= MAX_PENDING:
            raise Busy(f"{MAX_PENDING} proposals wait already", retry_after_s=0.1)

    async def outcome(self, proposed: Proposed) -> Outcome:
        """The outcome of an entry of ours, once it is applied.

        :raises PBClusterError: it was not done, or whether it was is unknown.
        """
        answer: Deferred[Outcome] = Deferred()
        deadline = self._clock.seconds() + PROPOSAL_TIMEOUT_S
        self._pending[proposed.index] = _Pending(proposed.term, answer, deadline)
        return await answer

    def answer(self, entry: Entry, outcome: Outcome) -> None:
        """``entry`` was applied."""
        pending = self._pending.pop(entry.index, None)
        if pending is None:
            return
        if pending.term == entry.term:
            pending.answer.callback(outcome)
        else:
            pending.answer.errback(self._not_done())

    def lose(self) -> None:
        """Leadership ended: of all that wait the fate is unknown."""
        unknown = "leadership ended before the answer: repeat with the same idempotency key"
        self.give_up(lambda: DeadlineExceeded(unknown, retry_after_s=0.1))

    def end_overdue(self, now: float) -> None:
        """Answer those whose time is over at ``now``."""
        for index, pending in list(self._pending.items()):
            if pending.deadline > now:
                break
            del self._pending[index]
            told = f"no commit within {PROPOSAL_TIMEOUT_S:.0f} s: repeat with the same key"
            pending.answer.errback(DeadlineExceeded(told))

    def give_up(self, error: Callable[[], PBClusterError]) -> None:
        """Answer everybody with an error."""
        pending, self._pending = self._pending, {}
        for one in pending.values():
            one.answer.errback(error())
