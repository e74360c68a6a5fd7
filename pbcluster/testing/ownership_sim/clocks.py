"""The world's clock, and a process's view of it: time goes on while the process is paused or dead,
but nothing of it runs."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.task import Clock


class _Timer:
    """``IDelayedCall`` of a :class:`WorldClock`, as far as anybody asks."""

    __slots__ = ("_cancelled", "run")

    def __init__(self, run: Callable[[], object]) -> None:
        self.run: Callable[[], object] | None = run
        self._cancelled = False

    def active(self) -> bool:
        return self.run is not None

    def cancel(self) -> None:
        if self.run is None:
            raise AlreadyCancelled if self._cancelled else AlreadyCalled
        self.run, self._cancelled = None, True


class WorldClock(Clock):
    """``task.Clock`` that makes one call a step, from a heap (that one sorts at each call)."""

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()

    def callLater(self, when: float, what: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """See ``IReactorTime``."""
        timer = _Timer(lambda: what(*args, **kwargs))
        heapq.heappush(self._heap, (self.rightNow + when, next(self._numbers), timer))
        return timer

    def step(self) -> None:
        """Make the next call, at its time."""
        while self._heap:
            at, _, timer = heapq.heappop(self._heap)
            run, timer.run = timer.run, None
            if run is not None:
                self.rightNow = at
                run()
                return


class _Call:
    """``IDelayedCall`` of a :class:`ProcessClock`."""

    def __init__(self, clock: ProcessClock, delay_s: float, run: Callable[[], object]) -> None:
        self._clock = clock
        self._run = run
        self._call = clock.world.callLater(delay_s, self._due)

    def _due(self) -> None:
        now = self._clock.seconds()
        if self._clock.dead:
            self._clock.dropped.append(self)
        elif now < self._clock.paused_until:
            self._call = self._clock.world.callLater(self._clock.paused_until - now, self._due)
        else:
            self._run()

    def active(self) -> bool:
        return bool(self._call.active())

    def cancel(self) -> None:
        self._call.cancel()


class ProcessClock(Clock):
    """``IReactorTime`` of one process.

    :ivar paused_until: seconds; what is due before waits until then, as after a SIGCONT.
    :ivar dead: nothing of it runs ever again.
    """

    def __init__(self, world: Clock) -> None:
        """
        :param world: the one clock that is advanced.
        """
        super().__init__()
        self.world = world
        self.paused_until = 0.0
        self.dead = False
        #: Calls of a dead process, kept: what waits for them must not be ended by the collector,
        #: which would run its ``finally`` in the middle of another step.
        self.dropped: list[_Call] = []

    @property
    def runs(self) -> bool:
        """Whether the process does anything at this moment."""
        return not self.dead and self.seconds() >= self.paused_until

    def seconds(self) -> float:
        """The world's time."""
        return float(self.world.seconds())

    def callLater(self, when: float, what: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """See ``IReactorTime``."""
        return _Call(self, when, lambda: what(*args, **kwargs))
