"""Litestream ended by itself, or hangs: start it anew, and tell it of every database again.

What holds: until every tenant is registered again Litestream counts as down, and no write is
acknowledged meanwhile, since no sync succeeds. It is tried without an end, since a node without
Litestream is of no use, with growing pauses. It does not watch Litestream (``replication`` does).

After an outage of S3 Litestream may sleep: the AWS SDK in it repeats what S3 did not take with
pauses that grow to 20 s and cannot be set, and every sync waits for their end. One that began
before S3's return and still waits some time after it means that; Litestream is ended then. Until it
knows all databases again, S3 counts as away, so that writes wait instead of being refused.
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
#: A sync that is not asleep has its turn by then. One that brings a lot begins anew, once.
PATIENCE_S = 2.0


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
        self._parts.outages.when_back(self._s3_is_back)

    def _s3_is_back(self) -> None:
        spawn(self._wake(self._parts.clock.seconds()), "waking Litestream")

    async def _wake(self, back_at: float) -> None:
        """End a Litestream that sleeps. :param back_at: when S3 was back."""
        await pause(self._parts.clock, PATIENCE_S)
        since = self._parts.replication.waiting_since()
        if since is None or since >= back_at or not self.replication_up or self._closed():
            return
        waited = self._parts.clock.seconds() - since
        log.warn("a sync has waited for {waited:.1f} s; Litestream is begun anew", waited=waited)
        self._parts.outages.prolong(True)
        try:
            await self._parts.replication.end_hanging()
        except PBClusterError:
            self._parts.outages.prolong(False)
            raise

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
                    if not tenant.is_leaving():
                        await tenant.replication.register_again()
            except PBClusterError as error:
                log.error("Litestream cannot be started: {error}", error=error)
                await pause(self._parts.clock, delay_s)
                delay_s = min(2 * delay_s, BACKOFF_MAX_S)
            else:
                self.replication_up = True
                self._parts.outages.prolong(False)
                return
