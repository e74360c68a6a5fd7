"""How the tenants of a node are used: what heartbeats tell of each, and the cache's order.

Counts since the last heartbeat and times of the last access; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from pbcluster.node.cache import Cache
from pbcluster.node.tenant import Tenant
from pbcluster.wire import TenantUsage


class Uses:
    """See the module."""

    def __init__(
        self,
        cache: Cache,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime],
        database_bytes: Callable[[str], int],
    ) -> None:
        """
        :param database_bytes: tenant id → bytes of its database.
        :param clock: seconds, as the cache counts them. :param utc_now: wall clock.
        """
        self._cache = cache
        self._clock = clock
        self._utc_now = utc_now
        self._database_bytes = database_bytes
        self._requests: dict[str, int] = {}
        self._last_access: dict[str, datetime] = {}
        #: Later ones, by the cache's clock: a wall clock costs more with every request.
        self._used_at: dict[str, float] = {}

    def since_last(self, tenants: Iterable[Tenant]) -> tuple[TenantUsage, ...]:
        """What happened to each tenant since the last call."""
        counts, self._requests = self._requests, {}
        used_at, self._used_at = self._used_at, {}
        now, utc_now = self._clock(), self._utc_now()
        for tenant_id, at in used_at.items():
            self._last_access[tenant_id] = utc_now - timedelta(seconds=now - at)
        return tuple(
            TenantUsage(
                tenant_id=each.tenant_id,
                state=each.state.value,
                epoch=each.epoch,
                request_count=counts.get(each.tenant_id, 0),
                last_access=self._last_access.get(each.tenant_id),
                error=each.life.cause,
                db_bytes=self._database_bytes(each.tenant_id),
            )
            for each in tenants
        )

    def opened(self, tenant: Tenant) -> None:
        """A request was handed to its PocketBase."""
        tenant_id, now = tenant.tenant_id, self._clock()
        self._used_at[tenant_id] = now
        self._cache.opened(tenant_id, now)
        self._requests[tenant_id] = self._requests.get(tenant_id, 0) + 1

    def became_stream(self, tenant: Tenant) -> None:
        """Its answer is an event stream."""
        self._cache.became_stream(tenant.tenant_id, self._clock())
        tenant.changes.fire()

    def closed(self, tenant: Tenant, stream: bool) -> None:
        """It ended."""
        self._cache.closed(tenant.tenant_id, self._clock(), stream)
        if tenant.is_leaving() or tenant.is_held():
            tenant.changes.fire()

    def forget(self, tenant_id: str) -> None:
        """It is not this node's any more."""
        self._last_access.pop(tenant_id, None)
        self._used_at.pop(tenant_id, None)
