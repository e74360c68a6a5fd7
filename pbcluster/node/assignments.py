"""Which tenants this node must own, as the control plane said last.

Pure bookkeeping of :class:`wire.NodeAssignments` and of changes to it. A list older than one
already obeyed is refused, and so are changes to another list than the one obeyed: what was lost on
the way comes with the next whole list. Nothing is stored: after a start the registration's answer
brings the list again.
"""

from __future__ import annotations

import attrs

from pbcluster.wire import Assignment, AssignmentChanges, NodeAssignments


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
        #: Of the obeyed list; 0: it has none, and cannot be changed.
        self._list_id = 0
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
            return None
        if isinstance(new, AssignmentChanges):
            if not self._list_id or self._list_id not in new.since:
                return None
            rows, gone = new.changed, new.removed
        else:
            rows = new.assignments
            named = {row.tenant_id for row in rows}
            gone = tuple([each for each in self._current if each not in named])
        removed = tuple([each for each in gone if self._current.pop(each, None) is not None])
        self.index, self._list_id = new.index, new.list_id
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
