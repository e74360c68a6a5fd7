"""Who the control plane's members are, and who else may speak to them: part of the registry,
changed in log order only. Pure.

What holds: an id that left never comes back, since a member that lost its disk must not return
under its old id, and a node that was removed not at all; no two members have one key or one
address, no two processes one key. Who votes is Raft's own business (``ConfState``): a record comes
before its member joins and goes when a membership change that took the member out is applied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pbcluster.errors import Conflict
from pbcluster.records import MemberRecord, ProcessRecord

#: Nodes and gateways; each has some 150 bytes in every member and snapshot.
MAX_PROCESSES = 2000
#: What two members may never share.
_UNIQUE = ("raft", "requests", "broadcasts", "admin", "curve_public")


class Roster:
    """Records of members, and of those that left."""

    def __init__(
        self,
        members: Iterable[MemberRecord] = (),
        former: Iterable[MemberRecord] = (),
        index: int = 0,
        processes: Iterable[ProcessRecord] = (),
        former_processes: Iterable[ProcessRecord] = (),
    ) -> None:
        #: Log index of the last change, of this or of who votes.
        self.index = index
        self._members = {member.id: member for member in members}
        self._former = {member.id: member for member in former}
        self._processes = {process.id: process for process in processes}
        self._former_processes = {process.id: process for process in former_processes}

    def members(self) -> Iterator[MemberRecord]:
        """All records, in the order in which they came."""
        return iter(self._members.values())

    def member(self, member_id: str) -> MemberRecord | None:
        """The record of a member, if there is one."""
        return self._members.get(member_id)

    def former(self) -> Iterator[MemberRecord]:
        """Last records of those that left, in the order in which they did."""
        return iter(self._former.values())

    def is_former(self, member_id: str) -> bool:
        """Whether it was a member and is none any more."""
        return member_id in self._former

    def check(self, member: MemberRecord) -> None:
        """:raises Conflict: as :meth:`put`."""
        if member.id in self._former:
            raise Conflict(
                f"{member.id} was a member and left: an id never comes back; choose another",
                field="id",
            )
        for other in self._members.values():
            if other.id != member.id:
                _check_different(member, other, _UNIQUE)
        for other in self._former.values():
            _check_different(member, other, ("curve_public",))
        if member.id in self._processes or member.id in self._former_processes:
            raise Conflict(f"{member.id} is, or was, a node or gateway", field="id")
        self._check_key(member.id, member.curve_public)

    def put(self, member: MemberRecord) -> bool:
        """Add a record or replace it. :returns: whether anything changed.

        :raises Conflict: the id left before, another member has its key or an address of it, or
            one that left had its key.
        """
        self.check(member)
        if self._members.get(member.id) == member:
            return False
        self._members[member.id] = member
        return True

    # -- nodes and gateways --

    def processes(self) -> Iterator[ProcessRecord]:
        """Nodes and gateways that may speak to the members, in the order in which they came."""
        return iter(self._processes.values())

    def process(self, process_id: str) -> ProcessRecord | None:
        """The record of a node or gateway, if there is one."""
        return self._processes.get(process_id)

    def former_processes(self) -> Iterator[ProcessRecord]:
        """Last records of nodes and gateways that were removed."""
        return iter(self._former_processes.values())

    def is_former_process(self, process_id: str) -> bool:
        """Whether it was a node or gateway and was removed."""
        return process_id in self._former_processes

    def check_new(self, process_id: str) -> None:
        """:raises Conflict: somebody has this id, or had it."""
        if process_id in self._members or process_id in self._processes:
            raise Conflict(f"{process_id} is there already", field="id")
        if process_id in self._former or process_id in self._former_processes:
            raise Conflict(
                f"{process_id} was removed: an id never comes back; choose another", field="id"
            )

    def put_process(self, process: ProcessRecord) -> bool:
        """Add a record or replace its key. :returns: whether anything changed.

        :raises Conflict: it was removed, is a member or of another role, its key is another's, or
            there are too many.
        """
        known = self._processes.get(process.id)
        if known is None:
            self.check_new(process.id)
            if len(self._processes) >= MAX_PROCESSES:
                raise Conflict(f"there are {MAX_PROCESSES} nodes and gateways: remove some")
        elif known.role != process.role:
            raise Conflict(f"{process.id} is a {known.role}, not a {process.role}", field="role")
        elif known.curve_public == process.curve_public:
            return False
        self._check_key(process.id, process.curve_public)
        for member in (*self._members.values(), *self._former.values()):
            if process.curve_public and process.curve_public == member.curve_public:
                raise Conflict(f"this key is that of {member.id}", field="curve_public")
        self._processes[process.id] = process
        return True

    def remove_process(self, process_id: str, role: str) -> None:
        """It may speak to nobody any more, and never again."""
        unknown = ProcessRecord(process_id, role)
        self._former_processes[process_id] = self._processes.pop(process_id, unknown)

    def _check_key(self, process_id: str, key: str) -> None:
        """:raises Conflict: another node or gateway has it, or one that was removed had it."""
        for other in (*self._processes.values(), *self._former_processes.values()):
            if key and other.id != process_id and other.curve_public == key:
                raise Conflict(f"curve_public is that of {other.id}", field="curve_public")

    # -- ends --

    def left(self, members: Collection[str]) -> None:
        """These are members no more."""
        for member_id in sorted(members):
            unknown = MemberRecord(member_id, "", "", "", "")
            self._former[member_id] = self._members.pop(member_id, unknown)

    def forget(self) -> None:
        """A group begins anew, with other members, under another cluster id. Nodes and gateways
        stay what they are."""
        self._members.clear()
        self._former.clear()


def _check_different(member: MemberRecord, other: MemberRecord, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(member, name)
        if value and value == getattr(other, name):
            raise Conflict(f"{name} {value} is {other.id}'s; each member has its own", field=name)
