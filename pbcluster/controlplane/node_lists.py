"""What the leader tells a node of its list: all of it, or what changed since it was told last.

A list of 200 tenants is 48 KB, and most changes concern one of them. So the leader keeps the last
list that it sent to each node, and sends the difference to the next one. Every list has an id of
its own; changes name the list they start from, and a node that has another one refuses them. It
then renews its lease at once, and the answer to a lease that is behind is always the whole list.

What was told is a memory of this leadership only. Nothing rests on it: a difference to a list that
never arrived is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pbcluster import wire


class NodeLists:
    """See the module."""

    def __init__(
        self, current: Callable[[str], wire.NodeAssignments], new_id: Callable[[], int]
    ) -> None:
        """
        :param current: node → its list now. A row that did not change is the same object.
        :param new_id: an id that no other list has, whichever member sent it; never 0.
        """
        self._current = current
        self._new_id = new_id
        self._told: dict[str, wire.NodeAssignments] = {}

    def whole(self, node_id: str) -> wire.NodeAssignments:
        """The list, for a node that may have any other. :raises NotFound: it never registered."""
        told = msgspec.structs.replace(self._current(node_id), list_id=self._new_id())
        self._told[node_id] = told
        return told

    def news(self, node_id: str) -> wire.NodeAssignments | wire.AssignmentChanges:
        """What makes the list that was told last the present one; all of it if none was told to
        this incarnation. :raises NotFound: it never registered."""
        before = self._told.get(node_id)
        now = self.whole(node_id)
        if before is None or before.incarnation != now.incarnation:
            return now
        return changes(before, now)

    def forget(self, node_id: str) -> None:
        """What was told last did not go out: the next is the whole list."""
        self._told.pop(node_id, None)

    def clear(self) -> None:
        """Another leadership begins: who knows what others told meanwhile."""
        self._told.clear()


def changes(before: wire.NodeAssignments, now: wire.NodeAssignments) -> wire.AssignmentChanges:
    """What makes one list the other."""
    left = {row.tenant_id: row for row in before.assignments}
    changed = tuple([row for row in now.assignments if left.pop(row.tenant_id, None) is not row])
    return wire.AssignmentChanges(
        now.node_id,
        now.incarnation,
        now.index,
        before.list_id,
        now.list_id,
        changed,
        tuple(left),
        now.warming,
    )
