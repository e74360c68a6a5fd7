"""Handing leadership over on purpose (thesis, section 3.10).

The leader brings the target up to date, takes no proposals meanwhile, and tells it to campaign at
once. If it did not succeed within an election timeout, the leader goes on as before.
"""

from __future__ import annotations

from pbcluster.errors import Conflict, NotLeader
from pbcluster.raft import elections
from pbcluster.raft.messages import NOBODY, MemberId, TimeoutNow
from pbcluster.raft.state import Raft


def begin(raft: Raft, target: MemberId) -> None:
    """Hand over to ``target``; again for the same one changes nothing.

    :raises NotLeader: this member does not lead.
    :raises Conflict: ``target`` cannot lead.
    """
    if not raft.is_leader():
        raise NotLeader("only the leader can hand leadership over", leader=raft.leader)
    if target == raft.id:
        raise Conflict(f"{target} leads already")
    if not raft.tracker.conf.is_voter(target):
        raise Conflict(f"{target} is no voter")
    if raft.transferee == target:
        return
    raft.transferee = target
    raft.election_elapsed = 0
    check_caught_up(raft, target)


def check_caught_up(raft: Raft, member: MemberId) -> None:
    """If leadership goes to ``member`` and it has the whole log, tell it to campaign."""
    if member != raft.transferee or not member:
        return
    if raft.tracker.progress[member].match == raft.log.last_index:
        raft.send(TimeoutNow(raft.id, member, raft.term))


def abort(raft: Raft) -> None:
    """Lead on."""
    raft.transferee = NOBODY


def handle_timeout_now(raft: Raft, message: TimeoutNow) -> None:
    """The leader hands over to this member; no pre-vote is needed, since it lives and agrees."""
    if raft.leader == message.sender:
        elections.campaign(raft, elections.Campaign.TRANSFER)
