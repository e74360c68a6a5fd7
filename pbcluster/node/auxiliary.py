"""auxiliary.db beside data.db: PocketBase's request logs, replicated where the node is told to.

It stands under the same epoch as data.db, as ``auxiliary.db``. No acknowledgement waits for it, and
no trouble with it is one of its tenant's: whatever fails here is logged and left.
"""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

from twisted.logger import Logger

from pbcluster.node.parts import NodeParts

log = Logger()

NAME = "auxiliary.db"


class Auxiliary:
    """That of one tenant."""

    def __init__(self, parts: NodeParts, tenant_id: str, database: Path) -> None:
        """
        :param database: path of data.db, beside which it stands.
        """
        self._parts = parts
        self._tenant_id = tenant_id
        self._path = database.with_name(NAME)
        self._registered = False

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
        self._registered = True
        register = self._parts.replication.register(self._tenant_id, epoch, self._path)
        await self._tolerate(register)

    async def end(self) -> None:
        """A last sync, then replicate it no more."""
        if self._registered:
            self._registered = False
            await self._tolerate(self._parts.replication.unregister(self._path))

    def forget(self) -> None:
        """Remove Litestream's metadata of it: needed under a new prefix."""
        self._parts.replication.forget(self._path)

    async def _tolerate(self, step: Awaitable[object]) -> None:
        try:
            await step
        except Exception as error:  # request logs are never a reason to hold a tenant up
            log.warn("{tenant}: auxiliary.db: {error}", tenant=self._tenant_id, error=error)
