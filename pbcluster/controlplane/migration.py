"""One tenant's move from node to node, as a state machine that any leader can go on with. Pure.

    preparing ──▶ draining ──▶ switching ──▶ done
        └────────────┴─────────────┴──────▶ aborted

* *preparing*: the target restores a copy without owning it; nothing changes for anybody.
* *draining*: gateways hold the tenant's requests, the source lets open ones finish, stops the
  tenant after a last sync and gives it up. Requests that take too long abort the migration.
* *switching*: the target has a new epoch, in the same log entry in which the source lost it. From
  here on the tenant is the target's; what fails now is repaired as any other owner's trouble.
* *done*: the target serves. The old route is kept, at priority 0, until it had no traffic for
  :data:`OLD_ROUTE_S`.

The record is replicated; :data:`TRANSITIONS` is the table of its phases, and every function here
that gives a record is applied in log order. Orders to nodes are no messages of their own: they
stand in the nodes' lists of assignments, which are derived from the record, so that whoever leads
repeats them until they are obeyed. :func:`next_step` is what a leader does next; it is asked again
and again, and every answer may be carried out twice.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime

import attrs
import msgspec

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.errors import Conflict
from pbcluster.records import MigrationPhase, MigrationRecord

#: A restore may take 15 minutes (1 GB takes half a one).
PREPARE_LIMIT_S = 1000.0
#: The source lets open requests finish for 10 s; its stop with a last sync may take as long.
DRAIN_LIMIT_S = 30.0
#: The old route goes after so long without traffic (seed).
OLD_ROUTE_S = 300.0
#: A gateway that does not acknowledge the hold within this time is not waited for: the node holds
#: too, so what it lets through waits there.
HOLD_ACK_S = 0.5
#: A gateway forgets the hold after so long, whatever became of the migration.
HOLD_LIMIT_S = 30.0
MAX_REASON = 300

P = MigrationPhase


class Event(enum.Enum):
    """What happens to a migration."""

    WARMED = "warmed"
    HELD = "held"
    DRAINED = "drained"
    READY = "ready"
    ABORT = "abort"


TRANSITIONS: dict[tuple[MigrationPhase, Event], MigrationPhase] = {
    (P.PREPARING, Event.WARMED): P.PREPARING,
    (P.PREPARING, Event.HELD): P.DRAINING,
    (P.DRAINING, Event.DRAINED): P.SWITCHING,
    (P.SWITCHING, Event.READY): P.DONE,
    (P.PREPARING, Event.ABORT): P.ABORTED,
    (P.DRAINING, Event.ABORT): P.ABORTED,
    (P.SWITCHING, Event.ABORT): P.ABORTED,
}
#: A migration is under way: its tenant can have no other.
ACTIVE = frozenset({P.PREPARING, P.DRAINING, P.SWITCHING})
#: The source is still the owner; an abort gives the tenant back to it.
BEFORE_SWITCH = frozenset({P.PREPARING, P.DRAINING})

# -- what commands make of the record -------------------------------------------------------------


def begun(command: c.StartMigration, index: int, source: str, epoch: int) -> MigrationRecord:
    """The record of a migration that begins at log index ``index``."""
    return MigrationRecord(
        id=command.migration_id,
        tenant_id=command.tenant_id,
        source_node=source,
        target_node=command.target_node,
        source_epoch=epoch,
        phase=P.PREPARING,
        started=command.at,
        updated=command.at,
        version=index,
    )


def after(record: MigrationRecord, event: Event) -> MigrationPhase:
    """The phase that follows. :raises Conflict: the event is not possible in this phase."""
    following = TRANSITIONS.get((record.phase, event))
    if following is None:
        raise Conflict(
            f"migration {record.id} is {record.phase.value}: it cannot be {event.value} any more",
            phase=record.phase.value,
        )
    return following


def _changed(
    record: MigrationRecord, index: int, at: datetime, event: Event, **fields: object
) -> MigrationRecord:
    phase = after(record, event)
    return msgspec.structs.replace(record, phase=phase, version=index, updated=at, **fields)


def warmed(record: MigrationRecord, index: int, command: c.MigrationWarmed) -> MigrationRecord:
    """The target has a copy."""
    return _changed(
        record,
        index,
        command.at,
        Event.WARMED,
        warmed=True,
        warm_bytes=command.size_bytes,
        warm_txid=command.txid,
        warmed_at=command.at,
    )


def held(record: MigrationRecord, index: int, command: c.DrainTenant) -> MigrationRecord:
    """Gateways hold the tenant's requests: the source may drain. :raises Conflict: not warm yet."""
    if not record.warmed:
        raise Conflict(f"the target of migration {record.id} is not warm yet")
    return _changed(
        record,
        index,
        command.at,
        Event.HELD,
        gateways=command.gateways,
        draining_at=command.at,
    )


def drained(
    record: MigrationRecord, index: int, command: c.MigrationDrained, epoch: int
) -> MigrationRecord:
    """The source gave the tenant up; the target has it under ``epoch``."""
    return _changed(
        record,
        index,
        command.at,
        Event.DRAINED,
        final_txid=command.txid,
        settled=command.settled,
        target_epoch=epoch,
        switching_at=command.at,
        old_route=True,
    )


def ready(record: MigrationRecord, index: int, at: datetime) -> MigrationRecord:
    """The target serves."""
    return _changed(record, index, at, Event.READY, ended=at)


def aborted(record: MigrationRecord, index: int, at: datetime, reason: str) -> MigrationRecord:
    """It ends without having moved the tenant, or without its end being waited for."""
    told = reason[:MAX_REASON]
    return _changed(record, index, at, Event.ABORT, ended=at, reason=told, old_route=False)


# -- orders to nodes, derived from the record -----------------------------------------------------


def order_to_source(record: MigrationRecord | None) -> str:
    """``Assignment.handing_over`` of the tenant while the source has it."""
    return record.id if record is not None and record.phase is P.DRAINING else ""


def order_to_target(record: MigrationRecord) -> wire.Warming | None:
    """The target's order to make and keep a copy, until it serves; None: none."""
    if record.phase not in ACTIVE:
        return None
    return wire.Warming(record.tenant_id, record.id, record.source_epoch)


def released_epoch(record: MigrationRecord | None, epoch: int) -> int:
    """``Assignment.released_epoch`` of the owner under ``epoch``."""
    if record is None or record.phase is not P.SWITCHING:
        return 0
    return record.source_epoch if record.settled and epoch == record.target_epoch else 0


# -- what a leader does next ----------------------------------------------------------------------


@attrs.frozen
class Seen:
    """What the leader knows beyond the record.

    :ivar phase_age_s: since it first saw the record as it is (a new leader begins at 0).
    :ivar source_alive: it is not suspected. :ivar target_trouble: why the target cannot take the
        tenant now; empty: it can. :ivar route_quiet_s: since the last request that followed the old
        route, as far as this leader knows.
    """

    phase_age_s: float
    source_alive: bool
    target_trouble: str
    route_quiet_s: float = 0.0


@attrs.frozen
class Hold:
    """Have all gateways hold the tenant, then propose :class:`~.commands.DrainTenant`."""

    tenant_id: str
    migration_id: str
    epoch: int


@attrs.frozen
class Abort:
    """Propose to end it."""

    tenant_id: str
    migration_id: str
    reason: str


@attrs.frozen
class Retire:
    """Propose that the old route goes."""

    tenant_id: str
    migration_id: str


Step = Hold | Abort | Retire


def next_step(record: MigrationRecord, seen: Seen) -> Step | None:
    """What the leader does now; None: somebody else's turn.

    A source that is silent is no reason to abort: its tenants are rescued as any silent node's,
    which ends the migration in the same log entry.
    """
    return _BY_PHASE[record.phase](record, seen)


def _preparing(record: MigrationRecord, seen: Seen) -> Step | None:
    if seen.target_trouble:
        return _abort(record, f"the target {record.target_node} {seen.target_trouble}")
    if record.warmed and seen.source_alive:
        return Hold(record.tenant_id, record.id, record.source_epoch)
    if seen.phase_age_s > PREPARE_LIMIT_S:
        return _abort(record, f"the target was not ready within {PREPARE_LIMIT_S:.0f} s")
    return None


def _draining(record: MigrationRecord, seen: Seen) -> Step | None:
    if seen.target_trouble:
        return _abort(record, f"the target {record.target_node} {seen.target_trouble}")
    if seen.source_alive and seen.phase_age_s > DRAIN_LIMIT_S:
        return _abort(record, f"the source did not drain within {DRAIN_LIMIT_S:.0f} s")
    return None


def _done(record: MigrationRecord, seen: Seen) -> Step | None:
    if record.old_route and seen.route_quiet_s >= OLD_ROUTE_S:
        return Retire(record.tenant_id, record.id)
    return None


def _nothing(record: MigrationRecord, seen: Seen) -> Step | None:
    return None


def _abort(record: MigrationRecord, reason: str) -> Abort:
    return Abort(record.tenant_id, record.id, reason)


_BY_PHASE: dict[MigrationPhase, Callable[[MigrationRecord, Seen], Step | None]] = {
    P.PREPARING: _preparing,
    P.DRAINING: _draining,
    P.SWITCHING: _nothing,
    P.DONE: _done,
    P.ABORTED: _nothing,
}
