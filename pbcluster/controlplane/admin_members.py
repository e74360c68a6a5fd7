"""The control plane's own members, as the admin API shows them. Pure."""

from __future__ import annotations

import json
from typing import Any, Protocol

from pbcluster.errors import Conflict, InvalidInput
from pbcluster.raft import MemberId, Status


class Group(Protocol):
    """What operators may ask of a member that is one of several."""

    def status(self) -> Status | None:
        """Role, term, indexes and members; None while it does not run."""

    def transfer_leadership(self, target: MemberId) -> None:
        """Hand leadership over to ``target``."""

    async def remove_member(self, member: MemberId) -> None:
        """Take ``member`` out of the group."""


def members_json(
    own_id: MemberId, status: Status | None, applied_index: int
) -> list[dict[str, Any]]:
    """All members.

    :param status: of the leader, which knows how far the others are; None: a member that is alone.
    """
    if status is None:
        alone = {"id": own_id, "role": "leader", "voter": True, "index": applied_index}
        return [alone | {"behind": 0, "state": "alone"}]
    shown = []
    for member in status.conf.members():
        index, state = status.progress.get(member, (0, ""))
        leads = member == status.leader
        shown.append(
            {
                "id": member,
                "role": "leader" if leads else "follower",
                "voter": status.conf.is_voter(member),
                "index": index,
                "behind": max(0, status.last_index - index),
                "state": "" if leads else state,
            }
        )
    return shown


def group_of(group: Group | None) -> Group:
    """:raises Conflict: the member is alone."""
    if group is None:
        raise Conflict("this cluster has one control-plane member: there is nobody else")
    return group


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
