"""The clock of a member's Raft core: how many ticks passed, and a timer for the next that matters.

A member with nothing to do sleeps from one heartbeat to the next instead of waking up for each
tick. It knows neither the core nor what a tick does.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pbcluster.controlplane.raft_intervals import TICK_S

#: Of a tick: what a sum of seconds may lack of it.
_ROUNDING = 1e-6


class Ticks:
    """See the module."""

    def __init__(self, clock: IReactorTime, due: Callable[[], None]) -> None:
        """
        :param clock: must not jump, and must go on while the machine sleeps.
        :param due: called when the ticks of :meth:`sleep` passed.
        """
        self._clock = clock
        self._due = due
        self._running = False
        self._timer: IDelayedCall | None = None
        #: When it is due, by ``clock.seconds()``: what hands it out may count by another clock.
        self._due_at = 0.0
        self._counted_to = 0.0

    def start(self) -> None:
        """Time begins now: before, no ticks pass and nobody is called."""
        self._running = True
        self._counted_to = self._clock.seconds()

    def stop(self) -> None:
        """No timer is left, and none will be set."""
        self._running = False
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def passed(self) -> int:
        """Whole ticks since it was asked last."""
        if not self._running:
            return 0
        ticks = int((self._clock.seconds() - self._counted_to) / TICK_S + _ROUNDING)
        self._counted_to += max(ticks, 0) * TICK_S
        return ticks

    def sleep(self, ticks: int) -> None:
        """Be called when ``ticks`` passed since those counted last, or earlier: a timer that is set
        for less stays, since moving it costs as much as waking up."""
        if not self._running:
            return
        at = self._counted_to + ticks * TICK_S
        timer = self._timer
        if timer is not None and timer.active():
            if self._due_at <= at:
                return
            timer.cancel()
        self._due_at = at
        self._timer = self._clock.callLater(max(at - self._clock.seconds(), 0.0), self._due)
