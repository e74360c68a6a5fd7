"""A deadline that is moved at almost no cost.

Connections move their deadline with every request. Instead of cancelling and making a delayed call
each time, the call stays where it is and, when it runs too early, is made again for the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Sums of floats may fall short of a deadline by rounding; earlier by this much is in time.
_ROUNDING_S = 1e-4


class Deadline:
    """At most one deadline, movable; it calls ``expired`` once when it is reached."""

    __slots__ = ("_at", "_call", "_call_at", "_clock", "_expired", "_seconds")

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds: Callable[[], float] = clock.seconds
        self._expired = expired
        self._at: float | None = None
        self._call: IDelayedCall | None = None
        self._call_at = 0.0

    def pending(self) -> bool:
        """Whether a deadline is set."""
        return self._at is not None

    def set(self, seconds: float) -> None:
        """Let it be ``seconds`` from now, whatever it was."""
        self._at = at = self._seconds() + seconds
        if self._call is not None:
            if self._call_at <= at:
                return
            self._call.cancel()
        self._arm(seconds)

    def clear(self) -> None:
        """Have none for now; a call already made runs out by itself."""
        self._at = None

    def stop(self) -> None:
        """Have none any more: the connection is over."""
        self._at = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _arm(self, seconds: float) -> None:
        self._call_at = self._clock.seconds() + seconds
        self._call = self._clock.callLater(seconds, self._run)

    def _run(self) -> None:
        self._call = None
        if self._at is None:
            return
        left = self._at - self._clock.seconds()
        if left > _ROUNDING_S:
            self._arm(left)
            return
        self._at = None
        self._expired()
