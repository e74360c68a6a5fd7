"""What the leader tells a node of its list: all of it, or what changed since it was told last.

A list of 200 tenants is 48 KB, and most changes concern one of them. So the leader remembers which
lists it told each node last, and tells what was touched since the oldest of them, as it is now:
that makes the present list of any of them. Which of them the node obeyed nobody knows: what is told
unasked and the answer to a lease cross each other, and messages get lost. Every list has an id of
its own; changes name those they start from, and a node that has another one refuses them. It then
renews its lease at once, and the answer to a lease that is behind is always the whole list.

What was told is a memory of this leadership only. Nothing rests on it: changes to a list that never
arrived are refused.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import msgspec

from pbcluster import wire
from pbcluster.controlplane.registry import Registry
from pbcluster.controlplane.touched import Touched

#: So many lists of a node are remembered: changes are as many times what changed once, at most.
REMEMBERED = 4


@attrs.frozen
class _Told:
    """A list of a node: its id, and what had been touched before it was made."""

    list_id: int
    incarnation: int
    touched: Touched
    count: int


class NodeLists:
    """See the module."""

    def __init__(self, registry: Callable[[], Registry], new_id: Callable[[], int]) -> None:
        """
        :param new_id: an id that no other list has, whichever member sent it; never 0.
        """
        self._registry = registry
        self._new_id = new_id
        #: The newest lists of a node, told to one incarnation of it, the oldest first.
        self._told: dict[str, tuple[_Told, ...]] = {}

    def whole(self, node_id: str) -> wire.NodeAssignments:
        """The list, for a node that may have any other. :raises NotFound: it never registered."""
        told = self._remember(node_id)
        return msgspec.structs.replace(self._registry().assignments(node_id), list_id=told.list_id)

    def news(self, node_id: str) -> wire.NodeAssignments | wire.AssignmentChanges:
        """What makes the lists that were told last the present one; all of it if none was told to
        this incarnation, or too long ago. :raises NotFound: it never registered."""
        registry, before = self._registry(), self._known(node_id)
        node = registry.node(node_id)
        touched = registry.touched.since(node_id, before[0].count) if before else None
        if touched is None:
            return self.whole(node_id)
        changed, removed = registry.assignments_among(node_id, touched)
        return wire.AssignmentChanges(
            node_id,
            node.incarnation,
            node.assignments_index,
            tuple([each.list_id for each in before]),
            self._remember(node_id).list_id,
            changed,
            removed,
            registry.warming(node_id),
        )

    def _known(self, node_id: str) -> tuple[_Told, ...]:
        """What this start of the node was told from this registry."""
        registry, told = self._registry(), self._told.get(node_id, ())
        incarnation = registry.node(node_id).incarnation
        same = told and (told[-1].incarnation, told[-1].touched) == (incarnation, registry.touched)
        return told if same else ()

    def _remember(self, node_id: str) -> _Told:
        """From here on the node has the present list, if it hears of it."""
        registry, before = self._registry(), self._known(node_id)
        incarnation = registry.node(node_id).incarnation
        told = _Told(self._new_id(), incarnation, registry.touched, registry.touched.count)
        self._told[node_id] = (*before, told)[-REMEMBERED:]
        return told

    def forget(self, node_id: str) -> None:
        """What was told last did not go out: the next is the whole list."""
        self._told.pop(node_id, None)

    def clear(self) -> None:
        """Another leadership begins: who knows what others told meanwhile."""
        self._told.clear()
