"""Which member a question goes to next, and when. Pure: time and random come in.

One :class:`Members` holds what all questions of a process have learnt; one :class:`Choice` steers
one question. The rules:

* The last known leader first; for questions that any member may answer, the one that answered last.
* ``NotLeader`` with a hint: to the hinted member at once, but after ``HINTS_AT_ONCE`` hints in one
  question only after a pause (two members may point at each other during an election).
* Silence, a lost session or ``NotLeader`` without a hint: to the next member at once, each member
  once per round. After a whole round in vain: a pause, longer each time, jittered so that the
  nodes of a cluster do not come back in step.
* ``Busy``: a pause, then again.
* One attempt takes at most half of what is left, so that another member can be asked as well.

Members come and go while questions are under way. Each has a number that is never given to another
one; a question that holds the number of a member that is gone goes to one that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from pbcluster.errors import LocalProtocolError

#: A member that has not answered by then is stuck or away (its answers take milliseconds).
ATTEMPT_TIMEOUT_S = 1.0
#: Halving stops here; shorter attempts would only lose answers that are on their way.
SHORTEST_ATTEMPT_S = 0.05
#: An election takes 0.25 to 0.5 s: the first pauses are shorter, none is much longer.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
#: A hint may be outdated once; twice in one question means that an election is going on.
HINTS_AT_ONCE = 2


class Uniform(Protocol):
    """The part of ``random.Random`` that is needed."""

    def uniform(self, a: float, b: float) -> float:
        """A number between ``a`` and ``b``."""


@attrs.frozen
class Attempt:
    """Ask ``member`` after ``pause_s``, and wait ``timeout_s`` for its answer."""

    member: int
    pause_s: float
    timeout_s: float


class Members:
    """What is known of the members; the first ones are numbered from 0 in the order given.

    :ivar leader: the believed leader.
    :ivar preferred: who answered the last question that any member may answer.
    :ivar reachable: those with an open session now.
    """

    def __init__(self, names: Sequence[Sequence[str]], random: Uniform) -> None:
        """
        :param names: for each member the words by which a hint may name it (endpoint, id).
        :param random: for the first choice and the jitter.
        """
        self.leader: int | None = None
        self.reachable: set[int] = set()
        self.random = random
        self._names = {number: tuple(words) for number, words in enumerate(names)}
        self._next = len(self._names)
        self.preferred = self._any()

    def __contains__(self, member: object) -> bool:
        return member in self._names

    def numbers(self) -> list[int]:
        """Those that are there, in the order in which they came, which is also the numbers'."""
        return list(self._names)

    def add(self, words: Sequence[str]) -> int:
        """A further member; its number. :param words: as an entry of ``names``."""
        number, self._next = self._next, self._next + 1
        self._names[number] = tuple(words)
        return number

    def remove(self, member: int) -> None:
        """``member`` is gone: it is not picked any more.

        :raises LocalProtocolError: there would be none left; nothing changed.
        """
        if list(self._names) == [member]:
            raise LocalProtocolError("the last member stays: add another one first")
        self._names.pop(member, None)
        self.reachable.discard(member)
        if self.leader == member:
            self.leader = None
        if self.preferred == member:
            self.preferred = self._any()

    def by_name(self, name: object) -> int | None:
        """The member that a hint names, if it is one of ours; of two, who came last."""
        if not isinstance(name, str) or not name:
            return None
        found = (number for number, words in reversed(self._names.items()) if name in words)
        return next(found, None)

    def answered(self, member: int, *, leads: bool) -> None:
        """``member`` answered a question; ``leads``: one that only the leader answers."""
        if member not in self._names:
            return
        self.preferred = member
        if leads:
            self.leader = member

    def _any(self) -> int:
        numbers = list(self._names)
        if not numbers:
            return 0
        return numbers[min(int(self.random.uniform(0, len(numbers))), len(numbers) - 1)]


class Choice:
    """Steers one question until it is answered or its time is over."""

    def __init__(self, members: Members, *, deadline: float, any_member: bool) -> None:
        """
        :param deadline: in seconds, of the clock that :meth:`next` gets.
        :param any_member: the leader is not needed.
        """
        self._members = members
        self._deadline = deadline
        self._any_member = any_member
        self._in_vain: set[int] = set()
        self._last = members.preferred - 1
        self._hint: int | None = None
        self._hints = 0
        self._pauses = 0
        self._pause_s = 0.0

    def next(self, now: float) -> Attempt | None:
        """The next attempt, or None when the time is over."""
        left_s = self._deadline - now
        if left_s <= 0:
            return None
        member = self._pick()
        pause_s, self._pause_s = min(self._pause_s, left_s / 2), 0.0
        half_s = min(ATTEMPT_TIMEOUT_S, (left_s - pause_s) / 2)
        self._last = member
        return Attempt(member, pause_s, min(left_s - pause_s, max(half_s, SHORTEST_ATTEMPT_S)))

    def answered(self, member: int) -> None:
        """``member`` answered: it is remembered."""
        self._members.answered(member, leads=not self._any_member)

    def silent(self, member: int) -> None:
        """``member`` did not answer in time, or has no session."""
        self._forget(member)
        self._in_vain.add(member)

    def not_leader(self, member: int, hint: object) -> bool:
        """``member`` is not the leader; ``hint`` (endpoint or id) may say who is.

        :returns: whether it is one whom we do not know: it may have joined a moment ago.
        """
        self._forget(member)
        self._in_vain.add(member)
        hinted = self._members.by_name(hint)
        if hinted is None or hinted == member:
            return hinted is None and isinstance(hint, str) and bool(hint)
        self._members.leader = hinted
        self._hint = hinted
        self._hints += 1
        if self._hints > HINTS_AT_ONCE:
            self._pause()
        return False

    def busy(self, member: int) -> None:
        """``member`` has no room now: the leader is asked again, else another one."""
        if self._any_member:
            self._in_vain.add(member)
        else:
            self._hint = member
        self._pause()

    def _pick(self) -> int:
        hinted, self._hint = self._hint, None
        if hinted is not None and hinted in self._members:
            return hinted
        numbers = self._members.numbers()
        if self._in_vain.issuperset(numbers):
            self._in_vain.clear()
            self._pause()
        first = self._members.preferred if self._any_member else self._members.leader
        if first is not None and first not in self._in_vain:
            return first
        ring = [
            *(member for member in numbers if member > self._last),
            *(member for member in numbers if member <= self._last),
        ]
        left = [member for member in ring if member not in self._in_vain]
        return next((member for member in left if member in self._members.reachable), left[0])

    def _forget(self, member: int) -> None:
        if self._members.leader == member:
            self._members.leader = None

    def _pause(self) -> None:
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._pauses, 10))
        self._pauses += 1
        self._pause_s = self._members.random.uniform(longest_s / 2, longest_s)
