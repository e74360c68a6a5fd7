"""The control plane's own members, as the admin API shows them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from pbcluster.config import http_url, tcp_endpoint
from pbcluster.errors import InvalidInput, PBClusterError
from pbcluster.raft import MemberId, Status
from pbcluster.records import MemberRecord, check_process_id

#: Characters of a public CURVE key in Z85.
_KEY_LENGTH = 40


class Group(Protocol):
    """What operators may ask of a member that is one of several."""

    def status(self) -> Status | None:
        """Role, term, indexes and members; None while it does not run."""

    def transfer_leadership(self, target: MemberId) -> None:
        """Hand leadership over to ``target``."""

    def records(self) -> dict[MemberId, MemberRecord]:
        """Where the members are reached."""

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


def wanted_member(body: bytes) -> MemberId:
    """The member in ``{"to": ID}``. :raises InvalidInput: there is none."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    target = content.get("to") if isinstance(content, dict) else None
    if not isinstance(target, str) or not target:
        raise InvalidInput("to is missing", field="to", allowed='a member: {"to": "member_2"}')
    return target


#: What each field of a new member is, in words.
_FIELDS = {
    "id": "a new name like member_4",
    "raft": "tcp://HOST:PORT, where the other members hear it",
    "requests": "tcp://HOST:PORT, where nodes and gateways ask it",
    "broadcasts": "tcp://HOST:PORT, where it publishes broadcasts",
    "admin": "http://HOST:PORT, its admin API",
    "curve_public": "its public CURVE key, 40 characters of Z85; empty with plain sockets",
}


def new_member(body: bytes) -> MemberRecord:
    """The record of a new member in a JSON object with the fields of ``MemberRecord``.

    :raises InvalidInput: a field is missing, unknown or wrong; names it and what is allowed.
    """
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InvalidInput("the body must be a JSON object", field="", allowed=", ".join(_FIELDS))
    for name in content:
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            raise InvalidInput(f"unknown field {name!r}; known: {known}", field=name, allowed=known)
    given = {name: content.get(name, "") for name in _FIELDS}
    for name, value in given.items():
        try:
            _check(name, value)
        except (ValueError, TypeError, PBClusterError):
            told = f"{name} is {value!r}; allowed: {_FIELDS[name]}"
            raise InvalidInput(told, field=name, allowed=_FIELDS[name]) from None
    return MemberRecord(**given)


def _check(name: str, value: Any) -> None:
    if name == "id":
        check_process_id(value)
    elif name == "admin":
        http_url(value)
    elif name != "curve_public":
        tcp_endpoint(value)
    elif not isinstance(value, str) or len(value) not in (0, _KEY_LENGTH):
        raise ValueError
