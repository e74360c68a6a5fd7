"""The best nodes for one wish, kept in order for a moment. Pure.

A leader that places hundreds of tenants within a tenth of a second need not look at hundreds of
nodes for each of them. What must hold: a node is only chosen as it is now, never as it was when the
list was made; one that has become worse since then falls back in the order. What it does not do: it
does not notice a node that has become better, or that is new; that is for the next list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heapreplace

from pbcluster.controlplane.placement import Candidate, Wish, rank

#: A list is good for so long, seconds: as often as the planner looks at the nodes.
FRESH_S = 0.1


class Shortlist:
    """Nodes that may take a tenant with such a wish, the best one first."""

    def __init__(self, candidates: Iterable[Candidate], wish: Wish) -> None:
        self._wish = wish
        self._heap = [(rank(c), c.node.id) for c in candidates if not c.objection(wish)]
        heapify(self._heap)

    def best(self, as_it_is: Callable[[str], Candidate]) -> Candidate | None:
        """The best one; None: none is left.

        :param as_it_is: gives a node as it is now.
        """
        while self._heap:
            before, node_id = self._heap[0]
            candidate = as_it_is(node_id)
            if candidate.objection(self._wish):
                heappop(self._heap)
                continue
            now = rank(candidate)
            if now <= before:
                return candidate
            heapreplace(self._heap, (now, node_id))
        return None
