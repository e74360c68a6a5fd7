"""Who the control plane's members are: part of the registry, changed in log order only. Pure.

What holds: an id that left never comes back, since a member that lost its disk must not return
under its old id; no two members have one key or one address. Who votes is Raft's own business
(``ConfState``): a record comes before its member joins and goes when a membership change that took
the member out is applied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pbcluster.errors import Conflict
from pbcluster.records import MemberRecord

#: What two members may never share.
_UNIQUE = ("raft", "requests", "broadcasts", "admin", "curve_public")


class Roster:
    """Records of members, and of those that left."""

    def __init__(
        self,
        members: Iterable[MemberRecord] = (),
        former: Iterable[MemberRecord] = (),
        index: int = 0,
    ) -> None:
        #: Log index of the last change, of this or of who votes.
        self.index = index
        self._members = {member.id: member for member in members}
        self._former = {member.id: member for member in former}

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

    def left(self, members: Collection[str]) -> None:
        """These are members no more."""
        for member_id in sorted(members):
            unknown = MemberRecord(member_id, "", "", "", "")
            self._former[member_id] = self._members.pop(member_id, unknown)

    def forget(self) -> None:
        """A group begins anew, with other members, under another cluster id."""
        self._members.clear()
        self._former.clear()


def _check_different(member: MemberRecord, other: MemberRecord, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(member, name)
        if value and value == getattr(other, name):
            raise Conflict(f"{name} {value} is {other.id}'s; each member has its own", field=name)
