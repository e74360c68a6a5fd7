"""What a member does with the messages of its leader (paper, section 5.3, receiver's side).

What an acknowledgement claims must be durable first, so replies to appends go through
``send_after``. A reply to a heartbeat claims only that no higher term is known here, and goes at
once.
"""

from __future__ import annotations

from pbcluster.raft import elections, reads
from pbcluster.raft.log import InvariantViolated
from pbcluster.raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply, MemberId
from pbcluster.raft.ready import Role
from pbcluster.raft.state import Raft


def recognise_leader(raft: Raft, leader: MemberId) -> None:
    """A message of this term that only its leader sends came in.

    :raises InvariantViolated: two leaders in one term.
    """
    if raft.is_leader():
        raise InvariantViolated(f"{leader} and {raft.id} both lead in term {raft.term}")
    if raft.role is not Role.FOLLOWER:
        elections.become_follower(raft, raft.term, leader)
    elif raft.leader != leader:
        reads.cancel_all(raft)
        raft.leader = leader
    raft.election_elapsed = 0


def handle_append(raft: Raft, message: Append) -> None:
    """Take entries, or say where the logs may still agree."""
    log = raft.log
    if message.prev_index < log.commit:
        # Old news: what is committed agrees with any leader's log.
        acknowledge(raft, message.sender, log.commit)
        return
    last_new = log.try_append(message.prev_index, message.prev_term, message.entries)
    if last_new is None:
        hint_index, hint_term = log.conflict_hint(message.prev_index, message.prev_term)
        raft.send_after(
            AppendReply(
                raft.id,
                message.sender,
                raft.term,
                message.prev_index,
                rejected=True,
                hint_index=hint_index,
                hint_term=hint_term,
            )
        )
        return
    # Beyond last_new our entries may still be another leader's.
    log.commit_to(min(message.commit, last_new))
    acknowledge(raft, message.sender, last_new)


def acknowledge(raft: Raft, leader: MemberId, index: int) -> None:
    """Tell ``leader``, once it is true, that everything up to ``index`` is durable here."""
    raft.send_after(AppendReply(raft.id, leader, raft.term, index))


def handle_heartbeat(raft: Raft, message: Heartbeat) -> None:
    """The leader lives."""
    raft.log.commit_to(message.commit)
    raft.send(HeartbeatReply(raft.id, message.sender, raft.term, message.round))
