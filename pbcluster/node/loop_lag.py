"""How late a node's event loop runs: a node whose loop is late serves all its tenants badly.

It measures only; what a late loop means is for ``figures`` to say.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pbcluster.node.parts import pause, spawn

#: A loop that runs so late makes a node degraded.
MAX_LAG_S = 0.25
INTERVAL_S = 0.5


class LoopLag:
    """See the module.

    :ivar lag_s: by how much the last pause of ``INTERVAL_S`` was too long.
    """

    def __init__(self, clock: IReactorTime, boottime: Callable[[], float]) -> None:
        """
        :param boottime: seconds of CLOCK_BOOTTIME.
        """
        self.lag_s = 0.0
        self._clock = clock
        self._boottime = boottime
        self._watching: Deferred[None] | None = None

    @property
    def is_late(self) -> bool:
        """Whether the loop runs too late."""
        return self.lag_s > MAX_LAG_S

    def start(self) -> None:
        """Begin to measure."""
        self._watching = spawn(self._watch(), "loop watch")

    def stop(self) -> None:
        """End it."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _watch(self) -> None:
        while True:
            before = self._boottime()
            await pause(self._clock, INTERVAL_S)
            self.lag_s = max(0.0, self._boottime() - before - INTERVAL_S)
