"""What the leader does next: a view of registry and liveness in, effects out, no choice left open.

Pure and repeatable: the same view gives the same plan. The executor carries effects out and tells
when each has ended; until then the plan does not name the same tenant or node again. The number of
assignments under way is bounded, so that the death of a full node cannot flood log and survivors.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pbcluster.controlplane.liveness import Liveness, ProbeNode
from pbcluster.controlplane.placement import Candidate, choose
from pbcluster.controlplane.registry import LIVING, Registry
from pbcluster.errors import NoCapacity, Unavailable
from pbcluster.records import NodeStatus, TenantRecord, TenantStatus

#: Assignments under way at once.
MAX_ASSIGNING = 64
#: More than this share of the nodes (but at least one node) suspected at once looks like our own
#: network: background reassignment stops until it is fewer, or until somebody asks for a tenant.
STORM_SHARE = 0.2
#: After a failure (no room, proposal refused) a tenant is left alone for so long, unless asked for.
RETRY_S = 1.0


@attrs.frozen
class Assign:
    """Propose this assignment. ``reason`` is for the log."""

    tenant_id: str
    node_id: str
    expected_epoch: int
    above_epoch: int
    reason: str


@attrs.frozen
class Forget:
    """The node of a tenant that is being deleted is gone: its release is not waited for."""

    tenant_id: str
    node_id: str
    epoch: int


@attrs.frozen
class SetStatus:
    """Propose this node status."""

    node_id: str
    incarnation: int
    status: NodeStatus


Effect = ProbeNode | Assign | Forget | SetStatus


class Planner:
    """Decides for one leader."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        liveness: Liveness,
        *,
        node_down_after_s: float,
    ) -> None:
        """
        :param registry: gives the applied state (a snapshot may replace the object).
        :param node_down_after_s: a node without a sign of life for so long is shown as down.
        """
        self._current = registry
        self._liveness = liveness
        self._node_down_after_s = node_down_after_s
        self._assigning: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._setting: set[str] = set()

    @property
    def _registry(self) -> Registry:
        return self._current()

    def reset(self) -> None:
        """Another leadership begins, or this one ended: nothing is under way."""
        self._assigning.clear()
        self._not_before.clear()
        self._setting.clear()

    # -- what is under way --

    def assigned(self, tenant_id: str, now: float, *, failed: bool) -> None:
        """An :class:`Assign` or :class:`Forget` of this tenant has ended."""
        self._assigning.discard(tenant_id)
        self._liveness.end_taking(tenant_id)
        if failed:
            self._not_before[tenant_id] = now + RETRY_S
        else:
            self._not_before.pop(tenant_id, None)

    def status_set(self, node_id: str) -> None:
        """A :class:`SetStatus` of this node has ended."""
        self._setting.discard(node_id)

    # -- the plan --

    def tick(self, now: float) -> list[Effect]:
        """What to do now."""
        for node in self._registry.nodes():
            self._liveness.known(node.id, node.incarnation, now)
        effects: list[Effect] = list(self._liveness.tick(now))
        effects.extend(self._statuses(now))
        effects.extend(self._rescues(now))
        return effects

    def _statuses(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for node in self._registry.nodes():
            down = self._liveness.is_down(node.id, now, self._node_down_after_s)
            if node.id in self._setting or down == (node.status is NodeStatus.DOWN):
                continue
            self._setting.add(node.id)
            status = NodeStatus.DOWN if down else NodeStatus.HEALTHY
            effects.append(SetStatus(node.id, node.incarnation, status))
        return effects

    def _rescues(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.storm():
            return effects
        for node_id in self._liveness.suspected():
            for tenant_id in sorted(self._registry.tenants_of(node_id)):
                if len(self._assigning) >= MAX_ASSIGNING:
                    return effects
                if tenant_id in self._assigning or self._not_before.get(tenant_id, 0.0) > now:
                    continue
                effect = self._rescue(self._registry.tenant(tenant_id), now)
                if effect is not None:
                    effects.append(effect)
        return effects

    def _rescue(self, tenant: TenantRecord, now: float) -> Effect | None:
        if not self._liveness.may_give_away(tenant.node_id, now):
            return None
        if tenant.status is TenantStatus.DELETING:
            self._assigning.add(tenant.id)
            return Forget(tenant.id, tenant.node_id, tenant.epoch)
        if tenant.status not in LIVING or tenant.degraded:
            # A degraded tenant has acknowledged writes on its node only: an operator decides.
            return None
        try:
            return self._assign(tenant, f"node {tenant.node_id} does not answer", now)
        except NoCapacity:
            self._not_before[tenant.id] = now + RETRY_S
            return None

    def storm(self) -> bool:
        """Whether so many nodes are suspected at once that the fault may be ours.

        A dead node that has nothing left to give away does not count: else three machines that
        were retired would stop the rescue of all others for good.
        """
        suspected = set(self._liveness.suspected())
        silent = sum(self._registry.count_of(node_id) > 0 for node_id in suspected)
        others = sum(node.id not in suspected for node in self._registry.nodes())
        return silent > max(1.0, STORM_SHARE * (silent + others))

    def place(self, tenant: TenantRecord, now: float) -> Assign | None:
        """Somebody asks for this tenant: give it a living node if it has none.

        :returns: what to propose, or None if it has a living node.
        :raises NoCapacity: no node can take it.
        :raises Unavailable: its node is silent, but may still hold a proof, or an assignment is
            under way: ask again after ``retry_after_s``.
        """
        if tenant.id in self._assigning:
            raise Unavailable(f"tenant {tenant.name!r} is being placed", retry_after_s=0.05)
        if not tenant.node_id:
            return self._assign(tenant, "it has no node", now)
        if self._liveness.alive(tenant.node_id):
            return None
        if tenant.degraded or not self._liveness.may_give_away(tenant.node_id, now):
            raise Unavailable(
                f"node {tenant.node_id} of tenant {tenant.name!r} does not answer; it may still "
                "own it for a moment",
                retry_after_s=0.1,
            )
        return self._assign(tenant, f"node {tenant.node_id} does not answer", now)

    def replace_epoch(self, tenant: TenantRecord, above_epoch: int, now: float) -> Assign | None:
        """Its owner cannot use the epoch it was given: a new one, on the same node if possible.

        :returns: None if an assignment is under way already.
        :raises NoCapacity: no node can take it.
        :raises Unavailable: an older start of the node may still answer for a moment.
        """
        if tenant.id in self._assigning:
            return None
        if tenant.degraded:
            raise Unavailable(
                f"tenant {tenant.name!r} is degraded: an operator decides", retry_after_s=5.0
            )
        if not self._liveness.may_renew(tenant.node_id, now):
            raise Unavailable(
                f"an older start of node {tenant.node_id} may still answer for a moment",
                retry_after_s=0.2,
            )
        return self._assign(tenant, "its epoch was refused", now, above_epoch, tenant.node_id)

    def _assign(
        self, tenant: TenantRecord, reason: str, now: float, above: int = 0, prefer: str = ""
    ) -> Assign:
        choice = choose(self.candidates(tenant), prefer=prefer)
        self._assigning.add(tenant.id)
        if tenant.node_id:
            self._liveness.begin_taking(tenant.id, tenant.node_id)
        return Assign(tenant.id, choice.node_id, tenant.epoch, above, reason)

    def candidates(self, tenant: TenantRecord | None) -> list[Candidate]:
        """All nodes as placement sees them; ``tenant``'s own place does not count against it."""
        return [
            Candidate(
                node,
                self._registry.count_of(node.id)
                - (tenant is not None and tenant.node_id == node.id),
                self._liveness.alive(node.id),
                self._degraded(node.id),
            )
            for node in self._registry.nodes()
        ]

    def _degraded(self, node_id: str) -> bool:
        last = self._liveness.last_heartbeat(node_id)
        return last is not None and last[1].status == NodeStatus.DEGRADED.value
