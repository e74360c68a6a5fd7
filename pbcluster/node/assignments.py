"""Which tenants this node must own, as the control plane said last.

Pure bookkeeping of :class:`wire.NodeAssignments` and of changes to it. A list older than one
already obeyed is refused, and so are changes to another list than the one obeyed: what was lost on
the way comes with the next whole list. Nothing is stored: after a start the registration's answer
brings the list again.
"""

from __future__ import annotations

import attrs

from pbcluster.wire import Assignment, AssignmentChanges, NodeAssignments

#: A list that comes again with another id is known under so many of them.
MAX_IDS = 4


@attrs.frozen
class Change:
    """What a newer list means, each by tenant id.

    :ivar added: new here, or under a new epoch. :ivar updated: same epoch, other details.
    :ivar removed: not ours any more. :ivar replaced: ours under a newer epoch (also in ``added``).
    """

    added: tuple[Assignment, ...] = ()
    updated: tuple[Assignment, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


class Assignments:
    """The list that this node obeys."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self.index = -1
        self.incarnation = 0
        #: What the obeyed list is called, as often as it came under one index.
        self._list_ids: tuple[int, ...] = ()
        self._current: dict[str, Assignment] = {}

    def __len__(self) -> int:
        return len(self._current)

    def epochs(self) -> dict[str, int]:
        """Tenant id → epoch of everything assigned."""
        return {tenant_id: each.epoch for tenant_id, each in self._current.items()}

    def get(self, tenant_id: str) -> Assignment | None:
        """The tenant's assignment, None if it is not ours."""
        return self._current.get(tenant_id)

    def endings(self) -> tuple[Assignment, ...]:
        """Those that are to be ended, not served."""
        return tuple(each for each in self._current.values() if each.ending)

    def obey(self, new: NodeAssignments | AssignmentChanges) -> Change | None:
        """Take a list over, or changes to the obeyed one.

        :returns: what changed, or None if they are refused: another node's, of another
            incarnation, not newer than the obeyed list, or changes to another list than that.
        """
        if new.node_id != self._node_id or new.incarnation != self.incarnation:
            return None
        if new.index <= self.index:
            self._call_it(new)
            return None
        if isinstance(new, AssignmentChanges):
            if not new.since or new.since not in self._list_ids:
                return None
            rows, gone = new.changed, new.removed
        else:
            rows = new.assignments
            named = {row.tenant_id for row in rows}
            gone = tuple([each for each in self._current if each not in named])
        removed = tuple([each for each in gone if self._current.pop(each, None) is not None])
        self.index, self._list_ids = new.index, (new.list_id,)
        return self._put(rows, removed)

    def _put(self, rows: tuple[Assignment, ...], removed: tuple[str, ...]) -> Change:
        added, updated, replaced = [], [], []
        for row in rows:
            old = self._current.get(row.tenant_id)
            # Epochs only grow: a row that is older than what we have says nothing new.
            if old is not None and row.epoch < old.epoch:
                continue
            self._current[row.tenant_id] = row
            if old is None or row.epoch > old.epoch:
                added.append(row)
            elif row != old:
                updated.append(row)
            if old is not None and row.epoch > old.epoch:
                replaced.append(row.tenant_id)
        return Change(tuple(added), tuple(updated), removed, tuple(replaced))

    def _call_it(self, new: NodeAssignments | AssignmentChanges) -> None:
        """The obeyed list may have come once more: changes may start from its other id, too."""
        if (
            isinstance(new, NodeAssignments)
            and new.index == self.index
            and len(new.assignments) == len(self._current)
            and all(self._current.get(row.tenant_id) == row for row in new.assignments)
        ):
            self._list_ids = (new.list_id, *self._list_ids[: MAX_IDS - 1])
