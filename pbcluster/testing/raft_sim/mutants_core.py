"""Planted bugs in the Raft core; those around it are in :mod:`.mutants_around`."""

from __future__ import annotations

from functools import partial
from typing import Any

from pbcluster.raft import (
    ConfState,
    Entry,
    HardState,
    PersistToken,
    RaftCore,
    confchange,
    elections,
    following,
    membership,
    quorum,
    reads,
    replication,
    snapshots,
)
from pbcluster.raft.log import RaftLog
from pbcluster.raft.messages import (
    NOBODY,
    Append,
    ConfigChange,
    Heartbeat,
    MemberId,
    VoteRequest,
)
from pbcluster.raft.progress import Inflights, Progress
from pbcluster.raft.readonly import ReadRounds
from pbcluster.raft.state import Raft
from pbcluster.raft.tracker import Tracker
from pbcluster.testing.raft_sim.planting import Mutant, planting

MUTANTS: list[Mutant] = []
_mutant = partial(planting, MUTANTS)


# ruff: noqa: D103 -- the name of a mutant says what is wrong with it

# -- elections --------------------------------------------------------------


@_mutant(RaftCore, "_hard_state", "durable_before_told", "monotonic_terms")
def vote_not_persisted(self: RaftCore) -> HardState:
    raft = self._raft
    return HardState(raft.term, NOBODY, raft.log.commit)


@_mutant(elections, "_request_votes", "durable_before_told")
def candidacy_before_fsync(raft: Raft, term: int, *, pre: bool, forced: bool) -> None:
    for member in raft.tracker.conf.members():
        if member != raft.id and raft.tracker.conf.is_voter(member):
            last_index, last_term = raft.log.last_index, raft.log.last_term
            raft.send(
                VoteRequest(raft.id, member, term, last_index, last_term, pre=pre, transfer=forced)
            )


_campaign = elections.campaign


@_mutant(elections, "campaign", "no_disturbance")
def no_prevote(raft: Raft, kind: elections.Campaign) -> None:
    _campaign(raft, elections.Campaign.VOTE if kind is elections.Campaign.PRE_VOTE else kind)


@_mutant(elections, "ignores_by_lease", "no_disturbance")
def no_lease(_raft: Raft, _message: object) -> bool:
    return False


@_mutant(Tracker, "quorum_active", "liveness")
def no_check_quorum(_self: Tracker) -> bool:
    return True


@_mutant(elections, "disk_stands_still", "liveness")
def hung_disk_leads_on(_raft: Raft, _timeouts: int) -> bool:
    return False


@_mutant(RaftLog, "is_up_to_date", "leader_completeness")
def vote_for_any_log(_self: RaftLog, _last_index: int, _last_term: int) -> bool:
    return True


@_mutant(elections, "handle_vote_request", "monotonic_terms", "election_safety")
def two_votes_a_term(raft: Raft, message: VoteRequest) -> None:
    if not message.pre:
        raft.vote = raft.leader = NOBODY
    _handle_vote_request(raft, message)


_handle_vote_request = elections.handle_vote_request
_vote_result = quorum.vote_result


@_mutant(quorum, "vote_result", "election_safety")
def joint_vote_of_one_half(conf: ConfState, votes: Any) -> quorum.VoteResult:
    return _vote_result(ConfState(conf.voters), votes)


@_mutant(elections, "skip", "gap_stops_leader")
def gap_ignored(raft: Raft, ticks: int) -> None:
    raft.now += ticks


# -- replication ----------------------------------------------------------------------------------


@_mutant(replication, "maybe_commit", "commit_own_term")
def old_term_counting(raft: Raft) -> None:
    index = raft.tracker.agreed_index()
    if index > raft.log.commit:
        newly = raft.log.read(raft.log.commit + 1, 2**62, index)
        raft.log.commit_to(index)
        raft.uncommitted_bytes -= sum(entry.size_bytes for entry in newly)


@_mutant(RaftLog, "try_append", "truncation", "no_crash")
def unconditional_truncation(
    self: RaftLog, prev_index: int, prev_term: int, entries: tuple[Entry, ...]
) -> int | None:
    if self.term(prev_index) != prev_term:
        return None
    if entries and entries[0].index <= self.last_index:
        self._truncate(entries[0].index)
    self._entries.extend(entries)
    return prev_index + len(entries)


_append_own = replication.append_own


@_mutant(replication, "append_own", "commit_quorum")
def leader_counts_unsynced(raft: Raft, entries: Any) -> None:
    _append_own(raft, entries)
    raft.tracker.progress[raft.id].acknowledged(raft.log.last_index)


@_mutant(Tracker, "agreed_index", "commit_quorum")
def learner_counted(self: Tracker) -> int:
    match = {member: progress.match for member, progress in self.progress.items()}
    return quorum.agreed_index(ConfState(tuple(self.progress)), match)


_agreed_index = quorum.agreed_index


@_mutant(quorum, "agreed_index", "commit_quorum")
def joint_commit_of_one_half(conf: ConfState, acknowledged: Any) -> int:
    return _agreed_index(ConfState(conf.voters), acknowledged)


@_mutant(replication, "_handle_rejection", "liveness")
def rejection_ignored(_raft: Raft, _message: object, progress: Progress) -> None:
    progress.paused = False


@_mutant(Inflights, "free_to", "liveness")
def pipe_never_freed(_self: Inflights, _index: int) -> None:
    return


@_mutant(snapshots, "begin", "liveness")
def snapshot_never_sent(_raft: Raft, _member: str, progress: Progress) -> None:
    progress.paused = True


_persisted = RaftCore.persisted


@_mutant(RaftCore, "persisted", "durable_before_told")
def stale_append_token(self: RaftCore, token: PersistToken) -> None:
    raft = self._raft
    _persisted(self, token)
    if raft.log.durable < token.index <= raft.log.saved:
        raft.log.durable = token.index
        if raft.is_leader():
            replication.own_append_durable(raft)


_handle_append = following.handle_append


@_mutant(following, "handle_append", "state_machine_safety", "leader_completeness")
def commit_beyond_append(raft: Raft, message: Append) -> None:
    _handle_append(raft, message)
    if message.prev_index >= raft.log.commit:
        raft.log.commit_to(min(message.commit, raft.log.last_index))


@_mutant(replication, "broadcast_heartbeat", "state_machine_safety", "no_crash")
def heartbeat_commits_unmatched(raft: Raft) -> None:
    raft.heartbeat_elapsed = 0
    number = reads.round_for_heartbeat(raft)
    for member in raft.tracker.progress:
        if member != raft.id:
            raft.send(Heartbeat(raft.id, member, raft.term, raft.log.commit, number))


@_mutant(Inflights, "full", "bounded")
def pipe_never_full(_self: Inflights) -> bool:
    return False


_propose = RaftCore.propose


@_mutant(RaftCore, "propose", "bounded")
def never_busy(self: RaftCore, data: bytes) -> Any:
    kept, self._raft.uncommitted_bytes = self._raft.uncommitted_bytes, 0
    try:
        return _propose(self, data)
    finally:
        self._raft.uncommitted_bytes += kept


# -- membership -----------------------------------------------------------------------------------


@_mutant(elections, "connection_lost", "no_disturbance")
def lost_connection_is_an_election(raft: Raft, member: MemberId) -> None:
    if member == raft.leader and not raft.is_leader():
        elections.campaign(raft, elections.Campaign.VOTE)


@_mutant(membership, "check_proposal", "one_change")
def two_changes_at_once(raft: Raft, change: ConfigChange) -> None:
    confchange.apply_change(raft.tracker.conf, change)


_become_leader = elections.become_leader


@_mutant(elections, "become_leader", "one_change")
def new_leader_forgets_change(raft: Raft) -> None:
    _become_leader(raft)
    raft.pending_config_index = 0


# -- reads ----------------------------------------------------------------------------------------


@_mutant(reads, "_new_context", "fresh_reads", "linearizable")
def reused_read_context(raft: Raft) -> int:
    raft.contexts += 1
    return raft.options.incarnation << 32 | raft.contexts % 2


@_mutant(ReadRounds, "acknowledge", "fresh_reads", "linearizable")
def read_context_ignored(self: ReadRounds, member: str, _number: int) -> None:
    self._acknowledged[member] = self.number


@_mutant(reads, "start_round_if_due", "fresh_reads", "linearizable")
def read_without_round(raft: Raft) -> None:
    while raft.reads.has_waiting():
        number = raft.reads.begin(raft.id)
        for member in raft.tracker.progress:
            raft.reads.acknowledge(member, number)
    reads.release(raft)


@_mutant(Raft, "committed_in_term", "fresh_reads", "linearizable")
def read_before_own_commit(_self: Raft) -> bool:
    return True
