"""Planted bugs around the core: in the driver, in its snapshots, in what answers callers, in the
registry, and in what is simulated under them."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from attrs import evolve
from twisted.internet.defer import Deferred

from pbcluster.controlplane import commands
from pbcluster.controlplane.outcomes import Outcome, Outcomes
from pbcluster.controlplane.raft_driver import RaftDriver
from pbcluster.controlplane.raft_intervals import HEARTBEAT_TICKS, TICK_S
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.raft_proposals import Proposals
from pbcluster.controlplane.raft_reads import Reads
from pbcluster.controlplane.raft_snapshots import Snapshots
from pbcluster.controlplane.raft_store import Write
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.controlplane.tenant_changes import TenantChanges
from pbcluster.raft import AnyMessage, Entry, MemberId, Ready
from pbcluster.raft.messages import SnapshotMeta
from pbcluster.testing.raft_sim.disk import Batch, SimDisk
from pbcluster.testing.raft_sim.network import SimLinks
from pbcluster.testing.raft_sim.operator import SimOperator
from pbcluster.testing.raft_sim.planting import Mutant, planting

MUTANTS: list[Mutant] = []
_mutant = partial(planting, MUTANTS)

# ruff: noqa: D103 -- the name of a mutant says what is wrong with it

# -- the driver -----------------------------------------------------------------------------------

_handle = RaftDriver._handle
_submit = RaftDriver.submit
_received = RaftDriver._received
_advance = RaftDriver._advance


@_mutant(RaftDriver, "_handle", "durable_before_told")
def ack_before_fsync(self: RaftDriver, ready: Ready) -> None:
    self._send(ready.after)
    _handle(self, ready)


@_mutant(RaftDriver, "submit", "monotonic_terms", "durable_before_told", "no_crash")
def hard_state_only_with_entries(self: RaftDriver, writes: tuple[Write, ...], then: Any) -> None:
    kept = tuple(one if one.entries else evolve(one, hard_state=None) for one in writes)
    _submit(self, kept, then)


@_mutant(RaftDriver, "submit", "monotonic_terms", "durable_before_told")
def lazy_commit_index_written_last(self: RaftDriver, writes: tuple[Write, ...], then: Any) -> None:
    if len(writes) > 1 and writes[0].hard_state and not writes[0].entries:
        writes = (*writes[1:], writes[0])
    _submit(self, writes, then)


@_mutant(RaftDriver, "_write", "durable_before_told", "monotonic_terms")
def durable_at_once_while_writing(self: RaftDriver) -> bool:
    if self._waiting and not self._writing:
        done, self._waiting = self._waiting, []
        writes = tuple(Write(one.snapshot, one.entries, one.hard_state) for one in done)
        self.submit(writes, lambda: None)
        self._are_durable(done)
        return True
    return False


@_mutant(RaftDriver, "_done", "durable_before_told", "monotonic_terms")
def fsync_error_ignored(self: RaftDriver, _error: object, then: Any) -> None:
    if self._core is not None:
        then()
        self.pump()


@_mutant(RaftDriver, "_advance", "gap_stops_leader")
def gap_is_one_tick(self: RaftDriver) -> None:
    if self._core is None or (ticks := self._ticks.passed()) <= 0:
        return
    if ticks <= HEARTBEAT_TICKS:  # the driver slept
        self._core.tick_gap(ticks)
    else:
        self._core.tick()


@_mutant(RaftDriver, "_received", "gap_stops_leader")
def messages_before_gap(self: RaftDriver, message: AnyMessage) -> None:
    kept, now = self._ticks._counted_to, self._clock.seconds()
    if now - kept <= HEARTBEAT_TICKS * TICK_S:  # the driver slept
        _received(self, message)
        return
    self._ticks._counted_to = now
    _received(self, message)
    self._ticks._counted_to = kept


@_mutant(RaftDriver, "_apply", "state_machine_safety", "no_crash")
def applied_told_too_far(self: RaftDriver, ready: Ready) -> None:
    _apply(self, evolve(ready, committed=ready.committed[:1]))
    if ready.committed and self._core is not None:
        self._core.applied(ready.committed[-1].index)


_apply = RaftDriver._apply


# -- snapshots ------------------------------------------------------------------------------------


@_mutant(Snapshots, "_write_pieces", "durable_before_told")
def snapshot_counts_before_its_pieces(self: Snapshots, meta: SnapshotMeta, pieces: Any) -> None:
    if self._driver.core is not None:
        self._driver.submit((Write(pieces=tuple(pieces)),), lambda: None)
        self._compact(meta)


_make_if_due = Snapshots.make_if_due


@_mutant(Snapshots, "make_if_due", "state_equality", "no_crash")
def snapshot_of_the_next_index(self: Snapshots, index: int, term: int, conf: Any) -> None:
    _make_if_due(self, index - 1, term, conf)


@_mutant(Snapshots, "coming", "restartable", "durable_before_told")
def install_forgets_newer_pieces(_self: Snapshots) -> tuple[SnapshotMeta, ...]:
    return ()


_installed = Snapshots.installed


@_mutant(Snapshots, "installed", "no_crash")
def install_forgets_newer_state(self: Snapshots, meta: SnapshotMeta) -> None:
    _installed(self, meta)
    self._loaded.clear()


@_mutant(Snapshots, "_verified", "no_crash", "durable_before_told")
def second_arrival_forgets_the_first(self: Snapshots, state: Any, meta: SnapshotMeta) -> None:
    if self._driver.core is not None:
        self._loaded[meta] = state
        if not self._driver.core.install_snapshot(meta):
            self._forget(meta)
        self._driver.pump()


_install = RaftMember.install


@_mutant(RaftMember, "install", "state_equality")
def installed_snapshot_not_loaded(self: RaftMember, state: Registry, meta: SnapshotMeta) -> None:
    if not self._registry.applied_index:
        _install(self, state, meta)
    self._registry.applied_index = meta.index


# -- what answers callers -------------------------------------------------------------------------


class _AnyTerm(int):
    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = int.__hash__


@_mutant(Proposals, "lose", "acknowledged_kept", "linearizable", "exactly_once")
def answer_by_index_alone(self: Proposals) -> None:
    waiting = self._pending.items()
    self._pending = {index: evolve(one, term=_AnyTerm()) for index, one in waiting}


@_mutant(Proposals, "outcome", "acknowledged_kept")
async def answer_before_commit(_self: Proposals, proposed: Any) -> Outcome:
    return Outcome(proposed.index)


_member_apply = RaftMember.apply


@_mutant(RaftMember, "apply", "acknowledged_kept")
def answer_before_apply(self: RaftMember, entry: Entry) -> None:
    self._proposals.answer(entry, Outcome(entry.index))
    _member_apply(self, entry)


_read_barrier = RaftMember.read_barrier


@_mutant(RaftMember, "read_barrier", "fresh_reads", "linearizable")
async def leader_reads_without_round(self: RaftMember, *, patient: bool = False) -> None:
    if not self.is_leader:
        await _read_barrier(self, patient=patient)


_barrier = Reads.barrier


@_mutant(Reads, "barrier", "fresh_reads", "linearizable")
async def read_joins_a_round_under_way(self: Reads, *, patient: bool = False) -> None:
    for batch in self._asked.values():
        answer: Deferred[None] = Deferred()
        batch.waiting.append(answer)
        self._count += 1
        await answer
        return
    await _barrier(self, patient=patient)


_read_allowed = RaftMember.read_allowed


@_mutant(RaftMember, "read_allowed", "fresh_reads", "linearizable")
def read_before_its_index(self: RaftMember, context: int, _index: int) -> None:
    _read_allowed(self, context, 0)


@_mutant(RaftMember, "read_cancelled", "fresh_reads", "linearizable")
def cancelled_read_answered(self: RaftMember, context: int) -> None:
    _read_allowed(self, context, 0)


# -- the registry ---------------------------------------------------------------------------------

_registry_apply = Registry.apply


@_mutant(Registry, "apply", "exactly_once")
def repetition_runs_again(self: Registry, index: int, keyed: commands.Keyed) -> Applied:
    self._outcomes._newest.pop(keyed.key, None)
    return _registry_apply(self, index, keyed)


_from_bytes = Registry.__dict__["from_bytes"].__func__


def _without(part: int, value: Any, data: bytes) -> bytes:
    state = msgspec.msgpack.decode(data)
    state[part] = value
    return msgspec.msgpack.encode(state)


@_mutant(Registry, "from_bytes", "state_equality", "exactly_once")
def snapshot_forgets_outcomes(cls: type[Registry], domain: str, data: bytes) -> Registry:
    return _from_bytes(cls, domain, _without(4, [], data))  # type: ignore[no-any-return]


@_mutant(Registry, "from_bytes", "state_equality")
def snapshot_forgets_broadcast_number(cls: type[Registry], domain: str, data: bytes) -> Registry:
    return _from_bytes(cls, domain, _without(1, 0, data))  # type: ignore[no-any-return]


@_mutant(Outcomes, "remember", "exactly_once")
def outcomes_forgotten_too_early(self: Outcomes, key: str, outcome: Any) -> None:
    if key:
        self._newest[key] = outcome
        while len(self._newest) > 2:
            del self._newest[next(iter(self._newest))]


_update_tenant = TenantChanges._update_tenant


@_mutant(TenantChanges, "_update_tenant", "linearizable")
def acknowledged_update_not_stored(self: Registry, index: int, command: Any) -> Any:
    if index % 5 == 0:
        command = msgspec.structs.replace(command, metadata=None)
    return _update_tenant(self, index, command)


_assign_tenant = TenantChanges._assign_tenant


@_mutant(TenantChanges, "_assign_tenant", "linearizable")
def assignment_by_anybody(self: Registry, index: int, command: Any) -> Any:
    epoch = self.tenant(command.tenant_id).epoch
    command = msgspec.structs.replace(command, expected_epoch=epoch)
    return _assign_tenant(self, index, command)


# -- the group's own members ----------------------------------------------------------------------


@_mutant(SimLinks, "is_former", "leavers_end")
def leavers_are_not_told(self: SimLinks, member: MemberId) -> bool:
    return False


@_mutant(RaftMember, "was_removed", "leavers_end")
def leavers_go_on(self: RaftMember) -> None:
    pass


@_mutant(RaftMember, "_apply_other", "state_equality")
def registry_is_not_told_of_members(self: RaftMember, entry: Entry) -> None:
    self._registry.skip(entry.index)


# -- under them -----------------------------------------------------------------------------------

_write = SimDisk.write


@_mutant(SimDisk, "write", "log_matching", "commit_quorum", "truncation", "no_crash")
def old_tail_left_on_disk(self: SimDisk, batches: list[Batch]) -> None:
    before = list(self.entries)
    _write(self, batches)
    if self.entries and before and before[0].index <= self.entries[0].index:
        self.entries += [entry for entry in before if entry.index > self.entries[-1].index]


@_mutant(SimOperator, "wipe", "monotonic_terms", "durable_before_told")
def wiped_disk_keeps_its_id(self: SimOperator, number: int) -> None:
    names = self.conf().voters
    if names:
        member = self.world.members[names[number % len(names)]]
        member.crash(0)
        member.disk = SimDisk()
        member.start()
