"""The planted bugs: each leaves out one rule of "Ownership", in production code where it has the
rule, else in the model that stands for it (``files``)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from pbcluster.controlplane.liveness import Liveness
from pbcluster.node import acks, prover
from pbcluster.node.assignments import Assignments, Change
from pbcluster.node.claims import S3ClaimStore
from pbcluster.node.degrading import Degrading, Mode, ReleaseLocally
from pbcluster.node.durability import GroupCommit, Release
from pbcluster.node.heartbeat import Standing
from pbcluster.node.interfaces import Owner, OwnerSeen, OwnerState, Prefixes, Written
from pbcluster.node.ownership import Claim, ClaimStep
from pbcluster.node.proofs import Proofs
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenant_replication import TenantReplication
from pbcluster.node.tenants import Tenants
from pbcluster.records import Durability
from pbcluster.testing.node_fakes.directories import FakeDirectories, FakeLock
from pbcluster.testing.node_fakes.replication import FakeReplication
from pbcluster.testing.ownership_sim.files import Files
from pbcluster.testing.ownership_sim.planting import Mutant, planting
from pbcluster.testing.ownership_sim.storage import SimReplication
from pbcluster.wire import AssignmentChanges, LeaseAck, NodeAssignments

MUTANTS: list[Mutant] = []
_mutant = partial(planting, MUTANTS)
_LOST = ("nothing_lost", "no_stale_read", "ack_is_durable")
_TWO = ("one_owner", "no_stale_read")


# ruff: noqa: D103 -- the name of a mutant says what is wrong with it

# -- rule 2: the claim ------------------------------------------------------

_owner_read = Claim.owner_read
_owner_written = Claim.owner_written
_write_owner = S3ClaimStore.write_owner


@_mutant(Claim, "owner_read", "epochs_grow", "recovers", "one_writer")
def epoch_compared_as_text(self: Claim, seen: OwnerSeen | None) -> ClaimStep:
    if seen is None or seen.owner.nonce == self._wanted.nonce:
        return _owner_read(self, seen)
    self._replaced_somebody = True
    if str(seen.owner.epoch) >= str(self._wanted.epoch):
        return self._refuse(seen.owner.epoch, "its text is higher")
    return self._write(seen.etag)


@_mutant(Claim, "owner_read", "tombstone_stands")
def terminal_state_ignored(self: Claim, seen: OwnerSeen | None) -> ClaimStep:
    if seen is not None and seen.owner.state is OwnerState.DELETED:
        return self._write(seen.etag)
    return _owner_read(self, seen)


@_mutant(S3ClaimStore, "write_owner", "one_writer", "one_owner", "no_stale_read")
async def lost_claim_taken_for_won(
    self: S3ClaimStore, tenant_id: str, owner: Owner, expected_etag: str
) -> Written:
    written = await _write_owner(self, tenant_id, owner, expected_etag)
    return Written.WON if written is Written.UNKNOWN else written


@_mutant(Claim, "owner_written", "own_claim_known")
def lost_answer_taken_for_lost_claim(self: Claim, written: Written) -> ClaimStep:
    if written is Written.UNKNOWN:
        return self._refuse(self._wanted.epoch, "somebody owns it")
    return _owner_written(self, written)


# -- rule 3: restore --------------------------------------------------------

_prefixes = S3ClaimStore.prefixes


@_mutant(S3ClaimStore, "prefixes", "ready_restored", "nothing_lost")
async def restored_without_ready(self: S3ClaimStore, tenant_id: str) -> Prefixes:
    found = await _prefixes(self, tenant_id)
    return Prefixes(found.highest, found.highest)


_register = SimReplication.register


@_mutant(SimReplication, "register", "one_writer", "nothing_lost", "no_stale_read")
async def prefix_shared_by_epochs(
    self: SimReplication, tenant_id: str, epoch: int, database: Path
) -> None:
    await _register(self, tenant_id, max(1, epoch - epoch % 3), database)


# -- rule 4: resume ---------------------------------------------------------


@_mutant(FakeReplication, "local_txid", *_LOST)
def reverted_copy_resumed(self: FakeReplication, database: Path) -> int:
    return 10**9


@_mutant(FakeDirectories, "lock", "no_internal_error")
def lock_not_taken(self: FakeDirectories, tenant_id: str) -> FakeLock:
    return FakeLock(self, tenant_id)


# -- what a node is told to own ---------------------------------------------

_obey_list = Assignments.obey


@_mutant(Assignments, "obey", *_TWO, "one_writer", "recovers")
def changes_to_any_list_obeyed(
    self: Assignments, new: NodeAssignments | AssignmentChanges
) -> Change | None:
    if isinstance(new, AssignmentChanges):
        new = msgspec.structs.replace(new, since=(self._list_id,))
    return _obey_list(self, new)


# -- rule 5: proofs ---------------------------------------------------------


_acked = Standing._acked


@_mutant(Standing, "_acked", *_TWO)
def proof_aged_from_its_answer(
    self: Standing, sent: float, incarnation: int, ack: LeaseAck
) -> None:
    _acked(self, self._boottime(), incarnation, ack)


@_mutant(Standing, "_acked", *_TWO)
def lease_covers_all(self: Standing, sent: float, incarnation: int, ack: LeaseAck) -> None:
    self._proofs.lease_acked(sent, granted=True, index=self._proofs.obeyed_index)


@_mutant(Liveness, "may_give_away", *_TWO)
def no_margin(self: Liveness, node_id: str, now: float) -> bool:
    node = self._nodes.get(node_id)
    return node is None or node.suspected_at is not None


@_mutant(Liveness, "may_renew", *_TWO)
def older_start_not_waited_for(self: Liveness, node_id: str, now: float) -> bool:
    return True


_claimed = Proofs.claimed


@_mutant(Proofs, "claimed", *_TWO)
def no_wait_after_the_claim(
    self: Proofs, tenant_id: str, epoch: int, now: float, *, first: bool
) -> None:
    _claimed(self, tenant_id, epoch, now, first=True)


@_mutant(prover, "still_ours", *_TWO)
def any_owner_proves(owner: Owner, seen: OwnerSeen | None) -> bool:
    return seen is not None


# -- rules 6 and 7: acknowledgements ----------------------------------------

_responded = GroupCommit.responded


@_mutant(GroupCommit, "responded", "ack_is_durable")
def acknowledged_before_the_sync(
    self: GroupCommit, ticket: int, now: float, *, strictly: bool = False
) -> Any:
    return (Release((ticket,)),)


@_mutant(acks, "still_ours", *_LOST)
def no_look_at_the_owner_after_the_sync(owner: Owner, seen: OwnerSeen | None) -> bool:
    return True


_sync_succeeded = GroupCommit.sync_succeeded


@_mutant(GroupCommit, "sync_succeeded", "ack_is_durable")
def replaced_database_not_noticed(
    self: GroupCommit, round: int, now: float, identity: tuple[int, int] | None
) -> Any:
    return _sync_succeeded(self, round, now, self._identity)


@_mutant(GroupCommit, "responded", "async_bound")
def loss_bound_ignored(
    self: GroupCommit, ticket: int, now: float, *, strictly: bool = False
) -> Any:
    if self._durability is Durability.ASYNC and not self._ended:
        self.released(now)
        return (Release((ticket,), early=True),)
    return _responded(self, ticket, now, strictly=strictly)


# -- rule 8: degrading ------------------------------------------------------

_covered = Degrading.covered


@_mutant(Degrading, "expired", "local_is_committed")
def degraded_before_the_commit(self: Degrading, tickets: tuple[int, ...], detail: str) -> Any:
    self._mode = Mode.LOCAL
    return (ReleaseLocally(tickets),)


@_mutant(Degrading, "covered", "flag_ends_durable")
def flag_ended_by_any_sync(self: Degrading, began: float) -> Any:
    if self._mode in (Mode.ASKING, Mode.CLEARING):
        return ()
    self._last_local = None
    return _covered(self, began)


# -- files ------------------------------------------------------------------


@_mutant(Files, "is_due", "files_present")
def file_deleted_before_the_sync(covered: bool, waited_s: float) -> bool:
    return True


# -- rule 10 and 11: the end ------------------------------------------------

_end = Tenants._end


@_mutant(Tenants, "_end", "released_is_over")
async def released_before_the_end(
    self: Tenants, tenant: Tenant, before: Deferred[None] | None, *, released: bool
) -> None:
    if released:
        self._report(tenant, "released")
    await _end(self, tenant, before, released=False)


# -- a tenant that replaces its own database (rule 9) -----------------------


@_mutant(TenantReplication, "_check_not_replaced", "ack_is_durable")
def replaced_before_the_first_sync(self: TenantReplication) -> None:
    return None
