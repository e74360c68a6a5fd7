"""The safety properties of applied state and of clients' answers; see :mod:`.reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry import Applied
from pbcluster.errors import StorageCorrupt
from pbcluster.raft import ConfState, Entry, MemberId, SnapshotMeta
from pbcluster.testing.raft_sim.properties import Broken, remembered
from pbcluster.testing.raft_sim.reference import Reference

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.disk import SimDisk
    from pbcluster.testing.raft_sim.member import SimMember
    from pbcluster.testing.raft_sim.world import World

#: A member's whole state is compared at one index in so many, and where a snapshot is.
COMPARE_EVERY = 4


class StateChecker:
    """One a world."""

    def __init__(self, world: World, committed: list[int]) -> None:
        """
        :param committed: committed terms by index; it grows.
        """
        self.world = world
        self._committed = committed
        self._reference = Reference()
        self._read_floors: dict[tuple[MemberId, int], int] = {}
        #: The highest index that any client's answer depended on.
        self.answered_index = 1

    def founded(self, conf: ConfState) -> None:
        """The group begins with these members."""
        self._reference.conf = conf

    def has_left(self, member: MemberId) -> bool:
        """Whether a committed change took ``member`` out of the group."""
        return self._reference.has_left(member)

    def committed(self, entry: Entry) -> None:
        """The next entry is committed."""
        self._reference.apply(entry)

    # -- state ------------------------------------------------------------------------------------

    @remembered
    def applied(self, member: SimMember, entries: list[Entry]) -> None:
        """``member`` applied ``entries``."""
        for entry in entries:
            index = entry.index
            if index >= len(self._committed) or self._committed[index] != entry.term:
                raise Broken(
                    "state_machine_safety", f"{member.id} applied {index}, not committed so"
                )
        if entries and member.applied != entries[-1].index:
            raise Broken(
                "state_machine_safety",
                f"{member.id} is at {member.applied}, not {entries[-1].index}",
            )
        if any(entry.index % COMPARE_EVERY == 0 for entry in entries):
            self.check_state(member)

    @remembered
    def effects(self, member: SimMember, effects: Applied) -> None:
        """``member`` tells its subscribers of the command at the index that it applied."""
        if effects != self._reference.effects.get(member.applied):
            raise Broken("state_equality", f"{member.id} tells else at index {member.applied}")

    @remembered
    def installed(self, member: SimMember, meta: SnapshotMeta) -> None:
        """``member`` took a snapshot over."""
        if meta.index >= len(self._committed) or self._committed[meta.index] != meta.term:
            raise Broken("state_machine_safety", f"{member.id} installed {meta.index}")
        self.check_snapshot(member, meta)
        self.check_state(member)

    def check_snapshot(self, member: SimMember, meta: SnapshotMeta) -> None:
        """The snapshot's bytes are on the disk, and are the state at its index."""
        try:
            data = member.disk.read_snapshot(meta)
        except StorageCorrupt as error:
            raise Broken(
                "durable_before_told", f"{member.id} counts on a snapshot: {error.message}"
            ) from None
        if data != self._reference.images.get(meta.index):
            raise Broken("state_equality", f"{member.id} has another snapshot {meta.index}")

    def written(self, member: MemberId, disk: SimDisk) -> None:
        """A transaction of ``member`` became durable."""
        if not disk.is_whole():
            raise Broken("restartable", f"{member} could not start from its disk any more")

    def check_state(self, member: SimMember) -> None:
        """All of ``member``'s registry is as it should be at its index."""
        if self._reference.differs(member.registry):
            raise Broken("state_equality", f"{member.id} differs at index {member.applied}")

    def at_the_end(self) -> None:
        """Everyone's state once more."""
        for member in self.world.members.values():
            if member.core is not None and member.applied:
                self.check_state(member)

    # -- clients ----------------------------------------------------------------------------------

    def _acknowledged(self, index: int) -> None:
        """A client is answered from a state that holds everything up to ``index``."""
        if index >= len(self._committed):
            raise Broken("acknowledged_kept", f"{index} was acknowledged and is not committed")
        self.answered_index = max(self.answered_index, index)

    @remembered
    def answered(self, member: SimMember, key: str, outcome: Outcome) -> None:
        """A client is told what its command did."""
        if outcome != self._reference.outcomes.get(key):
            raise Broken("acknowledged_kept", f"{member.id} answers {key} with {outcome}")
        if member.applied < outcome.index:
            raise Broken("acknowledged_kept", f"{member.id} answers {key} before applying it")
        self._acknowledged(outcome.index)

    @remembered
    def refused(self, member: SimMember, key: str) -> None:
        """A client is told that its command was refused."""
        outcome = self._reference.outcomes.get(key)
        if outcome is None or outcome.error is None:
            raise Broken("acknowledged_kept", f"{member.id} refuses {key}: it became {outcome}")
        self._acknowledged(outcome.index)

    @remembered
    def read_begun(self, member: SimMember, context: int) -> None:
        """A read begins; whatever was answered until now it must see."""
        self._read_floors[(member.id, context)] = self.answered_index

    @remembered
    def read_allowed(self, member: SimMember, context: int, index: int) -> None:
        """``member`` may answer the read once ``index`` is applied."""
        floor = self._read_floors.pop((member.id, context), 0)
        if index < floor:
            raise Broken("fresh_reads", f"{member.id} may read at {index}, {floor} was answered")

    @remembered
    def read_answered(self, member: SimMember, floor: int) -> None:
        """A client's read is answered now.

        :param floor: what had been answered to anybody when it began.
        """
        if member.applied < floor:
            raise Broken("fresh_reads", f"{member.id} reads at {member.applied}, not yet {floor}")
        self._acknowledged(member.applied)
