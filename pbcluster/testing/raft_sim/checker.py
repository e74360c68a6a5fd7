"""The safety properties of logs and votes, checked after every step of every member.

The checker sees everything (all disks, all logs) and believes no one. It keeps its own copies: the
log of each member as it was handed out for writing, and the one sequence of committed entries. What
members and clients see of it is checked by :mod:`.states`. A broken property raises
:class:`Broken`, which names it; where production code is the caller it is remembered too, since
that may catch it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pbcluster.raft import ConfState, Entry, EntryKind, MemberId, Ready, Role, SnapshotMeta
from pbcluster.raft.messages import AnyMessage, AppendReply, VoteReply, VoteRequest
from pbcluster.testing.raft_sim.properties import Broken, remembered
from pbcluster.testing.raft_sim.states import StateChecker

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.member import SimMember
    from pbcluster.testing.raft_sim.world import World

#: Leaders' own entries, which no bound stops: a few small ones.
CHANGES_SLACK_BYTES = 250


class LogCopy:
    """What one member has handed out for writing, as the checker saw it."""

    __slots__ = ("base", "commit", "conf", "entries", "led_term", "told_term")

    def __init__(self) -> None:
        self.base = 0
        self.entries: list[Entry] = []
        self.commit = 0
        #: The membership in force at its last Ready.
        self.conf = ConfState()
        #: The term it leads in, or 0.
        self.led_term = 0
        #: The highest term it told others under a promise.
        self.told_term = 0

    def last(self) -> int:
        """Index of the last entry."""
        return self.base + len(self.entries)

    def at(self, index: int) -> Entry | None:
        """The entry at ``index`` if it is still here."""
        offset = index - self.base - 1
        return self.entries[offset] if 0 <= offset < len(self.entries) else None


class Checker:
    """One a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.logs: dict[MemberId, LogCopy] = {}
        self.leaders: dict[int, MemberId] = {}
        self.votes: dict[tuple[MemberId, int], MemberId] = {}
        #: (index, term) → what stands there and the term before it.
        self.known: dict[tuple[int, int], tuple[int, Entry]] = {}
        #: Committed terms by index; the first is the group's first snapshot.
        self.committed: list[int] = [0, 1]
        #: By index the term of the leader that committed it; not before the entry's own.
        self.committed_in: list[int] = [0, 1]
        self.states = StateChecker(world, self.committed)

    # -- lives ------------------------------------------------------------------------------------

    @remembered
    def started(self, member: SimMember) -> None:
        """``member`` read its disk."""
        copy = self.logs.setdefault(member.id, LogCopy())
        disk = member.disk
        if disk.hard.term < copy.told_term:
            raise Broken(
                "monotonic_terms", f"{member.id} told term {copy.told_term}, kept {disk.hard.term}"
            )
        copy.base = disk.snapshot.index
        copy.entries = [entry for entry in disk.entries if entry.index > copy.base]
        copy.commit = max(copy.base, disk.hard.commit)
        previous = 0
        for entry in copy.entries:
            self._check_matching(member.id, entry, previous)
            previous = entry.term
        copy.led_term = 0
        assert member.core is not None
        copy.conf = member.core.conf
        if member.applied:
            self.states.check_state(member)

    def stopped(self, member: SimMember) -> None:
        """``member`` is gone."""
        self.logs[member.id].led_term = 0

    # -- steps ------------------------------------------------------------------------------------

    @remembered
    def ready(self, member: SimMember, ready: Ready, commit_before: int) -> None:
        """``member`` told what it wants done.

        :param commit_before: its commit index before it was asked.
        """
        copy = self.logs[member.id]
        if ready.snapshot is not None:
            copy.base, copy.entries = ready.snapshot.index, []
            copy.commit = max(copy.commit, copy.base)
        leads = ready.role is Role.LEADER
        if ready.entries:
            self._check_entries(member.id, copy, ready, leads and copy.led_term == ready.term)
        if leads and copy.led_term != ready.term:
            self._check_election(member, copy, ready.term)
        copy.led_term = ready.term if leads else 0
        if ready.hard_state is not None:
            self._check_commit(member, copy, ready, commit_before)
        copy.conf = ready.conf
        self._check_belief(member)
        if leads:
            self._check_bounds(member)

    def _check_entries(
        self, member: MemberId, copy: LogCopy, ready: Ready, still_leads: bool
    ) -> None:
        first = ready.entries[0]
        last = copy.last()
        if first.index <= last:
            old = copy.at(first.index)
            if still_leads:
                raise Broken("leader_append_only", f"{member} replaced {first.index} of its log")
            if old is None or first.index <= copy.commit or old.term == first.term:
                raise Broken("truncation", f"{member} cut its log at {first.index} of {last}")
            del copy.entries[first.index - copy.base - 1 :]
        elif first.index > last + 1:
            raise Broken("log_matching", f"{member} has a gap before {first.index}")
        previous = copy.entries[-1].term if copy.entries else 0
        for entry in ready.entries:
            self._check_matching(member, entry, previous)
            previous = entry.term
        copy.entries.extend(ready.entries)
        changes = 0
        for entry in copy.entries[max(0, copy.commit - copy.base) :]:
            changes += entry.kind is EntryKind.CONFIG and entry.index > self._commit_of(ready, copy)
        if changes > 1:
            raise Broken("one_change", f"{member} has {changes} uncommitted membership changes")

    @staticmethod
    def _commit_of(ready: Ready, copy: LogCopy) -> int:
        return max(copy.commit, ready.hard_state.commit if ready.hard_state else 0)

    def _check_matching(self, member: MemberId, entry: Entry, previous: int) -> None:
        key = (entry.index, entry.term)
        known = self.known.get(key)
        if known is None:
            self.known[key] = (previous, entry)
            return
        known_previous, known_entry = known
        if known_entry != entry or (previous and known_previous and previous != known_previous):
            raise Broken("log_matching", f"{member} has another entry {entry.index}/{entry.term}")

    def _check_election(self, member: SimMember, copy: LogCopy, term: int) -> None:
        other = self.leaders.setdefault(term, member.id)
        if other != member.id:
            raise Broken("election_safety", f"{other} and {member.id} lead in term {term}")
        conf = copy.conf
        for half in (conf.voters, conf.outgoing):
            votes = sum(self._voted(voter, term, member.id) for voter in half)
            if half and votes <= len(half) // 2:
                raise Broken("election_safety", f"{member.id} leads {term} with {votes} of {half}")
        self._check_complete(member.id, copy, term)

    def _voted(self, voter: MemberId, term: int, candidate: MemberId) -> bool:
        if voter == candidate:
            hard = self.world.members[voter].disk.hard
            return (hard.term, hard.vote) == (term, candidate)
        return self.votes.get((voter, term)) == candidate

    def _check_complete(self, member: MemberId, copy: LogCopy, term: int) -> None:
        """By log matching it is enough to look at the last entry that was committed in an earlier
        term. What a later leader committed, one that has not heard of it yet may lack."""
        index = len(self.committed) - 1
        while index > copy.base and self.committed_in[index] >= term:
            index -= 1
        if index <= copy.base:
            return
        entry = copy.at(index)
        if entry is None or entry.term != self.committed[index]:
            raise Broken("leader_completeness", f"{member} leads {term} without {index}")

    @staticmethod
    def _check_belief(member: SimMember) -> None:
        """What the core takes for durable is."""
        assert member.core is not None
        log = member.core._raft.log
        if log.pending_snapshot is None and log.durable > log.compacted_index:
            term = log.term(log.durable) or 0
            if not member.disk.holds(log.durable, term):
                raise Broken(
                    "durable_before_told", f"{member.id} takes {log.durable}/{term} for durable"
                )

    # -- commit -----------------------------------------------------------------------------------

    def _check_commit(
        self, member: SimMember, copy: LogCopy, ready: Ready, commit_before: int
    ) -> None:
        leads = ready.role is Role.LEADER
        hard = ready.hard_state
        assert hard is not None
        commit = hard.commit
        if commit <= copy.commit:
            return
        if commit > copy.last():
            raise Broken("state_machine_safety", f"{member.id} committed {commit} it lacks")
        if leads:
            newest = copy.at(commit)
            if newest is not None and newest.term != ready.term:
                raise Broken(
                    "commit_own_term", f"{member.id} in {ready.term} committed {newest.term}"
                )
        for index in range(copy.commit + 1, commit + 1):
            entry = copy.at(index)
            if entry is not None:
                self._commit_entry(member, entry)
        if leads:
            # Counted by the membership before this Ready, except what a change among the entries
            # handed out in it let go on.
            self._check_quorum(copy.conf, commit_before, copy)
            self._check_quorum(ready.conf if commit > commit_before else copy.conf, commit, copy)
        copy.commit = commit

    def _commit_entry(self, member: SimMember, entry: Entry) -> None:
        index = entry.index
        if index < len(self.committed):
            if self.committed[index] != entry.term:
                raise Broken(
                    "state_machine_safety",
                    f"{member.id} committed {index}/{entry.term}, before {self.committed[index]}",
                )
            return
        if index != len(self.committed):
            raise Broken("state_machine_safety", f"{member.id} committed {index} out of order")
        assert member.core is not None
        term = member.core._raft.term
        self.committed.append(entry.term)
        self.committed_in.append(term)
        self.states.committed(entry)
        for other, log in self.logs.items():
            if log.led_term > term:
                self._check_complete(other, log, log.led_term)

    def _check_quorum(self, conf: ConfState, commit: int, copy: LogCopy) -> None:
        if not self._has_quorum(conf, commit, copy):
            raise Broken("commit_quorum", f"{commit} is committed without a majority of {conf}")

    def _has_quorum(self, conf: ConfState, commit: int, copy: LogCopy) -> bool:
        entry = copy.at(commit)
        if entry is None:
            return True
        members = self.world.members
        for half in (conf.voters, conf.outgoing):
            having = sum(members[voter].disk.holds(commit, entry.term) for voter in half)
            if half and having <= len(half) // 2:
                return False
        return True

    def _check_bounds(self, member: SimMember) -> None:
        assert member.core is not None
        raft = member.core._raft
        profile = self.world.profile
        # Empty entries of leaders and membership changes are let in beyond the bound.
        bound = profile.max_uncommitted_bytes + CHANGES_SLACK_BYTES
        if raft.uncommitted_bytes > bound or raft.uncommitted_bytes < 0:
            raise Broken("bounded", f"{member.id} has {raft.uncommitted_bytes} bytes uncommitted")
        for progress in raft.tracker.progress.values():
            if len(progress.inflights) > profile.max_inflight_appends:
                raise Broken("bounded", f"{len(progress.inflights)} appends in flight")

    # -- what is told -----------------------------------------------------------------------------

    @remembered
    def sending(self, message: AnyMessage) -> None:
        """Any message leaves its sender."""
        if isinstance(message, AppendReply):
            promise = not message.rejected
        elif isinstance(message, VoteReply):
            promise = message.granted and not message.pre
        elif isinstance(message, VoteRequest):
            promise = not message.pre
        else:
            return
        if promise:
            self._check_promise(message)

    def _check_promise(self, message: AnyMessage) -> None:
        sender = message.sender
        disk = self.world.members[sender].disk
        copy = self.logs[sender]
        if message.term < copy.told_term:
            raise Broken("monotonic_terms", f"{sender} told {copy.told_term}, now {message.term}")
        if disk.hard.term < message.term:
            raise Broken("durable_before_told", f"{sender} told term {message.term} too early")
        copy.told_term = message.term
        if isinstance(message, VoteReply | VoteRequest):
            choice = message.to if isinstance(message, VoteReply) else sender
            given = self.votes.setdefault((sender, message.term), choice)
            if given != choice:
                raise Broken("monotonic_terms", f"{sender} voted twice in {message.term}")
            if disk.hard.term == message.term and disk.hard.vote != choice:
                raise Broken("durable_before_told", f"{sender} told its vote too early")
        elif isinstance(message, AppendReply) and disk.last_index() < message.index:
            # Unless a later term's entries replaced it with the same fsync.
            later = message.term < disk.hard.term
            if not later or disk.reached.get(message.term, 0) < message.index:
                told = f"{sender} acknowledged {message.index} too early"
                raise Broken("durable_before_told", told)

    @remembered
    def compacted(self, member: SimMember, meta: SnapshotMeta, upto: int) -> None:
        """``member`` forgets the beginning of its log for a snapshot."""
        self.states.check_snapshot(member, meta)
        copy = self.logs[member.id]
        if upto > copy.base:
            del copy.entries[: upto - copy.base]
            copy.base = upto

    # -- time -------------------------------------------------------------------------------------

    @remembered
    def gap_passed(self, member: SimMember, ticks: int) -> None:
        """``member`` was told that it had missed so many ticks."""
        if ticks >= self.world.profile.election_ticks and member.leads():
            raise Broken("gap_stops_leader", f"{member.id} slept {ticks} ticks and leads on")

    @remembered
    def stepped_late(self, member: SimMember, ticks: float) -> None:
        """``member`` is given a message and does not know that so many ticks passed."""
        raise Broken("gap_stops_leader", f"{member.id} takes a message {ticks:.1f} ticks behind")
