"""Proposing and applying membership changes: the checks that need to know the log and progress.

At most one change is under way: none is proposed before the previous one is applied here, nor, by a
new leader, before everything it found in its log is. A learner becomes a voter only when it has
caught up, or it would count for a quorum and hold up every commit. A leader that a change removes
or demotes steps down when the change is applied.
"""

from __future__ import annotations

from pbcluster.errors import Conflict, Unavailable
from pbcluster.raft import confchange, elections, reads, replication
from pbcluster.raft.messages import (
    NOBODY,
    ConfigAction,
    ConfigChange,
    ConfState,
    Entry,
    EntryKind,
    MemberId,
    encode_change,
)
from pbcluster.raft.state import Raft


def check_proposal(raft: Raft, change: ConfigChange) -> None:
    """Whether ``change`` may be proposed now.

    :raises Conflict: another one is under way, it does not fit, or a learner lags.
    :raises Unavailable: a learner to be promoted was not heard from since the last check
        of the quorum, nor before it since the one before: right after a check nobody was.
    """
    if raft.pending_config_index > raft.log.applied:
        raise Conflict(
            f"a membership change at or before index {raft.pending_config_index} may be under way",
            applied=raft.log.applied,
        )
    confchange.apply_change(raft.tracker.conf, change)
    for step in change.steps:
        if step.action is ConfigAction.PROMOTE:
            _check_caught_up(raft, step.member)


def _check_caught_up(raft: Raft, member: MemberId) -> None:
    progress = raft.tracker.progress[member]
    gap = raft.log.last_index - progress.match
    allowed = raft.options.promotion_gap_entries
    if gap > allowed:
        raise Conflict(f"{member} lacks {gap} entries, {allowed} are allowed", missing=gap)
    if not (progress.heard or progress.heard_before):
        raise Unavailable(f"{member} was not heard from lately", retry_after_s=0.5)


def propose(raft: Raft, change: ConfigChange) -> Entry:
    """Append a CONFIG entry to the leader's log; its checks were made."""
    index = raft.log.last_index + 1
    entry = Entry(index, raft.term, EntryKind.CONFIG, encode_change(change))
    raft.pending_config_index = index
    replication.append_own(raft, [entry])
    return entry


def apply_entry(raft: Raft, entry: Entry) -> None:
    """``entry`` is committed and handed out: the change is in force, if it still fits."""
    conf = confchange.after(raft.tracker.conf, entry.data)
    if conf != raft.tracker.conf:
        switch(raft, conf)


def switch(raft: Raft, conf: ConfState) -> None:
    """Put ``conf`` in force."""
    raft.tracker.switch(conf, raft.log.last_index + 1)
    if not raft.is_leader():
        return
    if not conf.is_voter(raft.id):
        elections.become_follower(raft, raft.term, NOBODY)
        return
    # A smaller quorum may already be there.
    replication.maybe_commit(raft)
    reads.release(raft)
    if raft.transferee and not conf.is_voter(raft.transferee):
        raft.transferee = NOBODY


def leave_joint_if_due(raft: Raft) -> None:
    """A leader leaves a joint configuration by itself once nothing else is under way."""
    due = raft.is_leader() and raft.tracker.conf.joint and not raft.transferee
    if due and raft.pending_config_index <= raft.log.applied:
        propose(raft, ConfigChange())
