"""Which tenants were touched of late, by the node whose list they are, or were, in.

Whoever told a node its list before may then tell only what can be different since. It is a memory
of one member, made as it applies commands, and not a part of what is replicated: it says either all
that was touched since, or that it does not know.
"""

from __future__ import annotations

from collections import deque

#: So many of each node are remembered. A node that starts many tenants has a few touches of each.
KEPT = 256


class Touched:
    """See the module.

    :ivar count: how often a tenant was touched, of any node.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.count = 0
        self._kept = kept
        self._of: dict[str, deque[tuple[int, str]]] = {}

    def note(self, node_id: str, tenant_id: str) -> None:
        """What a node must know of a tenant may be different now, or it lost or got it."""
        self.count += 1
        newest = self._of.get(node_id)
        if newest is None:
            newest = self._of[node_id] = deque(maxlen=self._kept)
        newest.append((self.count, tenant_id))

    def since(self, node_id: str, count: int) -> tuple[str, ...] | None:
        """Ids of a node's tenants that were touched after that, each once; None: it is not known.

        :param count: what :attr:`count` was then.
        """
        newest = self._of.get(node_id)
        if newest is None:
            return ()
        if len(newest) == self._kept and newest[0][0] > count + 1:
            return None
        found: dict[str, None] = {}
        for number, tenant_id in reversed(newest):
            if number <= count:
                break
            found[tenant_id] = None
        return tuple(found)
