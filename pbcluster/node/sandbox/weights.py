"""Who fills its limit of processor time weighs less than who does not. Pure.

What holds: a tenant that had at least ``MUCH`` of its limit in a while is light from then on; one
that had less than ``LITTLE`` for ``REST_S`` has its usual weight again: one that is light and must
share gets little without wanting little. How much it may have at most does not change, and where
nobody else wants the processor it has as much as before. Where so many compute that none of them
comes near its limit, all weigh the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

#: Shares of the limit.
MUCH, LITTLE = 0.85, 0.7
REST_S = 0.6
#: Nothing is said of less than ten of the kernel's ticks.
JUDGED_S = 0.1


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
        #: Who is light and had little → since when.
        self._rests_since: dict[str, float] = {}

    def look(self, now: float, uses: Mapping[str, Use]) -> dict[str, bool]:
        """Some tenants are looked at.

        :param now: seconds, of any clock that only goes on.
        :returns: those whose weight changes → whether they are light now.
        """
        changed = {}
        for tenant, use in uses.items():
            at, before = self._before.setdefault(tenant, (now, use.cpu_s))
            if use.cpu_s < before:  # a new process begins at 0 again
                self._before[tenant] = (now, use.cpu_s)
                continue
            if (now - at) * use.limit < JUDGED_S:
                continue
            self._before[tenant] = (now, use.cpu_s)
            share = (use.cpu_s - before) / (now - at) / use.limit
            if share >= LITTLE:
                self._rests_since.pop(tenant, None)
            if share >= MUCH and tenant not in self.light:
                self.light.add(tenant)
                changed[tenant] = True
            elif share < LITTLE and tenant in self.light:
                since = self._rests_since.setdefault(tenant, at)
                if now - since >= REST_S:
                    self.light.discard(tenant)
                    changed[tenant] = False
        return changed

    def ended(self, tenant: str) -> None:
        """Its process is gone; the next one begins with the usual weight."""
        self.light.discard(tenant)
        self._before.pop(tenant, None)
        self._rests_since.pop(tenant, None)
