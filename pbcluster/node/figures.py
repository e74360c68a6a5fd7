"""What a node says of itself: in its heartbeats to the control plane, and on its metrics page.

Each call reads what is there at that moment; nothing is remembered and nothing is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pbcluster.node.assembly import Assembly
from pbcluster.node.heartbeat import Condition
from pbcluster.node.lifecycle import PRESENT, State
from pbcluster.node.loop_lag import LoopLag
from pbcluster.node.machine import boottime
from pbcluster.node.resources import is_short
from pbcluster.records import NodeStatus


class Figures:
    """See the module."""

    def __init__(
        self,
        made: Assembly,
        lag: LoopLag,
        gaps: Callable[[], int],
        rereading: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """
        :param made: the parts of which it tells. :param lag: of the event loop.
        :param gaps: how often the control plane was away for long.
        :param rereading: how often the secrets were read again.
        """
        self._made = made
        self._lag = lag
        self._gaps = gaps
        self._rereading = rereading

    def condition(self) -> Condition:
        """What a heartbeat carries of the whole node."""
        made = self._made
        states = Counter(each.state for each in made.tenants)
        resources, cache = made.resources.read(), made.tenants.cache
        hurt = not made.tenants.replication_up or self._lag.is_late
        status = NodeStatus.DEGRADED if hurt or is_short(resources) else NodeStatus.HEALTHY
        return Condition(
            status=NodeStatus.DRAINING if made.front.draining else status,
            active=sum(states[state] for state in PRESENT),
            cached=states[State.ABSENT],
            hits=cache.hits,
            misses=cache.misses,
            evictions=cache.evictions,
            resources=resources,
            tenants=made.storage.with_sizes(made.tenants.usage()),
        )

    def found(self, tenant_id: str) -> tuple[int, str]:
        """What runs of a tenant here: epoch (0: nothing) and state."""
        tenant = self._made.tenants.find(tenant_id)
        return (0, "") if tenant is None else (tenant.epoch, tenant.state.value)

    def metrics(self) -> bytes:
        """The metrics page."""
        made = self._made
        tenants, cache = list(made.tenants), made.tenants.cache
        replications = [each.replication for each in tenants]
        counts = Counter(each.state.value for each in tenants)
        age = made.parts.proofs.lease_age_s(boottime())
        gauges = {
            "lease_age_seconds": -1.0 if age is None else age,
            "assignments_index": made.tenants.obeyed_index,
            "list_changes_obeyed": made.orders.changes_obeyed,
            "list_changes_refused": made.orders.changes_refused,
            "streams": len(made.streams),
            "open_requests": sum(cache.open_requests(each.tenant_id) for each in tenants),
            "full_tenants": made.storage.full_count,
            "waiting_writes": sum(each.waiting_writes for each in replications),
            **made.housekeeping.figures(),
            "degraded_tenants": sum(each.degraded for each in replications),
            "replication_lag_seconds": max((each.lag_s for each in replications), default=0.0),
            "unreplicated_tenants": sum(each.only_here for each in replications),
            "cache_hits": cache.hits,
            "cache_misses": cache.misses,
            "cache_evictions": cache.evictions,
            **(made.tls.figures() if made.tls is not None else {}),
            **(made.shells.files.figures() if made.shells.files is not None else {}),
            "away_gaps": self._gaps(),
            **self._rereading(),
        }
        return made.metrics.show({state.value: counts[state.value] for state in State}, gauges)
