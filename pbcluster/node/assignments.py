"""Which tenants this node must own, as the control plane said last.

Pure bookkeeping of :class:`wire.NodeAssignments`: the whole list each time, so that a lost message
is repaired by the next; a list older than one already obeyed is refused. Nothing is stored: after a
start the registration's answer brings the list again.
"""

from __future__ import annotations

import attrs

from pbcluster.wire import Assignment, NodeAssignments


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
        self._current: dict[str, Assignment] = {}

    def epochs(self) -> dict[str, int]:
        """Tenant id → epoch of everything assigned."""
        return {tenant_id: each.epoch for tenant_id, each in self._current.items()}

    def get(self, tenant_id: str) -> Assignment | None:
        """The tenant's assignment, None if it is not ours."""
        return self._current.get(tenant_id)

    def endings(self) -> tuple[Assignment, ...]:
        """Those that are to be ended, not served."""
        return tuple(each for each in self._current.values() if each.ending)

    def obey(self, new: NodeAssignments) -> Change | None:
        """Take a list over.

        :returns: what changed, or None if the list is refused: another node's, of another
            incarnation, or not newer than the obeyed one.
        """
        if new.node_id != self._node_id or new.incarnation != self.incarnation:
            return None
        if new.index <= self.index:
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
        self.index = new.index
        return Change(tuple(added), tuple(updated), tuple(before), tuple(replaced))
