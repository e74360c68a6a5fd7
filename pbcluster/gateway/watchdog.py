"""Finds workers that live and answer nothing: their connections would wait for ever.

Each worker's ``/healthz`` is asked every ``EVERY_S``, one round after the other. Who misses
``MISSES`` rounds in a row is reported; a loop that is only busy answers sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

EVERY_S = 2.0
#: With the time that a question may take, 6 to 12 s.
MISSES = 3

log = Logger()


class Watchdog:
    """See the module."""

    def __init__(
        self,
        clock: Any,
        ask: Callable[[str], Deferred[dict[int, str]]],
        workers: Callable[[], Mapping[int, str]],
        stuck: Callable[[int], None],
    ) -> None:
        """
        :param clock: ``IReactorTime``. :param ask: gives the answers to a path, by worker.
        :param workers: those that serve. :param stuck: told of one that answers nothing.
        """
        self._ask = ask
        self._workers = workers
        self._stuck = stuck
        self._missed: dict[int, tuple[str, int]] = {}
        self._loop = LoopingCall(self._round)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin."""
        self._loop.start(EVERY_S, now=False).addErrback(
            lambda failure: log.failure("workers are not watched any more", failure=failure)
        )

    def stop(self) -> None:
        """End."""
        if self._loop.running:
            self._loop.stop()

    def _round(self) -> Deferred[None]:
        asked = dict(self._workers())
        return self._ask("/healthz").addCallback(self._answered, asked)

    def _answered(self, found: dict[int, str], asked: dict[int, str]) -> None:
        living = self._workers()
        missed = {}
        for number, where in asked.items():
            # One that was started again meanwhile has another address, and its own count.
            if number in found or living.get(number) != where:
                continue
            before, count = self._missed.get(number, (where, 0))
            missed[number] = (where, count + 1 if before == where else 1)
        self._missed = missed
        for number, (_, count) in missed.items():
            if count == MISSES:
                self._stuck(number)
