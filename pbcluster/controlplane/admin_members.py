"""The control plane's own members, as the admin API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from pbcluster.config import http_url, tcp_endpoint
from pbcluster.controlplane.admin_bodies import RULES, NewMember
from pbcluster.errors import PBClusterError, Unprocessable
from pbcluster.raft import MemberId, Status
from pbcluster.records import MemberRecord


class Group(Protocol):
    """What operators may ask of a member that is one of several."""

    def status(self) -> Status | None:
        """Role, term, indexes and members; None while it does not run."""

    def transfer_leadership(self, target: MemberId) -> None:
        """Hand leadership over to ``target``."""

    def records(self) -> dict[MemberId, MemberRecord]:
        """Where the members are reached."""

    def check_add(self, member: MemberId) -> None:
        """:raises Conflict: a new member could not join now."""

    async def add_member(self, record: MemberRecord) -> None:
        """Let a new member join."""

    async def remove_member(self, member: MemberId) -> None:
        """Take ``member`` out of the group."""


def members_json(
    status: Status | None, records: Mapping[MemberId, MemberRecord]
) -> list[dict[str, Any]]:
    """All members.

    :param status: of the leader, which knows how far the others are.
    """
    shown: list[dict[str, Any]] = []
    if status is None:
        return []
    for member in status.conf.members():
        index, state = status.progress.get(member, (0, ""))
        leads = member == status.leader
        record = records.get(member)
        shown.append(
            {
                "id": member,
                "role": "leader" if leads else "follower",
                "voter": status.conf.is_voter(member),
                "index": index,
                "behind": max(0, status.last_index - index),
                "state": "" if leads else state,
                "admin": "" if record is None else record.admin,
            }
        )
    return shown


def member_record(body: NewMember) -> MemberRecord:
    """The record of a new member.

    :raises Unprocessable: an address has the right beginning and cannot be all the same.
    """
    given = msgspec.structs.asdict(body)
    for name, check in _CHECKS.items():
        try:
            check(given[name])
        except (ValueError, TypeError, PBClusterError):
            told = f"{name} is {given[name]!r}; allowed: {RULES[name]}"
            raise Unprocessable(told, field=name, allowed=RULES[name]) from None
    return MemberRecord(**given)


_CHECKS = {
    "raft": tcp_endpoint,
    "requests": tcp_endpoint,
    "broadcasts": tcp_endpoint,
    "admin": http_url,
}
