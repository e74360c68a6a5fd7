"""Evens the nodes out by moving tenants, a few at a time: what a leader does for it. Pure.

That a rebalancing is under way stands in the log; which tenants are to move does not: the leader
plans (``placement.rebalance``), begins the moves of its plan as migrations of their own, and plans
again when all of them have ended, since the world has changed meanwhile. So any new leader goes on
with it, and a tenant that was moved is not moved back. It ends when a plan is empty, and, since a
move may be impossible again and again, after :data:`MAX_PLANS` plans.

A tenant whose move was aborted since the rebalancing began is left where it is. Tenants with
placement constraints are never moved for evenness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

import attrs

from pbcluster.controlplane.placement import Move, rebalance
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.registry import LIVING, Registry
from pbcluster.records import MigrationPhase

#: Plans that one leader makes for one rebalancing.
MAX_PLANS = 20
#: After a plan the next one comes no sooner; what could not be proposed is named again then.
PLAN_EVERY_S = 0.5
AT_ONCE = 4


def plan(registry: Registry, planner: Planner, since: datetime | None = None) -> list[Move]:
    """The fewest moves that would make the nodes even.

    :param since: tenants whose move was aborted after this moment are left out.
    """

    def movable(node_id: str) -> list[str]:
        return [t for t in registry.tenants_of(node_id) if _may_move(registry, t, since)]

    return rebalance(planner.candidates(None), movable)


def _may_move(registry: Registry, tenant_id: str, since: datetime | None) -> bool:
    """Placement constraints are left alone: who has any is not moved for evenness."""
    tenant = registry.tenant(tenant_id)
    free = tenant.status in LIVING and tenant.ever_ready and not tenant.degraded
    last = registry.last_migration(tenant_id)
    if last is not None and since is not None and last.started >= since:
        free = free and last.phase is not MigrationPhase.ABORTED
    return free and not tenant.placement


@attrs.frozen
class Finish:
    """Propose that a rebalancing ends. ``reason``: why it is not complete; empty: it is."""

    rebalance_id: str
    reason: str = ""


class Rebalancing:
    """One leader's part. It names moves; ``moves`` begins them, within its bounds."""

    def __init__(self, registry: Callable[[], Registry], planner: Planner) -> None:
        """
        :param registry: gives the applied state (a snapshot may replace the object).
        """
        self._current = registry
        self._planner = planner
        self.reset()

    def reset(self) -> None:
        """Another leadership begins: it plans anew."""
        self._queue: deque[Move] = deque()
        #: Tenants of this plan that were begun.
        self._begun: set[str] = set()
        self._of = ""
        self._plans = 0
        self._plan_at = 0.0

    def left(self) -> int:
        """Moves that are not done, as far as this leader knows."""
        record = self._current().rebalance
        if record is None or record.ended is not None:
            return 0
        if self._of != record.id:
            return record.total_moves
        return len(self._queue) + len(self._begun)

    def next_moves(
        self, now: float, under_way: Mapping[str, object], rests: Callable[[str], bool]
    ) -> Iterator[Move | Finish]:
        """What to begin now, at most as many as the rebalancing allows at once.

        :param now: seconds of a monotonic clock.
        :param under_way: tenants that move, or are about to, for whatever reason.
        :param rests: whether a tenant is to be left alone for a moment.
        """
        record = self._current().rebalance
        if record is None or record.ended is not None:
            return
        if self._of != record.id:
            self.reset()
            self._of = record.id
        self._begun &= under_way.keys()
        if not self._queue and not self._begun and now >= self._plan_at:
            self._plan_at = now + PLAN_EVERY_S
            yield from self._plan(record.started)
        for move in list(self._queue):
            if len(self._begun) >= record.at_once:
                return
            if rests(move.tenant_id):
                continue
            self._queue.remove(move)
            tenant = self._current().tenant(move.tenant_id)
            there = tenant.node_id == move.source and tenant.status in LIVING
            if there and move.tenant_id not in under_way:
                self._begun.add(move.tenant_id)
                yield move

    def _plan(self, since: datetime) -> Iterator[Finish]:
        registry = self._current()
        if registry.active_migrations():
            return  # what is under way would be planned for twice
        self._queue.extend(plan(registry, self._planner, since))
        self._plans += 1
        if self._queue and self._plans <= MAX_PLANS:
            return
        left = len(self._queue)
        self._queue.clear()
        yield Finish(self._of, f"{left} moves could not be made" if left else "")
