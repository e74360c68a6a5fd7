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

    def obey(self, told: NodeAssignments | AssignmentChanges) -> Change | None:
        """Take a list over, or changes to the obeyed one.

        :returns: what changed, or None if they are refused: another node's, of another
            incarnation, not newer than the obeyed list, or changes to another list than that.
        """
        new = self._whole(told) if isinstance(told, AssignmentChanges) else told
        if new is None:
            return None
        if new.node_id != self._node_id or new.incarnation != self.incarnation:
            return None
        if new.index <= self.index:
            if new.index == self.index and self._is(new.assignments):
                self._list_ids = (new.list_id, *self._list_ids[: MAX_IDS - 1])
            return None
        added, updated, replaced = [], [], []
        before, self._current = self._current, {}
        for row in new.assignments:
            old = before.pop(row.tenant_id, None)
            # Epochs only grow: a row that is older than what we have says nothing new.
            each = old if old is not None and row.epoch < old.epoch else row
            self._current[each.tenant_id] = each
            if old is None or each.epoch > old.epoch:
                added.append(each)
            elif each != old:
                updated.append(each)
            if old is not None and each.epoch > old.epoch:
                replaced.append(each.tenant_id)
        self.index, self._list_ids = new.index, (new.list_id,)
        return Change(tuple(added), tuple(updated), tuple(before), tuple(replaced))

    def _whole(self, changes: AssignmentChanges) -> NodeAssignments | None:
        """The list that changes make of the obeyed one; None: they start from another."""
        if not changes.since or changes.since not in self._list_ids:
            return None
        rows = dict(self._current)
        for tenant_id in changes.removed:
            rows.pop(tenant_id, None)
        rows.update((each.tenant_id, each) for each in changes.changed)
        return NodeAssignments(
            changes.node_id,
            changes.incarnation,
            changes.index,
            tuple(rows.values()),
            changes.warming,
            changes.list_id,
        )

    def _is(self, rows: tuple[Assignment, ...]) -> bool:
        """Whether the obeyed list consists of these."""
        return len(rows) == len(self._current) and all(
            self._current.get(each.tenant_id) == each for each in rows
        )
