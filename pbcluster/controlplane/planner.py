"""What the leader does next: a view of registry and liveness in, effects out, no choice left open.

Pure and repeatable: the same view gives the same plan. The executor carries effects out and tells
when each has ended; until then the plan does not name the same tenant or node again. The number of
assignments under way is bounded, so that the death of a full node cannot flood log and survivors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import attrs

from pbcluster.controlplane.liveness import Liveness, ProbeNode
from pbcluster.controlplane.placement import Candidate, Choice, Wish, best_of, choose
from pbcluster.controlplane.registry import LIVING, Registry
from pbcluster.controlplane.registry_records import ending_of, may_end
from pbcluster.controlplane.shortlist import FRESH_S, Shortlist
from pbcluster.errors import NoCapacity, Unavailable
from pbcluster.records import NodeRecord, NodeResources, NodeStatus, TenantRecord, TenantStatus

#: Assignments under way at once.
MAX_ASSIGNING = 64
#: Ends of tenants without a node under way at once: they wait for S3, not for anybody.
MAX_ENDING = 16
#: More than this share of the nodes (but at least one node) suspected at once looks like our own
#: network: background reassignment stops until it is fewer, or until somebody asks for a tenant.
STORM_SHARE = 0.2
#: After a failure (no room, proposal refused) a tenant is left alone for so long, unless asked for.
RETRY_S = 1.0
#: Of a node whose heartbeat did not come yet.
_UNKNOWN = NodeResources()
_DEGRADED = NodeStatus.DEGRADED.value


@attrs.frozen
class Assign:
    """Propose this assignment. ``reason`` is for the log."""

    tenant_id: str
    node_id: str
    expected_epoch: int
    above_epoch: int
    reason: str
    keeps_data: bool = False


@attrs.frozen
class SetStatus:
    """Propose this node status."""

    node_id: str
    incarnation: int
    status: NodeStatus


Effect = ProbeNode | Assign | SetStatus
Kind = tuple[bool, tuple[tuple[str, str], ...]]


def kind_of(tenant: TenantRecord) -> Kind:
    """Where there is no room for a tenant, there is none for others of its kind."""
    return bool(may_end(tenant)), tuple(sorted(tenant.placement.items()))


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
        #: Tenant → the node on which it is about to take a place; empty: it ends there.
        self._assigning: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        self._setting: set[str] = set()
        #: Region, zone, reserve, unwell → when it was made, and the list.
        self._shortlists: dict[tuple[str, str, bool, bool], tuple[float, Shortlist]] = {}

    @property
    def _registry(self) -> Registry:
        return self._current()

    def reset(self) -> None:
        """Another leadership begins, or this one ended: nothing is under way."""
        self._assigning.clear()
        self._not_before.clear()
        self._setting.clear()
        self._shortlists.clear()

    # -- what is under way --

    def assigned(self, tenant_id: str, now: float, *, failed: bool) -> None:
        """An :class:`Assign` of this tenant has ended."""
        self._assigning.pop(tenant_id, None)
        self._liveness.end_taking(tenant_id)
        if failed:
            self._not_before[tenant_id] = now + RETRY_S
        else:
            self._not_before.pop(tenant_id, None)

    def status_set(self, node_id: str) -> None:
        """A :class:`SetStatus` of this node has ended."""
        self._setting.discard(node_id)

    # -- the plan --

    def tick(self, now: float, wall: datetime | None = None) -> list[Effect]:
        """What to do now.

        :param wall: the wall clock, by which deleted tenants' objects are kept; None: keep them.
        """
        for node in self._registry.nodes():
            self._liveness.known(node.id, node.incarnation, now)
        effects: list[Effect] = list(self._liveness.tick(now))
        effects.extend(self._statuses(now))
        effects.extend(self._rescues(now))
        effects.extend(self._ends(now, wall))
        return effects

    def _ends(self, now: float, wall: datetime | None) -> list[Effect]:
        """Order the ends of tenants that no node has."""
        effects: list[Effect] = []
        in_vain: set[Kind] = set()
        for tenant in self._registry.to_end(wall):
            if len(effects) + self._registry.ending_count() >= MAX_ENDING:
                break
            if self._rests(tenant.id, now) or kind_of(tenant) in in_vain:
                continue
            try:
                effects.append(self._assign(tenant, f"it is to be {may_end(tenant)}", now))
            except NoCapacity:
                in_vain.add(kind_of(tenant))
                self._not_before[tenant.id] = now + RETRY_S
        return effects

    def _rests(self, tenant_id: str, now: float) -> bool:
        return tenant_id in self._assigning or self._not_before.get(tenant_id, 0.0) > now

    def _statuses(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for node in self._registry.nodes():
            down = self._liveness.is_down(node.id, now, self._node_down_after_s)
            same = down == (node.status is NodeStatus.DOWN)
            if node.removed or node.id in self._setting or same:
                continue
            self._setting.add(node.id)
            status = NodeStatus.DOWN if down else NodeStatus.HEALTHY
            effects.append(SetStatus(node.id, node.incarnation, status))
        return effects

    def _rescues(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.storm():
            return effects
        in_vain: set[Kind] = set()
        for node_id in self._liveness.suspected():
            for tenant_id in sorted(self._registry.tenants_of(node_id)):
                if len(self._assigning) >= MAX_ASSIGNING:
                    return effects
                if self._rests(tenant_id, now):
                    continue
                effect = self._rescue(self._registry.tenant(tenant_id), in_vain, now)
                if effect is not None:
                    effects.append(effect)
        return effects

    def _rescue(self, tenant: TenantRecord, in_vain: set[Kind], now: float) -> Effect | None:
        """:param in_vain: kinds for which all nodes were looked at in this tick already."""
        if kind_of(tenant) in in_vain or not self._liveness.may_give_away(tenant.node_id, now):
            return None
        deleted = tenant.status in (TenantStatus.DELETING, TenantStatus.DELETED)
        if not (tenant.status in LIVING or ending_of(tenant)) or (tenant.degraded and not deleted):
            # A degraded tenant has acknowledged writes on its node only: an operator decides.
            return None
        try:
            return self._assign(tenant, f"node {tenant.node_id} does not answer", now)
        except NoCapacity:
            in_vain.add(kind_of(tenant))
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
        if tenant.degraded:
            raise Unavailable(
                f"node {tenant.node_id} of tenant {tenant.name!r} does not answer and has "
                "acknowledged writes that are nowhere else: an operator decides"
            )
        if not self._liveness.may_give_away(tenant.node_id, now):
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
        self._check_renewable(tenant, now)
        return self._assign(tenant, "its epoch was refused", now, above_epoch, tenant.node_id)

    def renew(self, tenant: TenantRecord, now: float) -> Assign | None:
        """Its owner goes on with its own copy, but needs a new epoch for it: a backup was restored.

        :returns: None if an assignment is under way already. :raises Unavailable: not now.
        """
        if tenant.id in self._assigning:
            return None
        self._check_renewable(tenant, now)
        self._assigning[tenant.id] = tenant.node_id
        self._liveness.begin_taking(tenant.id, tenant.node_id)
        reason = "PocketBase restored a backup"
        return Assign(tenant.id, tenant.node_id, tenant.epoch, 0, reason, keeps_data=True)

    def _check_renewable(self, tenant: TenantRecord, now: float) -> None:
        if not self._liveness.may_renew(tenant.node_id, now):
            raise Unavailable(
                f"an older start of node {tenant.node_id} may still answer for a moment",
                retry_after_s=0.2,
            )

    def move_off(self, tenant: TenantRecord, node_id: str, reason: str) -> Assign | None:
        """Give a tenant that was never ready to ``node_id``: there is nothing to hand over.

        :returns: None if an assignment is under way already.
        """
        if tenant.id in self._assigning:
            return None
        self._assigning[tenant.id] = node_id
        self._liveness.begin_taking(tenant.id, tenant.node_id)
        return Assign(tenant.id, node_id, tenant.epoch, 0, reason)

    def _assign(
        self, tenant: TenantRecord, reason: str, now: float, above: int = 0, prefer: str = ""
    ) -> Assign:
        wish = self.wish(tenant, reserve=bool(tenant.node_id))
        if prefer or self._is_special(tenant):
            best = best_of(self._each(tenant), prefer=prefer, wish=wish)
        else:
            best = self._listed(tenant, wish, now)
        node_id = self.choice(tenant, wish, prefer).node_id if best is None else best.node.id
        self._assigning[tenant.id] = "" if may_end(tenant) else node_id
        if tenant.node_id:
            self._liveness.begin_taking(tenant.id, tenant.node_id)
        return Assign(tenant.id, node_id, tenant.epoch, above, reason)

    def _is_special(self, tenant: TenantRecord) -> bool:
        """Whether nodes have another order for it than for others: it has a copy somewhere, is kept
        away from its group, or ends, which takes no room."""
        spread = bool(tenant.placement.get("spread"))
        return spread or bool(may_end(tenant)) or self._registry.has_copy(tenant.id)

    def _listed(self, tenant: TenantRecord, wish: Wish, now: float) -> Candidate | None:
        """The best node by the list of the moment; None: none is left on it."""
        registry = self._registry
        kind = (wish.region, wish.zone, wish.reserve, wish.unwell)
        made_at, shortlist = self._shortlists.get(kind, (-FRESH_S, None))
        if shortlist is None or not 0 <= now - made_at < FRESH_S:
            shortlist = Shortlist(self._each(None), wish)
            self._shortlists[kind] = now, shortlist
        coming = self._coming(tenant.id)
        return shortlist.best(lambda each: self._seen(registry.node(each), tenant, coming))

    def wish(self, tenant: TenantRecord, *, reserve: bool = False, move: bool = False) -> Wish:
        """What a tenant needs of its next node.

        :param reserve: its node died. :param move: it goes elsewhere without need.
        """
        avoid = {tenant.node_id: "has it now"} if move else {}
        place = tenant.placement
        return Wish(
            region=place.get("region", ""),
            zone=place.get("zone", ""),
            avoid=avoid,
            reserve=reserve,
            unwell=not move,
        )

    def best(self, tenant: TenantRecord, wish: Wish) -> str:
        """As :meth:`choice`, without reasons; empty: nowhere."""
        found = best_of(self._each(tenant), wish=wish)
        return "" if found is None else found.node.id

    def choice(self, tenant: TenantRecord, wish: Wish, prefer: str = "") -> Choice:
        """Where it would go now. :raises NoCapacity: nowhere."""
        return choose(self.candidates(tenant), prefer=prefer, wish=wish)

    def check_room(self, region: str = "", zone: str = "") -> None:
        """Whether a new tenant could be placed. :raises NoCapacity: nowhere; says why."""
        wish = Wish(region=region, zone=zone)
        if all(each.objection(wish) for each in self._each(None)):
            choose(self.candidates(None), wish=wish)

    def candidates(self, tenant: TenantRecord | None) -> list[Candidate]:
        """All nodes as placement sees them; ``tenant``'s own place does not count against it."""
        return list(self._each(tenant))

    def _each(self, tenant: TenantRecord | None) -> Iterator[Candidate]:
        coming = self._coming("" if tenant is None else tenant.id)
        return (self._seen(node, tenant, coming) for node in self._registry.nodes())

    def _coming(self, but: str) -> dict[str, int]:
        """Node → tenants, ``but`` left out, that it will have: they move there, or it was decided
        to give them to it and not committed yet."""
        registry = self._registry
        coming = registry.coming(but=but)
        for tenant_id, node_id in self._assigning.items():
            if node_id and tenant_id != but and not registry.has(node_id, tenant_id):
                coming[node_id] = coming.get(node_id, 0) + 1
        return coming

    def _seen(
        self, node: NodeRecord, tenant: TenantRecord | None, coming: dict[str, int]
    ) -> Candidate:
        """A node as placement sees it."""
        registry, node_id = self._registry, node.id
        tenant_id, own = ("", "") if tenant is None else (tenant.id, tenant.node_id)
        last = self._liveness.last_heartbeat(node_id)
        resources = last[1].resources if last is not None else _UNKNOWN
        # An end takes no place.
        ends = tenant is not None and bool(may_end(tenant))
        assigned = 0 if ends else registry.count_of(node_id) - (node_id == own)
        return Candidate(
            node,
            assigned + coming.get(node_id, 0),
            self._liveness.alive(node_id),
            last is not None and last[1].status == _DEGRADED,
            _share(resources.memory_used_bytes, resources.memory_total_bytes),
            _share(resources.disk_used_bytes, resources.disk_total_bytes),
            self._group_on(node_id, tenant),
            registry.is_warm(tenant_id, node_id),
            tenant is not None and own == node_id,
        )

    def _group_on(self, node_id: str, tenant: TenantRecord | None) -> int:
        """How many others of the group that it is spread among are there."""
        group = tenant.placement.get("spread") if tenant is not None else None
        if tenant is None or not group:
            return 0
        registry = self._registry
        others = (registry.tenant(each) for each in registry.tenants_of(node_id))
        return sum(o.id != tenant.id and o.placement.get("spread") == group for o in others)


def _share(used: int, total: int) -> float:
    return used / total if total > 0 else 0.0
