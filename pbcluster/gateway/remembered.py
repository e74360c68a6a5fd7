"""Keeps the routes in a file while the gateway runs, and reads them at its start.

Written every half minute if they changed, in a thread; at once when the gateway drains or a
successor asks. What goes wrong is logged and changes nothing else. One file a worker, read by all.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pbcluster.gateway import warm_start
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.warm_start import SavedRoutes

#: A crash loses the routes that were learnt since; each costs one question.
EVERY_S = 30.0
#: In the data directory.
DIRECTORY = "routes"

log = Logger()


class Remembered:
    """The file of one process's routes."""

    def __init__(
        self, reactor: Any, data_dir: Path, number: int, cluster_id: str, routes: RouteCache
    ) -> None:
        """
        :param reactor: ``IReactorTime`` and ``IReactorThreads``.
        :param number: this worker's, from 1.
        """
        self._reactor = reactor
        self._directory = data_dir / DIRECTORY
        self._file = warm_start.routes_file(self._directory, number)
        self._cluster_id = cluster_id
        self._routes = routes
        self._written = 0
        self._loop = LoopingCall(self._save_in_thread)
        self._loop.clock = reactor

    def load(self) -> None:
        """Remember what was remembered before."""
        count = warm_start.load(
            self._directory,
            self._cluster_id,
            self._routes,
            now=self._reactor.seconds(),
            unix_s=time.time(),
        )
        if count:
            log.info("{count} routes of an earlier run are remembered", count=count)

    def start(self) -> None:
        """Write now and then."""
        self._loop.start(EVERY_S, now=False).addErrback(
            lambda failure: log.failure("routes are not saved any more", failure=failure)
        )

    def stop(self) -> None:
        """Write now for the last time."""
        if self._loop.running:
            self._loop.stop()
        self.save()

    def save(self) -> None:
        """Write now, if anything changed."""
        saved = self._news()
        if saved is not None:
            self._write(saved)

    def _save_in_thread(self) -> Deferred[None] | None:
        saved = self._news()
        if saved is None:
            return None
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, self._write, saved)

    def _news(self) -> SavedRoutes | None:
        if self._routes.changes == self._written:
            return None
        self._written = self._routes.changes
        return SavedRoutes(self._cluster_id, time.time(), tuple(self._routes.usable()))

    def _write(self, saved: SavedRoutes) -> None:
        try:
            warm_start.write(self._file, saved)
        except OSError as error:
            log.warn(
                "the routes cannot be saved in {file}: {reason}",
                file=str(self._file),
                reason=error.strerror,
            )
