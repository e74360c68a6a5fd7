"""How many requests may wait in this gateway for a tenant that starts, moves or lost its node.

Pure. A held request costs a connection and its unread body's socket buffer, nothing more; the
bounds keep one tenant's crowd from taking all connections, and the gateway from running out of
descriptors. How long one may wait is the setting ``hold_s``; the request itself keeps that.
"""

from __future__ import annotations

MAX_PER_TENANT = 1_000
MAX_TOTAL = 10_000


class Holds:
    """Counts who waits.

    :ivar total: now. :ivar refused: since the start, because a bound was reached.
    """

    def __init__(self, *, max_per_tenant: int = MAX_PER_TENANT, max_total: int = MAX_TOTAL) -> None:
        self.total = 0
        self.refused = 0
        self._max_per_tenant = max_per_tenant
        self._max_total = max_total
        self._of: dict[str, int] = {}

    def enter(self, tenant: str) -> bool:
        """A request for ``tenant`` (any stable name of it) begins to wait; False: it may not."""
        waiting = self._of.get(tenant, 0)
        if waiting >= self._max_per_tenant or self.total >= self._max_total:
            self.refused += 1
            return False
        self._of[tenant] = waiting + 1
        self.total += 1
        return True

    def leave(self, tenant: str) -> None:
        """It waits no longer."""
        left = self._of[tenant] - 1
        self.total -= 1
        if left:
            self._of[tenant] = left
        else:
            del self._of[tenant]

    def waiting_for(self, tenant: str) -> int:
        """Requests that wait for ``tenant``."""
        return self._of.get(tenant, 0)
