"""What a leader does for all tenants that move, and which it begins to move off draining nodes.

Pure and repeatable: ``migration.next_step`` says what one migration needs; here is when it is asked
for, what is under way, and how much at once. The shell (``migrating``) carries each effect out and
tells when it has ended; until then it is not named again.

A tick costs what moves and what is to leave draining nodes, never what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import attrs

from pbcluster.controlplane import migration as m
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.placement import Move
from pbcluster.controlplane.planner import Assign, Kind, Planner, kind_of
from pbcluster.controlplane.rebalancing import Finish, Rebalancing
from pbcluster.controlplane.registry import LIVING, Registry
from pbcluster.errors import NoCapacity
from pbcluster.records import (
    MigrationPhase,
    MigrationRecord,
    NodeRecord,
    NodeStatus,
    TenantRecord,
    TenantStatus,
)

#: Migrations under way in all; each costs its target a restore and a start.
MAX_MOVES = 16
#: … of those that a drain began, from one source.
MAX_PER_SOURCE = 4
#: … and toward one target: one is prepared while another is paused. More of them do not end a drain
#: sooner, where two starts share processors.
MAX_PER_TARGET = 2
#: Tenants that are paused at once on their way to one target, so that nobody's pause grows with
#: what else moves: the longest one of 50 was 2.8 s when four were, and is 1.2 s.
MAX_PAUSED = 1
#: One that is paused for longer has another trouble, and stops nobody else.
PAUSE_COUNTS_S = 10.0
#: A tenant whose move off a draining node failed is tried again after so long.
RETRY_S = 5.0
#: A step that could not be carried out is tried again after so long.
STEP_RETRY_S = 0.5
#: Old routes, which thousands of tenants may have after a drain, are looked at so often.
OLD_ROUTES_EVERY_S = 1.0


@attrs.frozen
class Start:
    """Propose to begin a migration."""

    tenant_id: str
    target_node: str
    expected_epoch: int
    reason: str


Effect = m.Step | Start | Assign | Finish


class Moves:
    """Decides for one leader."""

    def __init__(
        self, registry: Callable[[], Registry], liveness: Liveness, planner: Planner
    ) -> None:
        """
        :param registry: gives the applied state (a snapshot may replace the object).
        """
        self._current = registry
        self._liveness = liveness
        self._planner = planner
        #: Migration → its version and when it was first seen so. As many as are open.
        self._seen: dict[str, tuple[int, float]] = {}
        #: Migration → last request that followed the old route.
        self._followed: dict[str, float] = {}
        #: Nodes that are being stopped → the incarnation that said so. Soft: each repeats it.
        self._leaving: dict[str, int] = {}
        #: What evens the nodes out.
        self.rebalancing = Rebalancing(registry, planner)
        self._busy: set[str] = set()
        #: Tenants whose migration is about to begin → source and target.
        self._starting: dict[str, tuple[str, str]] = {}
        self._not_before: dict[str, float] = {}
        #: Tenants that moved a moment ago: a drain leaves them alone until then.
        self._rest_until: dict[str, float] = {}
        #: Draining node and tenants that are placed alike → until when their next node is not
        #: looked for again, among all nodes: it was in vain for one of them.
        self._in_vain: dict[tuple[str, Kind], float] = {}
        self._old_routes_at = 0.0

    def reset(self) -> None:
        """Another leadership begins, or this one ended."""
        for known in (self._seen, self._followed):
            known.clear()
        for pauses in (self._not_before, self._rest_until):
            pauses.clear()
        self._leaving.clear()
        self.rebalancing.reset()
        self._busy.clear()
        self._starting.clear()
        self._in_vain.clear()
        self._old_routes_at = 0.0

    # -- what is told --

    def ended(self, tenant_id: str, now: float, *, failed: bool) -> None:
        """An effect about this tenant has ended."""
        self._busy.discard(tenant_id)
        self._starting.pop(tenant_id, None)
        if failed:
            self._not_before[tenant_id] = now + STEP_RETRY_S
        else:
            self._not_before.pop(tenant_id, None)

    def old_route_used(self, node_id: str, tenant_ids: Iterable[str], now: float) -> None:
        """Requests for these tenants still came to the node that had them before."""
        registry = self._current()
        for tenant_id in tenant_ids:
            record = registry.last_migration(tenant_id)
            if record is not None and record.source_node == node_id:
                self._followed[record.id] = now

    def leaves(self, node_id: str, incarnation: int) -> None:
        """A node is being stopped: its running tenants go elsewhere, as from one that is drained.

        :raises NoCapacity: no other node can take any.
        """
        self._leaving[node_id] = incarnation
        registry, suspected = self._current(), self._liveness.suspected()
        if not any(
            node.id != node_id
            and node.status is NodeStatus.HEALTHY
            and node.id not in suspected
            and registry.count_of(node.id) < node.capacity
            for node in registry.nodes()
        ):
            raise NoCapacity(f"no other node can take the tenants of {node_id}")

    # -- the plan --

    def tick(self, now: float) -> list[Effect]:
        """What to do now."""
        effects: list[Effect] = []
        active = self._current().active_migrations()
        for record in active:
            self._look_at(record, now, effects)
        if now >= self._old_routes_at:
            self._old_routes_at = now + OLD_ROUTES_EVERY_S
            old_routes = self._current().old_routes()
            for record in old_routes:
                self._look_at(record, now, effects)
            self._forget(now, {record.id for record in (*active, *old_routes)})
        if not self._planner.storm():
            under_way = self._under_way(active)
            effects.extend(self._drains(now, under_way))
            effects.extend(self._even_out(now, under_way))
        return effects

    def _forget(self, now: float, known: set[str]) -> None:
        """What is kept of migrations that are over, and of pauses that are."""
        for kept in (self._seen, self._followed):
            for gone in [key for key in kept if key not in known]:
                del kept[gone]
        for pauses in (self._not_before, self._rest_until):
            for over in [key for key, until in pauses.items() if until <= now]:
                del pauses[over]
        for each in [key for key, until in self._in_vain.items() if until <= now]:
            del self._in_vain[each]

    def _look_at(self, record: MigrationRecord, now: float, effects: list[Effect]) -> None:
        version, since = self._seen.get(record.id, (-1, now))
        if version != record.version:
            since = now
            self._seen[record.id] = (record.version, now)
        if record.phase in m.ACTIVE:
            # Should it be aborted, a drain does not try again at once.
            self._rest_until[record.tenant_id] = now + RETRY_S
        if self._is_busy(record.tenant_id, now):
            return
        quiet_since = max(since, self._followed.get(record.id, since))
        seen = m.Seen(
            phase_age_s=now - since,
            source_alive=self._liveness.alive(record.source_node),
            target_trouble=self._trouble(record.target_node),
            route_quiet_s=now - quiet_since,
        )
        step = m.next_step(record, seen)
        if step is None or (isinstance(step, m.Hold) and not self._may_pause(record, now)):
            return
        self._busy.add(record.tenant_id)
        effects.append(step)

    def _may_pause(self, record: MigrationRecord, now: float) -> bool:
        """Whether few enough others are paused on their way to the same target."""
        others = [
            other
            for other in self._current().active_migrations()
            if other.target_node == record.target_node and other.id != record.id
        ]
        return sum(self._is_paused(other, now) for other in others) < MAX_PAUSED

    def _is_paused(self, record: MigrationRecord, now: float) -> bool:
        """Its tenant is held, or about to be, and that not for too long."""
        if record.phase is MigrationPhase.PREPARING:
            return record.warmed and record.tenant_id in self._busy
        _, since = self._seen.get(record.id, (-1, now))
        return now - since < PAUSE_COUNTS_S

    def _is_busy(self, tenant_id: str, now: float) -> bool:
        return tenant_id in self._busy or self._not_before.get(tenant_id, 0.0) > now

    def _trouble(self, node_id: str) -> str:
        node = self._current().node(node_id)
        if node.status is not NodeStatus.HEALTHY:
            return f"is {node.status.value}"
        return "" if self._liveness.alive(node_id) else "does not answer"

    # -- draining nodes --

    def _under_way(self, active: list[MigrationRecord]) -> dict[str, tuple[str, str]]:
        """Tenants that move, or are about to → source and target."""
        found = {record.tenant_id: (record.source_node, record.target_node) for record in active}
        return found | self._starting

    def _drains(self, now: float, under_way: dict[str, tuple[str, str]]) -> list[Effect]:
        effects: list[Effect] = []
        for node in self._current().nodes():
            for tenant_id in self._to_move(node):
                sources = sum(source == node.id for source, _ in under_way.values())
                if sources >= MAX_PER_SOURCE or len(under_way) >= MAX_MOVES:
                    break
                if tenant_id in under_way or self._is_resting(tenant_id, now):
                    continue
                tenant = self._current().tenant(tenant_id)
                effect = self._off(tenant, under_way, now)
                if effect is not None:
                    effects.append(effect)
        return effects

    def _even_out(self, now: float, under_way: dict[str, tuple[str, str]]) -> list[Effect]:
        """Moves of a rebalancing that begin now; drains come first."""
        effects: list[Effect] = []
        rests = lambda tenant_id: self._is_resting(tenant_id, now)  # noqa: E731
        for each in self.rebalancing.next_moves(now, under_way, rests):
            if isinstance(each, Finish):
                effects.append(each)
            elif len(under_way) < MAX_MOVES:
                effects.append(self._begin(each, under_way))
        return effects

    def _begin(self, move: Move, under_way: dict[str, tuple[str, str]]) -> Start:
        tenant = self._current().tenant(move.tenant_id)
        self._busy.add(tenant.id)
        self._starting[tenant.id] = under_way[tenant.id] = (move.source, move.target)
        return Start(tenant.id, move.target, tenant.epoch, "the nodes are evened out")

    def _to_move(self, node: NodeRecord) -> list[str]:
        """Tenants that are to leave a node: all of one that is drained; of one that is being
        stopped those that run, since it has little time."""
        leaves = self._leaving.get(node.id) == node.incarnation
        if not (node.drain_wanted or leaves) or not self._liveness.alive(node.id):
            return []
        registry = self._current()
        tenants = sorted(registry.tenants_of(node.id))
        if node.drain_wanted:
            return tenants
        return [t for t in tenants if registry.tenant(t).status is not TenantStatus.IDLE]

    def _is_resting(self, tenant_id: str, now: float) -> bool:
        return self._rest_until.get(tenant_id, 0.0) > now or self._is_busy(tenant_id, now)

    def _off(
        self, tenant: TenantRecord, under_way: dict[str, tuple[str, str]], now: float
    ) -> Start | Assign | None:
        """How a tenant leaves its draining node; None: not now."""
        its_like = (tenant.node_id, kind_of(tenant))
        waits = self._in_vain.get(its_like, 0.0) > now
        if tenant.status not in LIVING or tenant.degraded or waits:
            return None
        targets = Counter(target for _, target in under_way.values())
        crowded = {each: "others move there" for each, n in targets.items() if n >= MAX_PER_TARGET}
        wish = self._planner.wish(tenant, move=True)
        target = self._planner.best(tenant, attrs.evolve(wish, avoid={**wish.avoid, **crowded}))
        if not target:
            self._in_vain[its_like] = now + (STEP_RETRY_S if crowded else RETRY_S)
            return None
        wanted = self._current().node(tenant.node_id).drain_wanted
        reason = f"node {tenant.node_id} is {'drained' if wanted else 'being stopped'}"
        effect: Start | Assign | None = Start(tenant.id, target, tenant.epoch, reason)
        if not tenant.ever_ready:
            effect = self._planner.move_off(tenant, target, reason)
        if effect is not None:
            self._busy.add(tenant.id)
            self._starting[tenant.id] = under_way[tenant.id] = (tenant.node_id, target)
        return effect
