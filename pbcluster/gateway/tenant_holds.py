"""Tenants whose requests this gateway holds because they are about to move. Pure.

The control plane asks for the hold; it ends when a route of a higher epoch is known (the tenant
moved), when the same route is confirmed (it stays), or when its time is over, whatever became of
the control plane. A hold is a courtesy: what is let through too early waits at the node.
"""

from __future__ import annotations

from pbcluster.wire import Route

#: Tenants held at once; the control plane moves far fewer. The oldest hold goes first.
MAX_HELD_TENANTS = 1_000
#: No hold lasts longer, whatever is asked for.
MAX_HOLD_S = 60.0


class TenantHolds:
    """The holds of one gateway process.

    :ivar begun: since the start.
    """

    def __init__(self) -> None:
        self.begun = 0
        #: Tenant → the epoch that is being left, and until when.
        self._held: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, tenant_id: str, epoch: int, limit_s: float, now: float) -> None:
        """Hold requests that would go by a route of ``epoch`` or an older one."""
        known = self._held.pop(tenant_id, None)
        if known is not None and known[0] > epoch:
            self._held[tenant_id] = known  # an old order that came late
            return
        self.begun += 1
        self._held[tenant_id] = (epoch, now + min(limit_s, MAX_HOLD_S))
        if len(self._held) > MAX_HELD_TENANTS:
            del self._held[next(iter(self._held))]

    def release(self, tenant_id: str, epoch: int) -> None:
        """The tenant's route of ``epoch`` is right: it moved there, or stays."""
        known = self._held.get(tenant_id)
        if known is not None and known[0] <= epoch:
            del self._held[tenant_id]

    def is_held(self, route: Route, now: float) -> bool:
        """Whether a request may not go by ``route`` now."""
        known = self._held.get(route.tenant_id)
        if known is None:
            return False
        epoch, until = known
        if now >= until:
            del self._held[route.tenant_id]
            return False
        return route.epoch <= epoch
