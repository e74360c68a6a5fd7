"""Who obeys a list of assignments: the tenants first, then the parts of migrations.

One call takes a list over as a whole, so that no acknowledgement can count between its parts.
"""

from __future__ import annotations

from pbcluster.node.handing_over import HandingOver
from pbcluster.node.tenants import Tenants
from pbcluster.node.warming import Warming
from pbcluster.wire import AssignmentChanges, NodeAssignments


class Orders:
    """``heartbeat.Owned``.

    :ivar changes_obeyed: changes of the list that were taken over.
    :ivar changes_refused: those that were late or of another list; leases bring what they told.
    """

    def __init__(self, tenants: Tenants, handing_over: HandingOver, warming: Warming) -> None:
        self._tenants = tenants
        self._handing_over = handing_over
        self._warming = warming
        self.changes_obeyed = 0
        self.changes_refused = 0

    @property
    def obeyed_index(self) -> int:
        """Index of the list obeyed."""
        return self._tenants.obeyed_index

    def registered(self, incarnation: int) -> None:
        """This process's incarnation."""
        self._tenants.registered(incarnation)

    def obey(self, new: NodeAssignments | AssignmentChanges) -> bool:
        """Take a list over, or changes to the obeyed one. :returns: False if they are refused."""
        obeyed = self._tenants.obey(new)
        if isinstance(new, AssignmentChanges):
            self.changes_obeyed += obeyed
            self.changes_refused += not obeyed
        if not obeyed:
            return False
        self._handing_over.obeyed()
        self._warming.obeyed(new.warming, lambda tenant: self._tenants.find(tenant) is not None)
        return True
