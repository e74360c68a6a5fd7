"""Who fills its limit of processor time weighs less than who does not. Pure.

What holds: a tenant that had at least ``MUCH`` of its limit between two looks is light from then
on; one that had less than ``LITTLE`` has its usual weight again. How much it may have at most does
not change, and where nobody else wants the processor it has as much as before.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

#: Shares of the limit.
MUCH, LITTLE = 0.75, 0.5


@attrs.frozen
class Use:
    """Of one process, since its start.

    :ivar cpu_s: seconds that it had of processors. :ivar limit: cores that it may fill.
    """

    cpu_s: float
    limit: float


class Weights:
    """See the module. :ivar light: who is."""

    def __init__(self) -> None:
        self.light: set[str] = set()
        #: Tenant → (when, seconds of processors until then).
        self._before: dict[str, tuple[float, float]] = {}

    def look(self, now: float, uses: Mapping[str, Use]) -> dict[str, bool]:
        """Some tenants are looked at.

        :param now: seconds, of any clock that only goes on.
        :returns: those whose weight changes → whether they are light now.
        """
        changed = {}
        for tenant, use in uses.items():
            at, before = self._before.get(tenant, (now, use.cpu_s))
            self._before[tenant] = (now, use.cpu_s)
            # A new process begins at 0 again.
            if now <= at or use.cpu_s < before:
                continue
            share = (use.cpu_s - before) / (now - at) / use.limit
            if share >= MUCH and tenant not in self.light:
                self.light.add(tenant)
                changed[tenant] = True
            elif share < LITTLE and tenant in self.light:
                self.light.discard(tenant)
                changed[tenant] = False
        return changed

    def ended(self, tenant: str) -> None:
        """Its process is gone; the next one begins with the usual weight."""
        self.light.discard(tenant)
        self._before.pop(tenant, None)
