"""Holds the writes of one tenant until they may be acknowledged: the shell of ``durability`` and
``degrading``.

It carries out the effects of the two cores: a sync through Litestream, a look at the owner, a flag
that the control plane commits, the release or refusal of held responses. What the cores call a
fence is handed to the tenant.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pbcluster.errors import Unavailable
from pbcluster.node import degrading, durability
from pbcluster.node.degrading import Answer, Degrading, Mode
from pbcluster.node.durability import GroupCommit, Reason
from pbcluster.node.gathering import Gathering
from pbcluster.node.interfaces import Owner, OwnerSeen
from pbcluster.node.ownership import still_ours
from pbcluster.node.parts import NodeParts, pause, spawn
from pbcluster.records import Durability
from pbcluster.wire import Assignment, TenantReport

log = Logger()

#: A sync that has not answered by then counts as failed: writes wait no longer while S3 is away.
SYNC_TIMEOUT_S = durability.OUTAGE_WAIT_S
#: So does a look at the owner.
CHECK_TIMEOUT_S = durability.OUTAGE_WAIT_S
#: A sync that takes longer is a reason to find out whether S3 is away.
SLOW_SYNC_S = 1.0
#: A flag whose fate is unknown is asked about again after so long.
FLAG_RETRY_S = 0.5
#: Writes wait so long for the flag.
FLAG_WAIT_S = 3.5


class Level(enum.Enum):
    """How durable an acknowledged write is; the value of ``X-PBCluster-Durability``."""

    S3 = "s3"
    ASYNC = "async"
    LOCAL = "local"


class Withheld(Unavailable):
    """The write was carried out here but may not be acknowledged: whether it lasts is unknown.

    Its text goes to the tenant's clients: it names no path and no address of ours.
    """

    code = "not_durable"

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"the write could not be made durable: {reason.value} {detail}".strip())
        self.reason = reason


def strictest(assignment: Assignment) -> Durability:
    """How its writes are acknowledged while a change is under way."""
    both = (assignment.durability, assignment.wanted_durability or assignment.durability)
    return Durability.SYNC if Durability.SYNC in both else Durability.ASYNC


class Acknowledger:
    """The held writes of one tenant that serves under one claim."""

    def __init__(
        self,
        parts: NodeParts,
        *,
        assignment: Assignment,
        owner: Owner,
        database: Path,
        fence: Callable[[str, OwnerSeen | None], None],
        proven: Callable[[], bool],
        gathering: Gathering,
    ) -> None:
        """
        :param database: the file that is replicated; it exists.
        :param fence: called with a reason, and what the owner object showed if it was looked at,
            when everything of the tenant must be stopped at once.
        :param proven: whether a proof of ownership is held now.
        :param gathering: the tenant's writes that PocketBase has.
        """
        self._parts = parts
        self._assignment = assignment
        self._tenant_id = assignment.tenant_id
        self._owner = owner
        self._database = database
        self._fence = fence
        self._proven = proven
        self._held: dict[int, Deferred[Level]] = {}
        self._tickets = 0
        self._seen: OwnerSeen | None = None
        self._identity_at_start = self._identity() or (0, 0)
        self._core = GroupCommit(strictest(assignment), self._identity_at_start, gathering)
        self._outage = Degrading(assignment.on_s3_outage, flagged=assignment.degraded)
        self._flag_keys: dict[bool, str] = {}
        self._timers: set[IDelayedCall] = set()
        #: Sync round → where the database stood just before it began.
        self._positions: dict[int, bytes | None] = {}
        self._durable_position: bytes | None = None
        self._settle_from: float | None = None
        self._covered_at = parts.boottime()
        self._ended = False

    def begin(self) -> None:
        """Call it once, after the first sync: everything is in S3 at this moment."""
        self._run_outage(self._outage.begin())
        self._want_settled()

    @property
    def waiting(self) -> int:
        """Writes held now."""
        return len(self._held)

    @property
    def file(self) -> tuple[int, int]:
        """Device and inode of the database that is replicated."""
        return self._identity_at_start

    @property
    def replaced(self) -> bool:
        """Whether another file stands in its place."""
        return not self._ended and self._identity() != self._identity_at_start

    @property
    def mode(self) -> Mode:
        """What becomes of its writes while S3 is away."""
        return self._outage.mode

    @property
    def only_here(self) -> bool:
        """Whether acknowledged writes are perhaps on this disk only."""
        return self._outage.only_here or self._core.unsynced_since is not None

    def lag_s(self) -> float:
        """For how long acknowledged writes have not all been in S3; 0: they are."""
        return self._parts.boottime() - self._covered_at if self.only_here else 0.0

    # -- requests --

    async def acknowledge(self) -> Level:
        """Wait until a write whose response arrived just now may be acknowledged.

        :raises Withheld: it may not.
        """
        if self._outage.local:
            return self._release_locally()
        return await self._wait(strictly=False)

    def acknowledge_at_once(self) -> Level | None:
        """As :meth:`acknowledge` where nothing has to be waited for; None: perhaps it has to."""
        if self._outage.local or not self._core.passes_at_once(self._now()):
            return None
        self._parts.observer.acknowledged(0.0)
        return Level.ASYNC

    def read_may_pass(self) -> bool:
        """Whether nothing was committed since the last sync that is known to be durable: what a
        read has shown lasts. Costs one ``pread``."""
        position = self._parts.directories.database_position(self._tenant_id)
        return position is not None and position == self._durable_position

    async def acknowledge_read(self) -> Level:
        """Wait until all that a read may have shown is durable. :raises Withheld: it is not."""
        if self._outage.local:
            return Level.LOCAL
        if self.read_may_pass():
            return Level.S3
        return await self._wait(strictly=True)

    def _release_locally(self) -> Level:
        """:raises Withheld: not under a proof, or another file stands there."""
        if not self._proven():
            raise Withheld(Reason.OWNER_UNKNOWN)
        if self._identity() != self._identity_at_start:
            self._run((durability.Fence(Reason.DATABASE_REPLACED),))
            raise Withheld(Reason.DATABASE_REPLACED)
        now = self._parts.boottime()
        self._outage.released_locally(now)
        self._core.released(now)
        return Level.LOCAL

    async def _wait(self, *, strictly: bool) -> Level:
        self._tickets += 1
        ticket, began = self._tickets, self._parts.boottime()
        held: Deferred[Level] = Deferred()
        self._held[ticket] = held
        self._run(self._core.responded(ticket, began, strictly=strictly))
        try:
            level = await held
        except Withheld as error:
            self._parts.observer.withheld(error.reason.value)
            raise
        self._parts.observer.acknowledged(self._parts.boottime() - began)
        return level

    # -- its life --

    def tick(self) -> None:
        """Each second: the background sync of what is not in S3 yet."""
        now = self._parts.boottime()
        if self._outage.wants_sync or self._settle_from is not None:
            self._run(self._core.force(now))
        self._run(self._core.tick(now))

    def assigned(self, assignment: Assignment) -> None:
        """The control plane's list says this now (same epoch)."""
        before, self._assignment = self._assignment, assignment
        if strictest(before) is not strictest(assignment):
            self._run(self._core.change(strictest(assignment), self._parts.boottime()))
        changed = self._outage.assigned(assignment.on_s3_outage, flagged=assignment.degraded)
        self._run_outage(changed)
        if before.wanted_durability is not assignment.wanted_durability:
            self._want_settled()

    def _want_settled(self) -> None:
        self._settle_from = None
        if self._assignment.wanted_durability is not None:
            self._settle_from = self._parts.boottime()
            self._run(self._core.force(self._settle_from))

    def stop(self, reason: Reason) -> None:
        """Acknowledge nothing any more."""
        self._ended = True
        self._run(self._core.stop(reason))
        self._refuse(self._outage.parked, reason, "")
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # -- effects --

    def _run(self, effects: durability.Effects) -> None:
        for effect in effects:
            match effect:
                case durability.BeginSync(round):
                    position = self._parts.directories.database_position(self._tenant_id)
                    self._positions[round] = position
                    spawn(self._sync(round, effect.within_s), f"sync of {self._tenant_id}")
                case durability.CheckOwner(round):
                    spawn(self._check(round), f"owner check of {self._tenant_id}")
                case durability.Release(tickets):
                    self._release(tickets, Level.ASYNC if effect.early else Level.S3)
                case durability.Covered(began):
                    self._covered(effect.round, began)
                case durability.Expired(tickets, _, detail):
                    self._run_outage(self._outage.expired(tickets, detail))
                case durability.Later(seconds):
                    self._later(seconds, lambda: self._run(self._core.retry(self._now())))
                case durability.Gather(seconds, round):
                    self._later(seconds, partial(self._gathered, round))
                case durability.Withhold(tickets, reason, detail):
                    self._refuse(tickets, reason, detail)
                case durability.Fence(reason):
                    self._fence(reason.value, self._seen)

    def _gathered(self, round: int) -> None:
        self._run(self._core.gathered(round, self._now()))

    def _run_outage(self, effects: degrading.Effects) -> None:
        for effect in effects:
            if self._ended:
                return
            match effect:
                case degrading.CommitFlag(degraded):
                    spawn(self._commit(degraded), f"degraded flag of {self._tenant_id}")
                case degrading.ReleaseLocally(tickets):
                    self._let_go_locally((*tickets, *self._core.take_waiting()))
                case degrading.Refuse(tickets, detail):
                    self._refuse(tickets, Reason.S3_AWAY, detail)
                case degrading.SyncAgain():
                    self._run(self._core.force(self._now()))

    def _now(self) -> float:
        return self._parts.boottime()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            call()

        timer = self._parts.clock.callLater(seconds, fire)
        self._timers.add(timer)

    def _release(self, tickets: tuple[int, ...], level: Level) -> None:
        for ticket in tickets:
            self._held.pop(ticket).callback(level)

    def _let_go_locally(self, tickets: tuple[int, ...]) -> None:
        for ticket in tickets:
            try:
                self._release((ticket,), self._release_locally())
            except Withheld as error:
                self._refuse((ticket,), error.reason, "")

    def _refuse(self, tickets: tuple[int, ...], reason: Reason, detail: str) -> None:
        for ticket in tickets:
            held = self._held.pop(ticket, None)
            if held is not None:
                held.errback(Withheld(reason, detail))

    def _covered(self, round: int, began: float) -> None:
        position = self._positions.pop(round, None)
        self._positions = {key: at for key, at in self._positions.items() if key > round}
        self._durable_position = position
        self._covered_at = max(self._covered_at, began)
        self._run_outage(self._outage.covered(began))
        wanted = self._assignment.wanted_durability
        if self._settle_from is not None and began >= self._settle_from and wanted is not None:
            self._settle_from = None
            self._report_settled(wanted)

    def _report_settled(self, wanted: Durability) -> None:
        self._parts.report(
            TenantReport(
                node_id=self._parts.node_id,
                incarnation=0,
                tenant_id=self._tenant_id,
                epoch=self._owner.epoch,
                outcome="settled",
                detail=wanted.value,
            )
        )

    # -- the outside --

    async def _sync(self, round: int, within_s: float) -> None:
        began = self._parts.boottime()
        slow = self._watch_slow()
        try:
            await self._parts.replication.sync(self._database, timeout_s=within_s)
        except Exception as error:  # even a bug there must not hold writes for ever
            log.warn("{tenant}: sync failed: {error}", tenant=self._tenant_id, error=error)
            why, away = type(error).__name__, await self._parts.outages.away()
            failed_at, file = self._parts.boottime(), self._identity()
            self._run(self._core.sync_failed(round, failed_at, why, file, away=away))
            return
        finally:
            slow.cancel()
        now = self._parts.boottime()
        self._parts.observer.synced(now - began)
        self._run(self._core.sync_succeeded(round, now, self._identity()))

    def _watch_slow(self) -> Deferred[None]:
        async def watch() -> None:
            while True:
                await pause(self._parts.clock, SLOW_SYNC_S)
                self._parts.outages.suspect()

        return spawn(watch(), f"slow sync of {self._tenant_id}")

    def _identity(self) -> tuple[int, int] | None:
        return self._parts.directories.database_identity(self._tenant_id)

    async def _check(self, round: int) -> None:
        sent = self._parts.boottime()
        asked = Deferred.fromCoroutine(self._parts.claims.read_owner(self._tenant_id))
        try:
            seen = await asked.addTimeout(CHECK_TIMEOUT_S, self._parts.clock)
        except (CancelledError, DeferredTimeout, Exception) as error:  # as above
            log.warn("{tenant}: owner unknown: {error}", tenant=self._tenant_id, error=error)
            why, away = type(error).__name__, await self._parts.outages.away()
            self._run(self._core.owner_unknown(round, self._parts.boottime(), why, away=away))
            return
        ours = still_ours(self._owner, seen)
        if ours:
            self._parts.proofs.head_seen(self._tenant_id, self._owner.epoch, sent)
        else:
            self._seen = seen
        self._run(self._core.owner_checked(round, self._parts.boottime(), ours=ours))

    async def _commit(self, degraded: bool) -> None:
        """One question; the key is kept until its fate is known."""
        repeated = degraded in self._flag_keys
        key = self._flag_keys.setdefault(degraded, self._parts.new_nonce())
        if repeated:
            await pause(self._parts.clock, FLAG_RETRY_S)
        if self._ended:
            return
        limit = self._parts.clock.callLater(
            FLAG_WAIT_S, lambda: self._run_outage(self._outage.give_up_waiting())
        )
        try:
            answer = await self._parts.outages.commit_flag(
                self._tenant_id, self._owner.epoch, degraded=degraded, key=key
            )
        finally:
            if limit.active():
                limit.cancel()
        if degraded or answer is not Answer.UNKNOWN:
            self._flag_keys.pop(degraded, None)
        if not self._ended:
            self._run_outage(self._outage.flag_answered(degraded, answer))


async def cover(
    parts: NodeParts,
    tenant_id: str,
    owner: Owner,
    database: Path,
    fence: Callable[[str, OwnerSeen | None], None],
) -> None:
    """Return when everything committed before this call is in S3 under ``owner``'s claim.

    :param fence: as for :class:`Acknowledger`.
    :raises PBClusterError: it cannot be said that it is.
    """
    before = parts.directories.database_identity(tenant_id)
    await parts.replication.sync(database, timeout_s=SYNC_TIMEOUT_S)
    if before is None or parts.directories.database_identity(tenant_id) != before:
        raise Withheld(Reason.DATABASE_REPLACED)
    seen = await parts.claims.read_owner(tenant_id)
    if not still_ours(owner, seen):
        fence(Reason.OWNERSHIP_LOST.value, seen)
        raise Withheld(Reason.OWNERSHIP_LOST)
