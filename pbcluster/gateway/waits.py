"""Pauses of held requests: they end by time, or at once when news of their tenant comes.

Bounded by ``holds``: only a held request pauses.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Waits:
    """Who pauses, by tenant."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[str, set[Deferred[None]]] = {}

    async def pause(self, tenant: str, seconds: float) -> None:
        """Wait so long, or until :meth:`wake` is called for ``tenant``."""
        waiting: Deferred[None] = Deferred()
        call = self._clock.callLater(seconds, waiting.callback, None)
        self._waiting.setdefault(tenant, set()).add(waiting)
        try:
            await waiting
        finally:
            if call.active():
                call.cancel()
            others = self._waiting.get(tenant)
            if others is not None:
                others.discard(waiting)
                if not others:
                    del self._waiting[tenant]

    def wake(self, tenant: str) -> None:
        """End all pauses of ``tenant``."""
        for waiting in self._waiting.pop(tenant, ()):
            if not waiting.called:
                waiting.callback(None)
