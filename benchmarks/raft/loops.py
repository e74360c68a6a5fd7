"""Closed loops: each asks again as soon as it was answered. Knows no event loop and no system."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

#: Not counted: connections, caches and the interpreter warm up.
WARM_UP_S = 0.4

Operation = Callable[[], Awaitable[Any]]


class Load:
    """So many loops for so long."""

    def __init__(self, operation: Operation, seconds: float) -> None:
        self._operation = operation
        self._from = time.perf_counter() + WARM_UP_S
        self._seconds = seconds
        self._took_s: list[float] = []
        self._errors = 0

    async def loop(self) -> None:
        """One of them; ends by itself."""
        until = self._from + self._seconds
        while (began := time.perf_counter()) < until:
            try:
                await self._operation()
            except Exception:
                self._errors += 1
                continue
            if began >= self._from:
                self._took_s.append(time.perf_counter() - began)

    def figures(self) -> dict[str, float]:
        """What was measured; times in milliseconds."""
        took = sorted(self._took_s)
        if not took:
            return {"rate": 0.0, "errors": self._errors}
        return {
            "rate": len(took) / self._seconds,
            "p50_ms": took[len(took) // 2] * 1000,
            "p99_ms": took[len(took) * 99 // 100] * 1000,
            "errors": self._errors,
        }


class Witness:
    """Writes one number after the other and notes every acknowledgement, until it is told to stop.

    A number that failed is asked for again: an operation is called with ``(number, attempt)``.
    """

    def __init__(self, operation: Callable[[int, int], Awaitable[int]]) -> None:
        """:param operation: gives what the system says of the number: see each client."""
        self._operation = operation
        self.stopped = False
        #: (seconds of CLOCK_MONOTONIC, number, what the system said, attempts).
        self.acknowledged: list[tuple[float, int, int, int]] = []
        self.failures: list[float] = []
        self._next = 0

    async def loop(self) -> None:
        """One of several."""
        while not self.stopped:
            number, self._next, attempt = self._next, self._next + 1, 0
            while True:
                attempt += 1
                try:
                    said = await self._operation(number, attempt)
                except Exception:
                    self.failures.append(time.monotonic())
                    continue
                self.acknowledged.append((time.monotonic(), number, said, attempt))
                break
