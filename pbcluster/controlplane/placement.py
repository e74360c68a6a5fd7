"""Which node shall have a tenant: the least loaded one that may take it, with the reasons.

Pure: a view of the nodes in, a choice out; the same view gives the same choice. Load is the share
of a node's capacity that is assigned, so that nodes of different size fill evenly.

What must hold: a node that is draining, down, silent, full, or outside of the tenant's region or
zone is never chosen. The last tenth of a node's places (:data:`RESERVE_SHARE`) is kept for tenants
whose node died. A degraded node, or one short of memory or disk, is taken only by a tenant that
would have no node at all otherwise, never by one that is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush

import attrs

from pbcluster.errors import NoCapacity
from pbcluster.records import NodeRecord, NodeStatus

#: Places that only tenants without any node get, so that a node's death finds room elsewhere.
RESERVE_SHARE = 0.1
#: As the node's own "degraded".
MAX_MEMORY_SHARE = 0.9
MAX_DISK_SHARE = 0.9


def reserve_of(capacity: int) -> int:
    """Places of a node that are kept back; a small one keeps none."""
    return int(capacity * RESERVE_SHARE)


@attrs.frozen(kw_only=True)
class Wish:
    """What a tenant needs of its node.

    :ivar region: it must be there; empty: anywhere. :ivar zone: likewise.
    :ivar avoid: nodes that it must not get, with the reason.
    :ivar reserve: reserved places will do: its node died.
    :ivar unwell: if need be, a degraded node will do, or one short of memory or disk.
    """

    region: str = ""
    zone: str = ""
    avoid: Mapping[str, str] = attrs.field(factory=dict)
    reserve: bool = False
    unwell: bool = True


#: Of a tenant whose node died.
RESCUE = Wish(reserve=True)
#: Of one that is moved so that nodes are even.
EVENED = Wish(unwell=False)


@attrs.frozen
class Candidate:
    """A node as placement sees it.

    :ivar assigned: tenants it has or will have. :ivar alive: its lease is good and it is not
        suspected. :ivar degraded: it says itself that it is not well.
    :ivar memory_share: used, 0 to 1. :ivar disk_share: likewise.
    :ivar group: tenants there that the tenant should be spread from.
    :ivar warm: it has a copy of the tenant already. :ivar owner: the tenant is its own now; that it
        is drained is then no reason to refuse the tenant another epoch there.
    """

    node: NodeRecord
    assigned: int
    alive: bool
    degraded: bool = False
    memory_share: float = 0.0
    disk_share: float = 0.0
    group: int = 0
    warm: bool = False
    owner: bool = False

    def _may_be_used(self) -> bool:
        draining = self.node.status is NodeStatus.DRAINING
        return self.node.status is NodeStatus.HEALTHY or (draining and self.owner)

    @property
    def trouble(self) -> str:
        """Why it is not well; empty: it is."""
        if self.degraded:
            return "is degraded"
        if self.memory_share > MAX_MEMORY_SHARE:
            return f"uses {self.memory_share:.0%} of its memory"
        if self.disk_share > MAX_DISK_SHARE:
            return f"uses {self.disk_share:.0%} of its disk"
        return ""

    def objection(self, wish: Wish = RESCUE) -> str:
        """Why it cannot take another tenant; empty: it can.

        Asked of every node for every tenant that is placed: a reason is told only where it is one.
        """
        if self.node.id in wish.avoid:
            return wish.avoid[self.node.id]
        if not self._may_be_used():
            return f"is {self.node.status.value}"
        if not self.alive:
            return "does not answer"
        return self._fullness(wish) or self._unfitness(wish)

    def _fullness(self, wish: Wish) -> str:
        assigned, capacity = self.assigned, self.node.capacity
        if assigned >= capacity:
            return f"is full ({assigned} of {capacity} tenants)"
        reserved = 0 if wish.reserve else reserve_of(capacity)
        if assigned < capacity - reserved:
            return ""
        return (
            f"has only its reserve left ({assigned} of {capacity} tenants, {reserved} "
            "are kept for tenants of nodes that die)"
        )

    def _unfitness(self, wish: Wish) -> str:
        if not wish.unwell and self.trouble:
            return self.trouble
        if wish.region not in ("", self.node.region):
            return f"is not in region {wish.region}"
        return "" if wish.zone in ("", self.node.zone) else f"is not in zone {wish.zone}"


@attrs.frozen
class Choice:
    """The chosen node, and for every other one why it was not it. ``why``: what spoke for it."""

    node_id: str
    reasons: dict[str, str]
    why: str = ""


def rank(candidate: Candidate, prefer: str = "") -> tuple[bool, bool, int, bool, float, int, str]:
    """The order in which candidates are chosen, the smallest first; no two nodes are equal."""
    return (
        candidate.node.id != prefer,
        bool(candidate.trouble),
        candidate.group,
        not candidate.warm,
        candidate.assigned / candidate.node.capacity,
        candidate.assigned,
        candidate.node.id,
    )


def best_of(
    candidates: Iterable[Candidate], *, prefer: str = "", wish: Wish = RESCUE
) -> Candidate | None:
    """The node that :func:`choose` would choose, without reasons; None: none can take it."""
    return min(
        (each for each in candidates if not each.objection(wish)),
        key=lambda each: rank(each, prefer),
        default=None,
    )


def choose(candidates: Sequence[Candidate], *, prefer: str = "", wish: Wish = RESCUE) -> Choice:
    """Choose a node.

    :param prefer: a node that wins if it can take the tenant at all (it has it now).
    :raises NoCapacity: none can; the message names each node's reason.
    """
    reasons = {each.node.id: each.objection(wish) for each in candidates}
    best = best_of(candidates, prefer=prefer, wish=wish)
    if best is None:
        told = "; ".join(f"{node} {why}" for node, why in sorted(reasons.items()))
        raise NoCapacity(f"no node can take the tenant: {told or 'none has registered'}")
    for each in candidates:
        if not reasons[each.node.id]:
            reasons[each.node.id] = _told(each)
    del reasons[best.node.id]
    return Choice(best.node.id, reasons, _told(best))


def _told(candidate: Candidate) -> str:
    told = f"has {candidate.assigned} of {candidate.node.capacity} tenants"
    if candidate.trouble:
        told += f" and {candidate.trouble}"
    if candidate.group:
        told += f", {candidate.group} of the same group"
    return told + (", a warm copy" if candidate.warm else "")


@attrs.frozen
class Move:
    """A step of a rebalancing."""

    tenant_id: str
    source: str
    target: str


def rebalance(
    nodes: Sequence[Candidate],
    tenants: Callable[[str], Iterable[str]],
    *,
    tolerance: int = 1,
) -> list[Move]:
    """Fewest moves after which the loads of usable nodes differ by at most ``tolerance`` tenants
    from what is even, by share of capacity.

    :param nodes: all nodes. :param tenants: node → the tenants that may be moved from it; asked
        of those from which one is moved.
    :returns: moves in the order in which they should be made, each within every node's bounds.
    """
    loads = _Loads(nodes, tenants)
    moves: list[Move] = []
    while True:
        source, target = loads.fullest(), loads.emptiest()
        # Only a move that leaves the two more even than before, by more than the tolerance.
        if not source or not target or source == target:
            return moves
        for moved in (tolerance, 1):
            if loads.share(source, -moved) <= loads.share(target, moved) - 1e-9:
                return moves
        moves.append(Move(loads.take(source, target), source, target))


class _Loads:
    """What usable nodes have while moves are planned; who is the fullest is not searched for among
    all of them for each move."""

    def __init__(self, nodes: Sequence[Candidate], tenants: Callable[[str], Iterable[str]]) -> None:
        healthy = (n for n in nodes if n.node.status is NodeStatus.HEALTHY and n.alive)
        self._usable = {each.node.id: each for each in healthy}
        self._tenants = tenants
        self._counts = {node_id: each.assigned for node_id, each in self._usable.items()}
        self._movable: dict[str, list[str]] = {}
        #: Of two that are as full, the last one by name is the source.
        self._rank = {node_id: -place for place, node_id in enumerate(sorted(self._usable))}
        #: Heaps: share of its capacity, place in the order, node, and the count of which that is
        #: true: what says another one than the node's is left over from before.
        self._full: list[tuple[float, int, str, int]] = []
        self._empty: list[tuple[float, int, str, int]] = []
        for node_id in self._usable:
            self._note(node_id)

    def share(self, node_id: str, more: int = 0) -> float:
        """Of the node's capacity, if it had ``more`` tenants than it has."""
        return (self._counts[node_id] + more) / self._usable[node_id].node.capacity

    def fullest(self) -> str:
        """Of those that have a tenant that may be moved; empty: none has."""
        return self._top(self._full, lambda node_id: bool(self._left(node_id)))

    def emptiest(self) -> str:
        """Of those that may take a tenant; empty: none may."""
        return self._top(self._empty, lambda node_id: True)

    def take(self, source: str, target: str) -> str:
        """Move a tenant. :returns: which."""
        tenant_id = self._left(source).pop()
        for node_id, more in ((source, -1), (target, 1)):
            self._counts[node_id] += more
            self._note(node_id)
        return tenant_id

    def _left(self, node_id: str) -> list[str]:
        if node_id not in self._movable:
            self._movable[node_id] = sorted(self._tenants(node_id), reverse=True)
        return self._movable[node_id]

    def _note(self, node_id: str) -> None:
        count, rank = self._counts[node_id], self._rank[node_id]
        heappush(self._full, (-self.share(node_id), rank, node_id, count))
        if not attrs.evolve(self._usable[node_id], assigned=count).objection(EVENED):
            heappush(self._empty, (self.share(node_id), -rank, node_id, count))

    def _top(self, heap: list[tuple[float, int, str, int]], fits: Callable[[str], bool]) -> str:
        while heap:
            _, _, node_id, count = heap[0]
            if count == self._counts[node_id] and fits(node_id):
                return node_id
            heappop(heap)
        return ""
