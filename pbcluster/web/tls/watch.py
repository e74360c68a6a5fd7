"""Looking at files every few seconds, one look at a time, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pbcluster.web.tls.directory import InThread

log = Logger()

#: A new certificate is served within this time.
WATCH_S = 10.0


class Watch:
    """Calls ``look`` every ``every_s`` seconds from :meth:`start` to :meth:`stop`."""

    def __init__(
        self, clock: IReactorTime, look: Callable[[], Deferred[None] | None], every_s: float
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._looking = LoopingCall(self._once)
        self._looking.clock = clock

    def start(self) -> None:
        """Look from now on, the first time after ``every_s``."""
        if not self._looking.running:
            ended = self._looking.start(self._every_s, now=False)
            ended.addErrback(lambda failure: log.failure("no look any more", failure=failure))

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def _once(self) -> Deferred[None] | None:
        try:
            looked = self._look()
        except Exception:
            log.failure("a look at certificates failed")
            return None
        if looked is not None:
            looked.addErrback(
                lambda failure: log.failure("a look at certificates failed", failure=failure)
            )
        return looked


def in_threads_of(reactor: Any) -> InThread:
    """The reactor's own pool of threads.

    :param reactor: provides IReactorThreads.
    """

    def run(function: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function)

    return run
