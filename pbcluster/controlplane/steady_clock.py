"""The clock on which ownership rests: it never jumps, and it goes on while the machine sleeps.

Twisted's default reactor tells the time of day. If somebody set that forward, the control plane
would believe a lease to be over that its node still holds. Timers stay the reactor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class SteadyClock:
    """``IReactorTime`` with CLOCK_BOOTTIME (clock_gettime(2))."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        """Seconds since the machine was started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """As the reactor's."""
        return self._reactor.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """As the reactor's."""
        return self._reactor.getDelayedCalls()
