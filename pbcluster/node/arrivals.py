"""Waiting for assignments that a gateway knows of before this node does, and what was given away.

A gateway learns of an assignment by a broadcast, the node by its list: whichever comes first. What
was given away is remembered with the epoch that can own it now, so that old routes are answered
without waiting and the next look-up asks for a newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pbcluster.errors import OwnershipLost, Unavailable
from pbcluster.node.parts import Changes, NodeParts
from pbcluster.node.tenant import Tenant
from pbcluster.wire import MOVED, TenantUsage

#: A gateway may know of an assignment before this node does: the request waits so long for it.
ARRIVAL_WAIT_S = 1.0
MAX_ARRIVAL_WAITS = 1000
#: Tenants that were given away → the lowest epoch that can own them now.
MAX_GONE = 10_000


class Loading(Unavailable):
    """The tenant is being made ready; nothing was processed."""

    code = "loading"


class Arrivals:
    """See the module."""

    def __init__(
        self,
        parts: NodeParts,
        find: Callable[[str], Tenant | None],
        closed: Callable[[], bool],
    ) -> None:
        """
        :param find: the tenant if it is assigned. :param closed: whether the node ends.
        """
        self._clock = parts.clock
        self._find = find
        self._closed = closed
        self._utc_now = parts.utc_now
        self._gone: dict[str, int] = {}
        #: Of those that were given away: when somebody asked for them here.
        self._followed: dict[str, datetime] = {}
        self._changes = Changes(parts.clock, MAX_ARRIVAL_WAITS)

    def fire(self) -> None:
        """A list was obeyed."""
        self._changes.fire()

    def remember_gone(self, tenant: Tenant) -> None:
        """It was taken away."""
        self._gone.pop(tenant.tenant_id, None)
        self._gone[tenant.tenant_id] = tenant.epoch + 1
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def known(self, tenant_id: str) -> int:
        """The lowest epoch that can own a tenant that was given away, 0: nothing is known."""
        return self._gone.get(tenant_id, 0)

    async def assigned(self, tenant_id: str, epoch: int) -> Tenant:
        """The tenant under ``epoch`` or a newer one; waits a moment if the sender knows more.

        :raises OwnershipLost: it is not on this node. ``data["epoch"]`` is what we know of.
        :raises Loading: only an older epoch of it is known here.
        """
        deadline = self._clock.seconds() + ARRIVAL_WAIT_S
        while True:
            tenant = self._find(tenant_id)
            if tenant is not None and tenant.epoch >= epoch:
                return tenant
            known = tenant.epoch if tenant is not None else self.known(tenant_id)
            left = deadline - self._clock.seconds()
            if known > epoch or self._closed() or not await self._changes.wait(left):
                if tenant is not None:
                    raise Loading(f"this node is at epoch {tenant.epoch} of the tenant")
                raise self.lost(tenant_id)

    def lost(self, tenant_id: str) -> OwnershipLost:
        """The error for a request whose tenant is not here; that it came is remembered."""
        known = self.known(tenant_id)
        if known:
            self._followed[tenant_id] = self._utc_now()
        return OwnershipLost("this tenant is not on this node", epoch=known)

    def followed(self) -> tuple[TenantUsage, ...]:
        """Tenants that were given away and were asked for here since the last call."""
        followed, self._followed = self._followed, {}
        return tuple(TenantUsage(t, MOVED, last_access=at) for t, at in followed.items())
