"""Majorities, single and joint.

A decision of a joint configuration needs a majority of each half (paper, section 6). An empty half
agrees with everything, so a configuration without outgoing voters is the special case of a joint
one. Members outside both halves (learners, strangers) never count, whatever they said.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from pbcluster.raft.messages import ConfState, MemberId


class VoteResult(enum.Enum):
    """What the votes given so far decide."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def agreed_index(conf: ConfState, acknowledged: Mapping[MemberId, int]) -> int:
    """The highest number that a majority of each half has acknowledged.

    :param acknowledged: the highest number each member confirmed; a missing one counts as 0.
    """
    index = _majority_index(conf.voters, acknowledged)
    if conf.outgoing:
        index = min(index, _majority_index(conf.outgoing, acknowledged))
    return index


def _majority_index(voters: tuple[MemberId, ...], acknowledged: Mapping[MemberId, int]) -> int:
    if not voters:
        return 0
    numbers = sorted([acknowledged.get(voter, 0) for voter in voters])
    return numbers[(len(numbers) - 1) // 2]


def vote_result(conf: ConfState, votes: Mapping[MemberId, bool]) -> VoteResult:
    """What ``votes`` (granted or refused; missing ones are still out) decide."""
    first = _majority_result(conf.voters, votes)
    if not conf.outgoing:
        return first
    second = _majority_result(conf.outgoing, votes)
    if first is second:
        return first
    if VoteResult.LOST in (first, second):
        return VoteResult.LOST
    return VoteResult.PENDING


def _majority_result(voters: tuple[MemberId, ...], votes: Mapping[MemberId, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
