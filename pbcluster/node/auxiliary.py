"""auxiliary.db beside data.db: PocketBase's request logs, replicated where the node is told to.

It stands under the same epoch as data.db, as ``auxiliary.db``. No acknowledgement waits for it, and
no trouble with it is one of its tenant's: whatever fails here is logged and tried again later.

Most of the time nobody writes to it, and Litestream's look at it each second costs more than all
else of an idle tenant. So when nothing was committed to it for a while, Litestream is told to sync
it once more and to let it go, and when something is, to take it up again: the node looks each
second (``wal``). Litestream finds out by itself what happened meanwhile, as after a restart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from pbcluster.node import wal
from pbcluster.node.parts import NodeParts, spawn

log = Logger()

NAME = "auxiliary.db"
#: Nothing was committed for so long: it rests.
REST_AFTER_S = 15.0
#: What Litestream did not take up is offered again after so long.
RETRY_S = 15.0
SYNC_TIMEOUT_S = 5.0


class Auxiliary:
    """That of one tenant. One call to Litestream is under way at a time."""

    def __init__(self, parts: NodeParts, tenant_id: str, database: Path) -> None:
        """
        :param database: path of data.db, beside which it stands.
        """
        self._parts = parts
        self._tenant_id = tenant_id
        self._path = database.with_name(NAME)
        self._turn = DeferredLock()
        #: That it is replicated under; None: it is not to be.
        self._epoch: int | None = None
        self._watched = False
        self._position: bytes | None = None
        self._changed_at = 0.0
        self._retry_at: float | None = None

    @property
    def rests(self) -> bool:
        """Whether Litestream does not look at it because nobody writes to it."""
        return self._epoch is not None and not self._watched and self._retry_at is None

    async def restore(self, epoch: int) -> None:
        """Restore it from ``epoch``, if it is there."""
        if not self._parts.auxiliary:
            return

        async def restore() -> None:
            if await self._parts.claims.has_database(self._tenant_id, epoch, NAME):
                await self._parts.replication.restore(self._tenant_id, epoch, self._path)

        await self._tolerate(restore())

    async def begin(self, epoch: int) -> None:
        """Replicate it under ``epoch``, if it is there."""
        if not self._parts.auxiliary or not self._path.is_file():
            return
        self._epoch = epoch
        await self._in_turn(self._watch)

    async def begin_again(self) -> None:
        """Litestream was started anew and knows nothing."""
        if self._watched and self._epoch is not None:
            await self._in_turn(self._watch)

    def tick(self) -> None:
        """Each second: whether it rests follows from whether it is written to."""
        if self._epoch is None or self._turn.locked:
            return
        now, position = self._parts.clock.seconds(), wal.position(self._path)
        changed, self._position = position != self._position, position
        if changed:
            self._changed_at = now
        if self._retry_at is not None:
            if now >= self._retry_at:
                self._begin(self._watch)
        elif not self._watched:
            if changed:
                self._begin(self._watch)
        elif now - self._changed_at >= REST_AFTER_S:
            self._begin(self._rest)

    async def wake(self) -> None:
        """PocketBase ends now: what it still writes will be in the last sync, also if it rests."""
        if self.rests:
            await self._in_turn(self._watch_closely)

    async def end(self) -> None:
        """A last sync, then replicate it no more."""
        self._epoch = None
        await self._in_turn(self._let_go)

    def forget(self) -> None:
        """Remove Litestream's metadata of it: needed under a new prefix."""
        self._parts.replication.forget(self._path)

    # -- in turn --

    async def _watch(self) -> None:
        if self._epoch is None:
            return
        self._watched, self._changed_at = False, self._parts.clock.seconds()
        self._retry_at = self._changed_at + RETRY_S  # unless it succeeds
        await self._parts.replication.register(self._tenant_id, self._epoch, self._path)
        self._watched, self._retry_at = True, None

    async def _watch_closely(self) -> None:
        await self._watch()
        # Until then Litestream has not opened it, and would end without a last sync.
        await self._parts.replication.sync(self._path, timeout_s=SYNC_TIMEOUT_S)

    async def _rest(self) -> None:
        self._changed_at = self._parts.clock.seconds()  # if it fails it goes on as it was
        await self._parts.replication.sync(self._path, timeout_s=SYNC_TIMEOUT_S)
        await self._let_go()
        self._retry_at = None

    async def _let_go(self) -> None:
        if self._watched:
            self._watched = False
            self._retry_at = self._parts.clock.seconds() + RETRY_S  # unless it succeeds
            await self._parts.replication.unregister(self._path)

    def _begin(self, step: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        spawn(self._in_turn(step), f"{NAME} of {self._tenant_id}")

    async def _in_turn(self, step: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        await self._turn.acquire()
        try:
            await self._tolerate(step())
        finally:
            self._turn.release()

    async def _tolerate(self, step: Awaitable[object]) -> None:
        try:
            await step
        except Exception as error:  # request logs are never a reason to hold a tenant up
            log.warn("{tenant}: auxiliary.db: {error}", tenant=self._tenant_id, error=error)
