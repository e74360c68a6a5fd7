"""Planted bugs: the simulator's own test. Each must be caught, by a property that is named here.

A mutant replaces one function or method for the time of a run. Those of the first part are mistakes
in the core, those of the second in a driver, those of the third in a state machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from pbcluster.errors import SessionExpired
from pbcluster.raft import (
    ConfState,
    Entry,
    HardState,
    PersistToken,
    RaftCore,
    Ready,
    confchange,
    core,
    elections,
    following,
    membership,
    quorum,
    reads,
    replication,
    snapshots,
)
from pbcluster.raft.log import RaftLog
from pbcluster.raft.messages import NOBODY, Append, ConfigChange, Heartbeat, VoteRequest
from pbcluster.raft.progress import Inflights, Progress
from pbcluster.raft.readonly import ReadRounds
from pbcluster.raft.sessions import SessionTable
from pbcluster.raft.state import Raft
from pbcluster.raft.tracker import Tracker
from pbcluster.testing.raft_sim.disk import SimDisk
from pbcluster.testing.raft_sim.machine import Machine
from pbcluster.testing.raft_sim.member import SimMember
from pbcluster.testing.raft_sim.operator import SimOperator


@frozen
class Mutant:
    """``replacement`` takes the place of ``owner.attribute``; one of ``caught_by`` must fire."""

    name: str
    caught_by: tuple[str, ...]
    owner: Any
    attribute: str
    replacement: Any

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The bug is in the code within this context."""
        original = self.owner.__dict__[self.attribute]
        handlers = [kind for kind, handle in core._HANDLERS.items() if handle is original]
        setattr(self.owner, self.attribute, self.replacement)
        for kind in handlers:
            core._HANDLERS[kind] = self.replacement
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, original)
            for kind in handlers:
                core._HANDLERS[kind] = original


MUTANTS: list[Mutant] = []


def _mutant(owner: Any, attribute: str, *caught_by: str) -> Callable[[Any], Any]:
    """Register the decorated function as a mutant of its own name."""

    def register(function: Any) -> Any:
        name = function.__name__
        MUTANTS.append(Mutant(name, caught_by, owner, attribute, function))
        return function

    return register


# ruff: noqa: D103 -- the name of a mutant says what is wrong with it

# -- mistakes in the core: elections --------------------------------------------------------------


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


# -- mistakes in a driver -------------------------------------------------------------------------

_handle = SimMember._handle


@_mutant(SimMember, "_handle", "durable_before_told")
def ack_before_fsync(self: SimMember, ready: Ready) -> None:
    for message in ready.after:
        self.world.network.send(message)
    _handle(self, ready)


_write = SimDisk.write


@_mutant(SimDisk, "write", "monotonic_terms", "durable_before_told", "no_crash")
def hard_state_only_with_entries(self: SimDisk, readys: Any, staged: Any) -> None:
    hard = self.hard
    _write(self, readys, staged)
    if not any(ready.entries for ready in readys):
        self.hard = hard


@_mutant(SimDisk, "write", "log_matching", "commit_quorum", "truncation", "no_crash")
def old_tail_left_on_disk(self: SimDisk, readys: Any, staged: Any) -> None:
    before = list(self.entries)
    _write(self, readys, staged)
    if self.entries and before and before[0].index <= self.entries[0].index:
        self.entries += [entry for entry in before if entry.index > self.entries[-1].index]


_synced = SimMember._synced


@_mutant(SimMember, "_synced", "durable_before_told", "monotonic_terms")
def fsync_error_ignored(self: SimMember, begun: Any) -> None:
    lost = self.id in self.world.failing and self.core is not None and not self.is_paused()
    if not lost or begun[0] != self.disk.incarnation:
        _synced(self, begun)
        return
    self.world.failing.discard(self.id)
    done, self.writing = self.writing, []
    for ready in done:
        for message in ready.after:
            self.world.network.send(message)
        if self.core is not None:
            self.core.persisted(ready.token)
    self._write()
    self.pump()


@_mutant(SimOperator, "wipe", "monotonic_terms", "durable_before_told")
def wiped_disk_keeps_its_id(self: SimOperator, number: int) -> None:
    names = self.conf().voters
    if names:
        member = self.world.members[names[number % len(names)]]
        member.crash(0)
        member.disk = SimDisk()
        member.start()


@_mutant(SimMember, "_answer_command", "acknowledged_kept", "linearizable", "exactly_once")
def answer_by_index_alone(self: SimMember, index: int, _term: int, outcome: Any) -> None:
    found = self.pending.pop(index, None)
    if found is not None and outcome is not None:
        found[1]("done", outcome)


# -- mistakes in a state machine ------------------------------------------------------------------


@_mutant(SessionTable, "recall", "exactly_once")
def repetition_runs_again(
    self: SessionTable, session_id: int, _sequence: int, _index: int
) -> bytes | None:
    if session_id not in self._sessions:
        raise SessionExpired(f"session {session_id}")
    return None


_load = Machine.load


@_mutant(Machine, "load", "state_equality", "exactly_once")
def snapshot_forgets_sessions(self: Machine, data: bytes) -> None:
    _load(self, data)
    self.sessions.load(())


_recall = SessionTable.recall


@_mutant(SessionTable, "recall", "exactly_once")
def expired_session_is_renewed(
    self: SessionTable, session_id: int, sequence: int, index: int
) -> bytes | None:
    if session_id not in self._sessions:
        self.open(session_id)
    return _recall(self, session_id, sequence, index)
