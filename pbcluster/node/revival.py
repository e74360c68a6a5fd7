"""Litestream ended by itself: start it anew, and tell it of every database again.

What holds: until every tenant is registered again Litestream counts as down, and no write is
acknowledged meanwhile, since no sync succeeds. It is tried without an end, since a node without
Litestream is of no use, with growing pauses. It does not watch Litestream (``replication`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.node.parts import NodeParts, pause, spawn
from pbcluster.node.tenant import Tenant

log = Logger()

#: Litestream is started again after so long, doubling.
BACKOFF_S = 0.2
BACKOFF_MAX_S = 5.0


class Revival:
    """See the module.

    :ivar replication_up: whether Litestream runs and knows all databases.
    """

    def __init__(
        self, parts: NodeParts, tenants: Iterable[Tenant], closed: Callable[[], bool]
    ) -> None:
        """
        :param tenants: those of this node at the moment. :param closed: whether the node ends.
        """
        self.replication_up = True
        self._parts = parts
        self._tenants = tenants
        self._closed = closed

    def start(self) -> None:
        """Begin to care for it."""
        self._parts.replication.when_lost(self._lost)

    def _lost(self, reason: str) -> None:
        if self._closed() or not self.replication_up:
            return
        self.replication_up = False
        log.error("Litestream ended: {reason}; no write is acknowledged", reason=reason)
        spawn(self._revive(), "restart of Litestream")

    async def _revive(self) -> None:
        delay_s = BACKOFF_S
        while not self._closed():
            try:
                await self._parts.replication.start()
                for tenant in self._tenants:
                    if not tenant.leaving:
                        await tenant.replication.register_again()
            except PBClusterError as error:
                log.error("Litestream cannot be started: {error}", error=error)
                await pause(self._parts.clock, delay_s)
                delay_s = min(2 * delay_s, BACKOFF_MAX_S)
            else:
                self.replication_up = True
                return
