"""Terms, roles and votes (paper, section 5.2; pre-vote, check-quorum: thesis, 9.6 and 6.2).

* A term is raised only by a candidacy that a quorum said it would support (pre-vote), by a transfer
  the leader asked for, or by hearing of a higher one.
* Votes are asked for, given and counted only when term, vote and log are durable: requests and
  replies go through ``send_after``, the own vote is counted in :func:`own_vote_durable`. (Asking
  earlier would let a candidate that crashes, forgets its tail and asks again in the same term be
  elected by votes for the longer log.) Pre-votes promise nothing and go at once.
* A leader steps down when it hears from no quorum for an election timeout, when its disk stands
  still for three, and when it slept through one. One whose disk stands still does not campaign.
* A member that heard from a leader within the shortest election timeout helps nobody else, unless
  the leader asked for it, or the connection to the leader ended since (:func:`connection_lost`).
"""

from __future__ import annotations

import enum

from pbcluster.raft import reads, replication, transfer
from pbcluster.raft.messages import (
    NOBODY,
    AppendReply,
    Entry,
    EntryKind,
    MemberId,
    Message,
    VoteReply,
    VoteRequest,
)
from pbcluster.raft.quorum import VoteResult
from pbcluster.raft.ready import Role
from pbcluster.raft.state import Raft

#: Election timeouts a leader waits for a write of its own: far longer than a slow fsync takes.
LEADER_DISK_TIMEOUTS = 3
#: One whose writes wait so long could not make a vote durable: it would only disturb elections.
CANDIDATE_DISK_TIMEOUTS = 1


class Campaign(enum.Enum):
    """Why a member campaigns."""

    PRE_VOTE = "pre-vote"
    VOTE = "vote"
    TRANSFER = "transfer"


# -- roles ----------------------------------------------------------------------------------------


def _reset(raft: Raft, term: int) -> None:
    """What every change of role or term does."""
    if term != raft.term:
        raft.term = term
        raft.vote = NOBODY
        # What a leader of this term replaces in the write to come was never durable: an earlier
        # leader is not told that it was. It is none any more, and need not be told anything.
        raft.outbox.after = [one for one in raft.outbox.after if not isinstance(one, AppendReply)]
    raft.leader = NOBODY
    raft.election_elapsed = 0
    raft.heartbeat_elapsed = 0
    draw_election_timeout(raft)
    raft.transferee = NOBODY
    raft.tracker.reset(raft.log.last_index + 1)
    raft.pending_config_index = 0
    raft.uncommitted_bytes = 0
    reads.cancel_all(raft)


def draw_election_timeout(raft: Raft) -> None:
    """Members must not campaign in step: each waits between one and two election timeouts."""
    ticks = raft.options.election_ticks
    raft.election_timeout = raft.random.randrange(ticks, 2 * ticks)


def become_follower(raft: Raft, term: int, leader: MemberId) -> None:
    """Follow ``leader``, or nobody yet, in ``term``."""
    _reset(raft, term)
    raft.role = Role.FOLLOWER
    raft.leader = leader


def become_pre_candidate(raft: Raft) -> None:
    """Ask around; neither term nor vote changes."""
    raft.role = Role.PRE_CANDIDATE
    raft.leader = NOBODY
    raft.tracker.votes = {}
    raft.election_elapsed = 0
    draw_election_timeout(raft)
    reads.cancel_all(raft)


def become_candidate(raft: Raft) -> None:
    """Stand in the next term."""
    _reset(raft, raft.term + 1)
    raft.role = Role.CANDIDATE
    raft.vote = raft.id


def become_leader(raft: Raft) -> None:
    """Lead, and append the entry that will commit all earlier ones."""
    _reset(raft, raft.term)
    raft.role = Role.LEADER
    raft.leader = raft.id
    own = raft.tracker.progress[raft.id]
    own.recent_active = True
    own.become_replicate()
    own.acknowledged(raft.log.durable)
    # What changes of membership the tail holds is unknown: none is proposed before it is applied.
    raft.pending_config_index = raft.log.last_index
    raft.uncommitted_bytes = raft.log.tail_bytes()
    replication.append_own(raft, [Entry(raft.log.last_index + 1, raft.term, EntryKind.NOOP)])


# -- campaigning ----------------------------------------------------------------------------------


def campaign(raft: Raft, kind: Campaign) -> None:
    """Begin an election, unless this member leads, has no vote, a disk that stands still, or a
    membership change to apply that it knows to be committed: it would count by the wrong one."""
    if raft.is_leader() or not raft.may_campaign():
        return
    if disk_stands_still(raft, CANDIDATE_DISK_TIMEOUTS):
        return
    if raft.log.has_config_in(raft.log.applied, raft.log.commit):
        return
    if kind is Campaign.PRE_VOTE:
        become_pre_candidate(raft)
        result = raft.tracker.record_vote(raft.id, True)
        if result is VoteResult.WON:
            campaign(raft, Campaign.VOTE)
            return
        _request_votes(raft, raft.term + 1, pre=True, forced=False)
        return
    become_candidate(raft)
    _request_votes(raft, raft.term, pre=False, forced=kind is Campaign.TRANSFER)


def _request_votes(raft: Raft, term: int, *, pre: bool, forced: bool) -> None:
    log = raft.log
    for member in raft.tracker.conf.members():
        if member == raft.id or not raft.tracker.conf.is_voter(member):
            continue
        request = VoteRequest(
            raft.id, member, term, log.last_index, log.last_term, pre=pre, transfer=forced
        )
        if pre:
            raft.send(request)
        else:
            raft.send_after(request)


def own_vote_durable(raft: Raft, term: int, vote: MemberId) -> None:
    """A write under ``term`` and ``vote`` is durable: a candidate may count itself."""
    if raft.role is Role.CANDIDATE and raft.term == term and vote == raft.id:
        _count_vote(raft, raft.id, True)


def _count_vote(raft: Raft, member: MemberId, granted: bool) -> None:
    result = raft.tracker.record_vote(member, granted)
    if result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            campaign(raft, Campaign.VOTE)
        else:
            become_leader(raft)
    elif result is VoteResult.LOST:
        become_follower(raft, raft.term, NOBODY)


# -- messages -------------------------------------------------------------------------------------


def ignores_by_lease(raft: Raft, message: Message) -> bool:
    """Whether ``message`` asks for a vote that a living leader's lease forbids."""
    return isinstance(message, VoteRequest) and not message.transfer and raft.in_lease()


def handle_vote_request(raft: Raft, message: VoteRequest) -> None:
    """Give a vote, or refuse it. Terms were compared before: this one is not older than ours."""
    free = raft.vote == NOBODY and raft.leader == NOBODY
    ahead = message.pre and message.term > raft.term
    may = raft.vote == message.sender or free or ahead
    granted = may and raft.log.is_up_to_date(message.last_index, message.last_term)
    # A granted pre-vote answers for the term asked about; a refusal tells ours.
    term = message.term if granted else raft.term
    reply = VoteReply(raft.id, message.sender, term, granted, pre=message.pre)
    if message.pre:
        raft.send(reply)
        return
    if granted:
        raft.election_elapsed = 0
        raft.vote = message.sender
    raft.send_after(reply)


def handle_vote_reply(raft: Raft, message: VoteReply) -> None:
    """Count an answer to the campaign under way; any other is late."""
    expected = Role.PRE_CANDIDATE if message.pre else Role.CANDIDATE
    if raft.role is expected:
        _count_vote(raft, message.sender, message.granted)


# -- time -----------------------------------------------------------------------------------------


def connection_lost(raft: Raft, member: MemberId) -> None:
    """The connection to ``member`` ended. If it leads, its process has probably died: nobody waits
    out an election timeout. The voters try one after the other, in the order of their ids and a
    heartbeat apart, so that the first is elected before the second asks. Where only this one lost
    the connection, the others still follow and refuse its pre-vote."""
    if member == NOBODY or member != raft.leader or raft.is_leader():
        return
    others = [voter for voter in raft.tracker.conf.members() if voter not in (member, raft.id)]
    rank = sum(other < raft.id for other in others)
    apart = raft.options.heartbeat_ticks
    # Not before the others' systems told them too.
    wait = 1 + rank * apart + raft.random.randrange(0, max(1, apart // 2))
    raft.election_elapsed = max(raft.election_elapsed, raft.options.election_ticks)
    raft.election_timeout = raft.election_elapsed + wait


def tick(raft: Raft) -> None:
    """One tick of a member that does not lead."""
    raft.election_elapsed += 1
    if raft.election_elapsed < raft.election_timeout:
        return
    # Also where this member may not campaign: it no longer takes the old leader for one, helps
    # others to an election, and tells its callers that it knows no leader.
    if raft.leader != NOBODY:
        raft.leader = NOBODY
        reads.cancel_all(raft)
    campaign(raft, Campaign.PRE_VOTE)


def disk_stands_still(raft: Raft, timeouts: int) -> bool:
    """Whether nothing that was to be written became durable for so many election timeouts. A member
    that is the only voter has nobody who would do better."""
    conf = raft.tracker.conf
    if conf.voters == (raft.id,) and not conf.joint:
        return False
    return raft.disk_wait_ticks >= timeouts * raft.options.election_ticks


def tick_leader(raft: Raft) -> None:
    """One tick of a leader's checks of its disk and its quorum; a transfer has one timeout.

    Others could commit without this leader's disk, but nothing is applied here before it is
    durable here, so nobody would be answered, under a leader whose heartbeats go on.
    """
    if disk_stands_still(raft, LEADER_DISK_TIMEOUTS):
        become_follower(raft, raft.term, NOBODY)
        return
    raft.election_elapsed += 1
    if raft.election_elapsed < raft.options.election_ticks:
        return
    raft.election_elapsed = 0
    transfer.abort(raft)
    if not raft.tracker.quorum_active():
        become_follower(raft, raft.term, NOBODY)
        return
    raft.tracker.clear_active(raft.id)


def skip(raft: Raft, ticks: int) -> None:
    """So many ticks, at least an election timeout, passed unseen: others may have elected a leader
    meanwhile, and nothing this member believes of the others is fresh.

    A leader steps down and its reads are cancelled. Others let messages that wait in their queues
    speak before they campaign, but their leader's lease is over.
    """
    raft.now += ticks
    if raft.role is not Role.FOLLOWER:
        become_follower(raft, raft.term, NOBODY)
    reads.cancel_all(raft)
    elapsed = raft.election_elapsed + ticks
    raft.election_elapsed = min(elapsed, max(raft.election_timeout - 1, 0))
