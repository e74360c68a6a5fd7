"""Linearizable reads without the log (ReadIndex; thesis, section 6.4).

Every read has a context that is never used twice: start number and counter of the member that was
asked. At the leader it waits for a round of heartbeats (see :mod:`pbcluster.raft.readonly`); any
other member asks the leader on its behalf. Each ends as a ``ReadState`` or in ``cancelled_reads``;
a retry is a new read with a new context.

A leader refuses reads until it has committed an entry of its own term: before, its commit index may
be behind what was acknowledged by others.
"""

from __future__ import annotations

from pbcluster.errors import Busy, NotLeader, Unavailable
from pbcluster.raft import replication
from pbcluster.raft.messages import NOBODY, MemberId, ReadReply, ReadRequest
from pbcluster.raft.readonly import PendingRead, ReadRounds
from pbcluster.raft.ready import ReadState
from pbcluster.raft.state import Raft

#: A forwarded read is given up after so many election timeouts: question or answer was lost.
FORWARDED_TIMEOUTS = 2


def begin(raft: Raft) -> int:
    """Ask which index must be applied before a read may be answered.

    :returns: the read's context.
    :raises NotLeader: no leader is known.
    :raises Busy: ``max_pending_reads`` wait already.
    :raises Unavailable: this leader has not committed an entry of its own term yet.
    """
    waiting = raft.reads.count + len(raft.forwarded_reads)
    if waiting >= raft.options.max_pending_reads:
        raise Busy(f"{waiting} reads wait already", retry_after_s=0.1)
    if raft.leader == NOBODY:
        raise NotLeader("no leader is known at the moment", leader="")
    if raft.is_leader() and not raft.committed_in_term():
        raise Unavailable("the leader is new and has committed nothing yet", retry_after_s=0.05)
    context = _new_context(raft)
    if raft.is_leader():
        raft.reads.add(PendingRead(raft.id, context, raft.log.commit))
    else:
        patience = FORWARDED_TIMEOUTS * raft.options.election_ticks
        raft.forwarded_reads[context] = raft.now + patience
        raft.send(ReadRequest(raft.id, raft.leader, raft.term, context))
    return context


def _new_context(raft: Raft) -> int:
    """Unique over all starts of this member: the incarnation is in the upper bits."""
    raft.contexts += 1
    return raft.contexts


# -- at the leader --------------------------------------------------------------------------------


def handle_request(raft: Raft, message: ReadRequest) -> None:
    """Another member asks for one of its callers."""
    ready = raft.is_leader() and raft.committed_in_term()
    if not ready or raft.reads.count >= raft.options.max_pending_reads:
        raft.send(ReadReply(raft.id, message.sender, raft.term, message.context, refused=True))
        return
    raft.reads.add(PendingRead(message.sender, message.context, raft.log.commit))


def start_round_if_due(raft: Raft) -> None:
    """Begin a round for the reads that wait, if not too many are under way."""
    rounds = raft.reads
    if rounds.has_waiting() and rounds.open_rounds() < raft.options.max_read_rounds:
        replication.broadcast_heartbeat(raft)
        release(raft)


def round_for_heartbeat(raft: Raft) -> int:
    """The number the next heartbeats carry; reads that wait get a new one."""
    if raft.reads.has_waiting():
        return raft.reads.begin(raft.id)
    return raft.reads.number


def acknowledge(raft: Raft, member: MemberId, number: int) -> None:
    """``member`` answered the heartbeat of round ``number``."""
    raft.reads.acknowledge(member, number)
    release(raft)


def release(raft: Raft) -> None:
    """Answer the reads that a quorum confirmed."""
    for read in raft.reads.release(raft.tracker.conf):
        if read.asker == raft.id:
            raft.outbox.reads.append(ReadState(read.context, read.index))
        else:
            raft.send(ReadReply(raft.id, read.asker, raft.term, read.context, read.index))


# -- at the others --------------------------------------------------------------------------------


def handle_reply(raft: Raft, message: ReadReply) -> None:
    """The leader answered; an answer nobody waits for any more is dropped."""
    if raft.forwarded_reads.pop(message.context, None) is None:
        return
    if message.refused:
        raft.outbox.cancelled_reads.append(message.context)
    else:
        raft.outbox.reads.append(ReadState(message.context, message.index))


def expire(raft: Raft) -> None:
    """Give up forwarded reads whose answer is overdue; they lie in the order of their deadlines."""
    while raft.forwarded_reads:
        context, deadline = next(iter(raft.forwarded_reads.items()))
        if deadline > raft.now:
            return
        del raft.forwarded_reads[context]
        raft.outbox.cancelled_reads.append(context)


def cancel_all(raft: Raft) -> None:
    """Leadership changed hands, here or elsewhere: no read under way may be answered from it."""
    for read in raft.reads.everything():
        if read.asker == raft.id:
            raft.outbox.cancelled_reads.append(read.context)
    raft.reads = ReadRounds()
    raft.outbox.cancelled_reads.extend(raft.forwarded_reads)
    raft.forwarded_reads.clear()
