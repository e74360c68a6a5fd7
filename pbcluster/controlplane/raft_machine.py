"""What is replicated, as the Raft driver sees it: the seam between ``raft_driver`` and
``raft_member``."""

from __future__ import annotations

from typing import Protocol

from pbcluster.controlplane.raft_snapshots import Imaged
from pbcluster.raft import Entry, MemberId, Role


class StateMachine(Imaged, Protocol):
    """What is replicated, as the driver sees it."""

    def apply(self, entry: Entry) -> None:
        """Apply the next committed entry.

        :raises Exception: it cannot be read; the member ends.
        """

    def role_changed(self, role: Role, term: int, leader: MemberId) -> None:
        """What this member is changed, or who leads."""

    def leader_heard(self) -> None:
        """The leader that was silent for a while is heard again."""

    def read_allowed(self, context: int, index: int) -> None:
        """The read may be answered once ``index`` is applied."""

    def read_cancelled(self, context: int) -> None:
        """The read may never be answered."""
