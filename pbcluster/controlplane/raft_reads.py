"""Reads at a member that wait: for the round that confirms them, then for their index.

A read barrier is a ReadIndex: a round of heartbeats that began after the call. Those that come
within ``PACE_S`` of one another, up to ``MANY``, share a question, and with it a round: leases of
hundreds of nodes would otherwise each have one of their own. Whoever is patient, as a lease is,
waits for ``PATIENT_S`` instead, with however many others. The question is asked after the last of
them joined, so no read is confirmed by a round that began before it. A read that comes after a
pause waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pbcluster.errors import Busy, DeadlineExceeded, PBClusterError

#: From one question to the next, unless many wait already who are not patient.
PACE_S = 0.005
MANY = 16
#: The same where nobody waits but leases: they count from when they were asked for, for 1.5 s. With
#: 500 nodes some fifty of them share a question.
PATIENT_S = 0.04
MANY_PATIENT = 48
#: Nobody waits longer until what was committed is applied here.
READ_TIMEOUT_S = 5.0
#: Reads that wait; more are refused.
MAX_READS = 8192


class Asked(Protocol):
    """What is needed of the driver."""

    @property
    def running(self) -> bool:
        """Whether anything can be asked."""

    def read_index(self) -> int:
        """The context of a new question. :raises PBClusterError: it cannot be asked now."""


@attrs.define(eq=False)
class _Batch:
    """Those who share a question."""

    deadline: float
    waiting: list[Deferred[None]] = attrs.field(factory=list)
    #: How many of them are not patient.
    hurried: int = 0
    index: int = -1


class Reads:
    """The reads of one member."""

    def __init__(
        self, clock: IReactorTime, driver: Asked, not_now: Callable[[], PBClusterError]
    ) -> None:
        """
        :param not_now: what a read is told that may never be answered: to be asked again.
        """
        self._clock = clock
        self._driver = driver
        self._not_now = not_now
        #: Those who join now, and when their question is asked.
        self._joining: _Batch | None = None
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        self._asked_at = float("-inf")
        #: By context: waiting for their round.
        self._asked: dict[int, _Batch] = {}
        #: Confirmed, waiting for their index.
        self._allowed: list[_Batch] = []
        self._count = 0

    async def barrier(self, *, patient: bool = False) -> None:
        """Wait until everything that was committed before the call is applied here.

        :param patient: so many share the question as come in ``PATIENT_S``.
        :raises Busy: too many wait.
        :raises PBClusterError: it was not confirmed.
        """
        if not self._driver.running:
            raise self._not_now()
        if self._count >= MAX_READS:
            raise Busy(f"{MAX_READS} reads wait already", retry_after_s=0.1)
        answer: Deferred[None] = Deferred()
        now = self._clock.seconds()
        if self._joining is None:
            self._joining = _Batch(now + READ_TIMEOUT_S)
        self._joining.waiting.append(answer)
        self._joining.hurried += not patient
        self._count += 1
        due = self._asked_at + (PATIENT_S if patient else PACE_S)
        many = self._joining.hurried >= MANY or len(self._joining.waiting) >= MANY_PATIENT
        if due <= now or many:
            self._ask()
        elif self._timer is None or due < self._due:
            self._stop_timer()
            self._due = due
            self._timer = self._clock.callLater(due - now, self._ask)
        await answer

    def _ask(self) -> None:
        self._stop_timer()
        batch, self._joining = self._joining, None
        if batch is None:
            return
        if not self._driver.running:
            self._fail(batch, self._not_now)
            return
        self._asked_at = self._clock.seconds()
        try:
            self._asked[self._driver.read_index()] = batch
        except PBClusterError as error:
            told = error
            self._fail(batch, lambda: told)

    def allowed(self, context: int, index: int, applied: int) -> None:
        """The round confirmed a question: those who share it wait for ``index`` now."""
        batch = self._asked.pop(context, None)
        if batch is not None:
            batch.index = index
            self._allowed.append(batch)
            self.answer(applied)

    def cancelled(self, context: int) -> None:
        """A question will never be confirmed."""
        batch = self._asked.pop(context, None)
        if batch is not None:
            self._fail(batch, self._not_now)

    def answer(self, applied: int) -> None:
        """Let those go on whose index is applied."""
        if not self._allowed:
            return
        batches = self._allowed
        self._allowed = [batch for batch in batches if batch.index > applied]
        for batch in batches:
            if batch.index <= applied:
                self._count -= len(batch.waiting)
                for answer in batch.waiting:
                    answer.callback(None)

    def end_overdue(self, now: float) -> None:
        """Nobody waits for ever."""
        late = [(context, b) for context, b in self._asked.items() if b.deadline <= now]
        for context, batch in late:
            del self._asked[context]
            told = "no member confirmed the read in time"
            self._fail(batch, lambda told=told: DeadlineExceeded(told))  # type: ignore[misc]
        behind = [batch for batch in self._allowed if batch.deadline <= now]
        self._allowed = [batch for batch in self._allowed if batch.deadline > now]
        for batch in behind:
            self._fail(batch, lambda: DeadlineExceeded("this member is behind"))

    def give_up(self, error: Callable[[], PBClusterError]) -> None:
        """Answer everybody who waits."""
        self._stop_timer()
        joining, self._joining = self._joining, None
        asked, self._asked = self._asked, {}
        allowed, self._allowed = self._allowed, []
        for batch in (*([joining] if joining else []), *asked.values(), *allowed):
            self._fail(batch, error)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _fail(self, batch: _Batch, error: Callable[[], PBClusterError]) -> None:
        self._count -= len(batch.waiting)
        for answer in batch.waiting:
            answer.errback(error())
