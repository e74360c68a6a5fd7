"""Which node shall have a tenant: the least loaded one that may take it, with the reasons.

Pure: a view of the nodes in, a choice out; the same view gives the same choice. Load is the share
of a node's capacity that is assigned, so that nodes of different size fill evenly.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from pbcluster.errors import NoCapacity
from pbcluster.records import NodeRecord, NodeStatus


@attrs.frozen
class Candidate:
    """A node as placement sees it.

    :ivar assigned: tenants it has. :ivar alive: its lease is good and it is not suspected.
    :ivar degraded: it says itself that it is not well; taken only if every other one is worse.
    """

    node: NodeRecord
    assigned: int
    alive: bool
    degraded: bool = False

    def objection(self) -> str:
        """Why it cannot take another tenant; empty: it can."""
        if self.node.status is not NodeStatus.HEALTHY:
            return f"is {self.node.status.value}"
        if not self.alive:
            return "does not answer"
        if self.assigned >= self.node.capacity:
            return f"is full ({self.assigned} of {self.node.capacity} tenants)"
        return ""


@attrs.frozen
class Choice:
    """The chosen node, and for every other one why it was not it."""

    node_id: str
    reasons: dict[str, str]


def choose(candidates: Sequence[Candidate], *, prefer: str = "") -> Choice:
    """Choose a node.

    :param prefer: a node that wins if it can take the tenant at all (it has a copy).
    :raises NoCapacity: none can; the message names each node's reason.
    """
    reasons = {each.node.id: each.objection() for each in candidates}
    able = [each for each in candidates if not reasons[each.node.id]]
    if not able:
        told = "; ".join(f"{node} {why}" for node, why in sorted(reasons.items()))
        raise NoCapacity(f"no node can take the tenant: {told or 'none has registered'}")
    best = min(
        able,
        key=lambda each: (
            each.node.id != prefer,
            each.degraded,
            each.assigned / each.node.capacity,
            each.assigned,
            each.node.id,
        ),
    )
    for each in able:
        if each is not best:
            unwell = " and is degraded" if each.degraded else ""
            reasons[each.node.id] = f"has {each.assigned} of {each.node.capacity} tenants{unwell}"
    del reasons[best.node.id]
    return Choice(best.node.id, reasons)
