"""A wait of the fakes that costs no turn when it is none."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock


async def passing(clock: Clock, seconds: float) -> None:
    """Let ``seconds`` of the clock pass; 0: go on within the call."""
    if seconds > 0:
        waiting: Deferred[None] = Deferred()
        clock.callLater(seconds, waiting.callback, None)
        await waiting
