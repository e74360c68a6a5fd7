"""Open event streams: they end when nothing has proven for 2 s that their tenant is still ours.

A stream was handed to PocketBase under a proof, but lives on; what it delivers later would be stale
if another node owned the tenant by then.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.node.parts import pause, spawn
from pbcluster.node.tenant import Tenant
from pbcluster.web.interfaces import Exchange

log = Logger()

#: Proofs of tenants with streams are looked at so often.
WATCH_INTERVAL_S = 0.25


class Streams:
    """The event streams of a node."""

    def __init__(
        self, clock: IReactorTime, boottime: Callable[[], float], stream_grace_s: float
    ) -> None:
        self._clock = clock
        self._boottime = boottime
        self._grace_s = stream_grace_s
        self._open: dict[Tenant, set[Exchange]] = {}
        self._proven_at: dict[Tenant, float] = {}
        self._watching = False

    def __len__(self) -> int:
        return sum(len(exchanges) for exchanges in self._open.values())

    def add(self, tenant: Tenant, exchange: Exchange) -> None:
        """A stream began, just now under a proof."""
        self._open.setdefault(tenant, set()).add(exchange)
        self._proven_at.setdefault(tenant, self._boottime())
        if not self._watching:
            self._watching = True
            spawn(self._watch(), "watch over event streams")

    def remove(self, tenant: Tenant, exchange: Exchange) -> None:
        """It ended."""
        exchanges = self._open.get(tenant, set())
        exchanges.discard(exchange)
        if not exchanges:
            self._open.pop(tenant, None)
            self._proven_at.pop(tenant, None)

    async def _watch(self) -> None:
        while self._open:
            await pause(self._clock, WATCH_INTERVAL_S)
            for tenant in list(self._open):
                if tenant.proven():
                    self._proven_at[tenant] = self._boottime()
                elif self._boottime() - self._proven_at[tenant] >= self._grace_s:
                    self._close(tenant)
                else:
                    spawn(self._prove(tenant), f"proof for the streams of {tenant.tenant_id}")
        self._watching = False

    async def _prove(self, tenant: Tenant) -> None:
        try:
            await tenant.prove()
        except PBClusterError as error:
            log.debug("{tenant}: {error}", tenant=tenant.tenant_id, error=error)

    def _close(self, tenant: Tenant) -> None:
        log.warn("{tenant}: streams closed, nothing proves", tenant=tenant.tenant_id)
        for exchange in list(self._open.get(tenant, ())):
            exchange.abort()
            self.remove(tenant, exchange)
