"""Callers of one member that wait until a leader is known: none longer than it asked for.

Who leads is for ``raft_member`` to say.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

#: Who comes when so many wait already is told at once that no leader is known.
MAX_WAITS = 4096


class LeaderWaits:
    """See the module."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: In the order in which they came: a set of them would have another one on each run.
        self._waiting: dict[Deferred[None], None] = {}

    async def wait(self, timeout_s: float) -> None:
        """Wait until a leader is heard of, at most ``timeout_s``."""
        if len(self._waiting) >= MAX_WAITS:
            return
        waiting: Deferred[None] = Deferred()
        timer = self._clock.callLater(timeout_s, waiting.callback, None)
        self._waiting[waiting] = None
        try:
            await waiting
        finally:
            self._waiting.pop(waiting, None)
            if timer.active():
                timer.cancel()

    def heard(self) -> None:
        """There is a leader: whoever waits for one goes on."""
        for waiting in list(self._waiting):
            if not waiting.called:
                waiting.callback(None)
