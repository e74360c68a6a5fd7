"""One tenant on this node, under one assignment: from S3 to a PocketBase that serves, and back.

What holds:

* One load, restart or stop is under way at a time; nothing but this tenant's own turn is held while
  S3 or a process is waited for.
* The order of a new epoch is: claim, restore, forget Litestream's metadata, note the claim, start,
  register under the new prefix, first sync, READY, serve writes. Reads may come earlier.
* :meth:`Tenant.fence` stops answering within the same call; the processes are killed right after.
* A stop keeps the data and the claim note: a warm copy, resumed only if ``ownership`` trusts it.

It does not decide when to load or to stop (``tenants`` does), and knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from pbcluster.errors import (
    ClaimRefused,
    OwnershipLost,
    PBClusterError,
    ProcessFailed,
    S3Unavailable,
    Unavailable,
)
from pbcluster.node.acks import Acknowledger, Withheld
from pbcluster.node.copies import Copies, Copy
from pbcluster.node.durability import Reason
from pbcluster.node.interfaces import (
    DirectoryLock,
    Owner,
    OwnerSeen,
    Ready,
    RunningWorkload,
    WorkloadSpec,
)
from pbcluster.node.lifecycle import READABLE, Crashes, Event, Life, State
from pbcluster.node.ownership import still_ours
from pbcluster.node.parts import Changes, NodeParts, pause, spawn
from pbcluster.node.proofs import Held, TooEarly
from pbcluster.wire import Assignment, TenantReport

log = Logger()

#: Requests that may wait for one tenant to load (the gateway holds as many).
MAX_HELD = 1000
#: The first sync of an epoch may carry the whole database.
FIRST_SYNC_TIMEOUT_S = 120.0
#: While S3 is away a first sync is tried again after so long.
FIRST_SYNC_RETRY_S = 1.0
#: A load that failed is tried again after so long, doubling.
LOAD_RETRY_S = 0.5
LOAD_RETRY_MAX_S = 15.0


class NoProof(Unavailable):
    """It cannot be proven now that this node owns the tenant; nothing was processed."""

    code = "no_proof"


class _Abandoned(Exception):
    """The load ends because the tenant must go; who asked for it cleans up."""


class Tenant:
    """See the module.

    :ivar assignment: what the control plane said last; its epoch never changes here.
    :ivar changes: fires at every change of state, and when serving begins to end.
    :ivar refused_by: not 0: this assignment is over; a new epoch must exceed this one.
    :ivar retry_at: time of the clock before which a failed load is not tried again.
    """

    def __init__(self, assignment: Assignment, incarnation: int, parts: NodeParts) -> None:
        self.assignment = assignment
        self.life = Life()
        self.changes = Changes(parts.clock, MAX_HELD)
        self.refused_by = 0
        self.retry_at = 0.0
        self._parts = parts
        self._database = parts.directories.path(assignment.tenant_id) / "data" / "data.db"
        self._copies = Copies(parts, incarnation, self._database)
        self._turn = DeferredLock()
        self._leaving = False
        self._over = False
        self._fenced = False
        self._owner: Owner | None = None
        self._ready_written = False
        self._lock: DirectoryLock | None = None
        self._workload: RunningWorkload | None = None
        self._registered = False
        #: Between its registration and the end of its first sync and READY.
        self._registering = False
        #: The file that PocketBase was started on: no other one is replicated under this claim.
        self._replicated: tuple[int, int] | None = None
        self._acks: Acknowledger | None = None
        self._crashes = Crashes()
        self._failures = 0
        self._lookers: list[Deferred[None]] | None = None

    # -- what it is --

    @property
    def tenant_id(self) -> str:
        """Its id."""
        return self.assignment.tenant_id

    @property
    def epoch(self) -> int:
        """The epoch of its assignment."""
        return self.assignment.epoch

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self.life.state

    @property
    def leaving(self) -> bool:
        """Whether it is being stopped or was fenced."""
        return self._leaving or self._over or self._fenced

    @property
    def can_load(self) -> bool:
        """Whether a load makes sense at all under this assignment."""
        idle = self.state in (State.ABSENT, State.FAILED)
        return idle and not self.leaving and not self.refused_by

    @property
    def waiting_writes(self) -> int:
        """Writes held now."""
        return self._acks.waiting if self._acks is not None else 0

    def upstream(self, *, write: bool) -> tuple[str, int] | None:
        """Host and port of its PocketBase if it may be asked now (under a proof), else None."""
        if self._workload is None or self.leaving:
            return None
        if self.state is State.ACTIVE or (self.state in READABLE and not write):
            return self._workload.host, self._workload.port
        return None

    def tick(self) -> None:
        """Each second."""
        if self._acks is not None:
            self._acks.tick()

    # -- proofs and acknowledgements --

    def proven(self) -> bool:
        """Whether a proof is held right now; costs no I/O."""
        verdict = self._parts.proofs.judge(self.tenant_id, self.epoch, self._parts.boottime())
        if self._fenced or not isinstance(verdict, Held):
            return False
        self._parts.observer.proof(verdict.basis.value)
        return True

    async def prove(self) -> None:
        """Get a proof: wait out a young claim, else read the owner object.

        :raises OwnershipLost: the owner object shows another claim; the tenant was fenced.
        :raises NoProof: it cannot be told now.
        """
        while not self.proven() and not self._fenced:
            now = self._parts.boottime()
            verdict = self._parts.proofs.judge(self.tenant_id, self.epoch, now)
            if isinstance(verdict, TooEarly):
                await pause(self._parts.clock, max(verdict.at - now, 0.001))
                continue
            await self._look()
            break
        if self._fenced:
            raise OwnershipLost("this node does not own the tenant any more")
        if not self.proven():
            self._parts.observer.proof("missing")
            raise NoProof("ownership of this tenant cannot be proven now")

    async def _look(self) -> None:
        """Read the owner object; all that ask meanwhile share it. A failure leaves no proof."""
        waiting: Deferred[None] = Deferred()
        if self._lookers is None:
            self._lookers = [waiting]
            spawn(self._look_at_owner(), f"owner look-up of {self.tenant_id}")
        else:
            self._lookers.append(waiting)
        await waiting

    async def _look_at_owner(self) -> None:
        owner, sent = self._owner, self._parts.boottime()
        try:
            seen = await self._parts.claims.read_owner(self.tenant_id)
            if owner is not None and still_ours(owner, seen):
                self._parts.proofs.head_seen(self.tenant_id, self.epoch, sent)
            elif owner is not None and self._owner is owner:
                self.fence(Reason.OWNERSHIP_LOST.value, seen)
        except PBClusterError as error:
            log.warn("{tenant}: no proof: {error}", tenant=self.tenant_id, error=error)
        finally:
            lookers, self._lookers = self._lookers or [], None
            for waiting in lookers:
                waiting.callback(None)

    async def acknowledge(self) -> None:
        """Wait until a write answered by PocketBase just now may be acknowledged.

        :raises Withheld: it may not.
        """
        if self._acks is None or self._fenced:
            raise Withheld(Reason.OWNERSHIP_LOST if self._fenced else Reason.STOPPED)
        await self._acks.acknowledge()

    # -- load --

    async def load(self) -> None:
        """Bring it to ``active``; returns when it is, or when it failed (see ``life``)."""
        await self._turn.acquire()
        try:
            if not self.can_load:
                return
            began = self._parts.boottime()
            self._happened(Event.LOAD_WANTED)
            copy = await self._own()
            await self._serve(copy)
            self._failures = 0
            self._parts.observer.loaded(copy.how, self._parts.boottime() - began)
            self._report("ready")
        except _Abandoned:
            pass
        except Exception as error:
            await self._load_failed(error)
        finally:
            self._turn.release()

    async def _own(self) -> Copy:
        """Make the tenant ours, with a copy on the disk that may be served."""
        self._lock = self._parts.directories.lock(self.tenant_id)
        note = self._parts.directories.claim_note(self.tenant_id)
        if note is not None and note.epoch == self.epoch:
            copy = await self._copies.resume(
                self.assignment, note, ready_written=self._ready_written
            )
            self._go_on()
            self._owner = copy.owner
            self._happened(Event.RESUMED)
            return copy
        won = await self._copies.claim(self.assignment, self._go_on)
        self._owner = won.owner
        self._happened(Event.CLAIM_WON)
        copy = await self._copies.make(self.tenant_id, won, self._go_on)
        self._happened(Event.COPY_READY)
        return copy

    async def _serve(self, copy: Copy) -> None:
        """Start PocketBase on the copy and bring it to ``active``, again if it ends meanwhile."""
        while True:
            await self._start_workload(copy)
            self._happened(Event.WORKLOAD_ANSWERED)
            if await self._first_sync(copy):
                self._happened(Event.SYNCED)
                return
            await self._before_restart()

    async def _start_workload(self, copy: Copy) -> None:
        first_start = not (self.assignment.ever_ready or copy.parent or copy.ready)
        spec = WorkloadSpec(
            tenant_id=self.tenant_id,
            directory=self._parts.directories.path(self.tenant_id),
            encryption_key=self._parts.encryption_key(self.tenant_id),
            hosts=self.assignment.hosts,
            superuser=self.assignment.initial_superuser if first_start else None,
        )
        if not self._registered:
            self._replicated = self._parts.directories.database_identity(self.tenant_id)
        workload = await self._parts.workloads.start(spec)
        self._workload = workload
        workload.when_ended(lambda reason: self._workload_ended(workload, reason))
        self._go_on()

    async def _first_sync(self, copy: Copy) -> bool:
        """Register, sync, READY; waits as long as S3 is away. False: PocketBase ended meanwhile."""
        workload = self._workload
        while self._workload is workload and workload is not None:
            try:
                if not self._registered:
                    self._registering = True
                    await self._replicate(copy)
                self._go_on()
                return self._workload is workload
            except S3Unavailable as error:
                # The next attempt registers it anew.
                log.warn("{tenant}: first sync: {error}", tenant=self.tenant_id, error=error)
            finally:
                self._registering = False
            await pause(self._parts.clock, FIRST_SYNC_RETRY_S)
            self._go_on()
        return False

    async def _replicate(self, copy: Copy) -> None:
        replication = self._parts.replication
        self._check_not_replaced()
        await replication.register(self.tenant_id, self.epoch, self._database)
        acks = Acknowledger(
            self._parts,
            tenant_id=self.tenant_id,
            owner=copy.owner,
            database=self._database,
            durability=self.assignment.durability,
            fence=self.fence,
        )
        txid = await replication.sync(self._database, timeout_s=FIRST_SYNC_TIMEOUT_S)
        self._go_on()
        self._check_not_replaced()
        if not (copy.ready or self._ready_written):
            ready = Ready(parent=copy.parent, txid=txid, at=self._parts.utc_now().isoformat())
            await self._parts.claims.write_ready(self.tenant_id, self.epoch, ready)
        self._acks, self._ready_written, self._registered = acks, True, True

    def _check_not_replaced(self) -> None:
        """A file that took data.db's place since PocketBase started is not what was restored; and a
        sync that succeeded may have been of the former one.

        :raises ClaimRefused: it happened.
        """
        identity = self._parts.directories.database_identity(self.tenant_id)
        if self._replicated is None:
            self._replicated = identity  # an empty start: PocketBase made it
        elif identity != self._replicated:
            told = "the database was replaced before its first sync"
            raise ClaimRefused(told, observed_epoch=self.epoch)

    def _go_on(self) -> None:
        if self.leaving:
            raise _Abandoned

    async def _load_failed(self, error: Exception) -> None:
        if not isinstance(error, PBClusterError):
            log.failure("{tenant} cannot be loaded", tenant=self.tenant_id)
        cause = str(error) or type(error).__name__
        await self._tear_down(kill=False)
        if isinstance(error, ClaimRefused):
            self.refused_by = max(int(error.data["observed_epoch"]), self.epoch)
            self._parts.proofs.forget(self.tenant_id, self.epoch)
            self._report("refused", observed_epoch=self.refused_by, detail=cause)
        elif self._failures == 0:
            self._report("failed", detail=cause)
        delay: float = min(LOAD_RETRY_S * 2**self._failures, LOAD_RETRY_MAX_S)
        self.retry_at = self._parts.clock.seconds() + delay
        self._failures = min(self._failures + 1, 16)
        self._parts.observer.load_failed(type(error).__name__)
        log.error("{tenant} failed: {cause}", tenant=self.tenant_id, cause=cause)
        self._happened(Event.FAILED, cause)

    # -- PocketBase ends by itself --

    def _workload_ended(self, workload: RunningWorkload, reason: str) -> None:
        if self._workload is not workload:
            return
        self._workload = None
        self.life.cause = reason
        log.warn("{tenant}: PocketBase ended: {reason}", tenant=self.tenant_id, reason=reason)
        if self.state is State.ACTIVE and not self.leaving:
            spawn(self._restart(), f"restart of {self.tenant_id}")

    async def _restart(self) -> None:
        await self._turn.acquire()
        try:
            if self.state is not State.ACTIVE or self._owner is None or self._workload is not None:
                return
            await self._before_restart()
            await self._serve(Copy(self._owner, "warm", parent=0, ready=True))
        except _Abandoned:
            pass
        except Exception as error:
            await self._load_failed(error)
        finally:
            self._turn.release()

    async def _before_restart(self) -> None:
        """:raises ProcessFailed: it ended too often."""
        self._happened(Event.WORKLOAD_ENDED)
        delay = self._crashes.add(self._parts.clock.seconds())
        if delay is None:
            self._crashes.clear()
            raise ProcessFailed(f"PocketBase ends again and again; last: {self.life.cause}")
        await pause(self._parts.clock, delay)
        self._go_on()

    # -- the end --

    def begin_leaving(self, *, for_good: bool = False) -> None:
        """No request is handed on any more; what is open may still finish, until :meth:`stop`.

        :param for_good: it will not be loaded again under this assignment.
        """
        self._leaving = True
        self._over = self._over or for_good
        if self.state is State.ACTIVE:
            self.life.happened(Event.STOP_WANTED)
        self.changes.fire()

    async def stop(self) -> None:
        """End its processes after a last sync; the data stays as a warm copy.

        It may be loaded again, unless it was leaving for good.
        """
        self.begin_leaving()
        await self._end(kill=self._fenced)
        self._leaving = False
        self.changes.fire()

    def fence(self, reason: str, seen: OwnerSeen | None) -> None:
        """It is not ours, or its replica is not of its database: stop answering now, then kill."""
        if self._fenced:
            return
        self._fenced = True
        self.refused_by = max(seen.owner.epoch if seen is not None else 0, self.epoch)
        self.life.cause = reason
        self._parts.proofs.forget(self.tenant_id, self.epoch)
        self._parts.observer.fenced()
        log.error("{tenant} is fenced: {reason}", tenant=self.tenant_id, reason=reason)
        self._report("refused", observed_epoch=self.refused_by, detail=reason)
        if self._acks is not None:
            self._acks.stop(Reason.OWNERSHIP_LOST)
        self.begin_leaving()
        if self._workload is not None:  # now, whatever is under way; _end cleans up after it
            spawn(self._workload.kill(), f"kill of {self.tenant_id}")
        spawn(self._end(kill=True), f"end of {self.tenant_id}")

    async def _end(self, *, kill: bool) -> None:
        await self._turn.acquire()
        try:
            if self.state is State.ABSENT:
                return
            if self.state is State.ACTIVE:
                self._happened(Event.STOP_WANTED)
            draining = self.state is State.DRAINING
            self._happened(Event.DRAINED if draining else Event.STOP_WANTED)
            await self._tear_down(kill=kill)
            self._happened(Event.STOPPED)
        finally:
            self._turn.release()

    async def _tear_down(self, *, kill: bool) -> None:
        """PocketBase first, then its replication: the last sync must see its last write."""
        workload, self._workload = self._workload, None
        if workload is not None:
            await self._tolerate(workload.kill() if kill else workload.stop())
        # Also if its first sync failed: it may be registered.
        if self._owner is not None:
            await self._tolerate(self._parts.replication.unregister(self._database))
        if self._acks is not None:
            self._acks.stop(Reason.STOPPED)
        self._acks, self._registered, self._replicated = None, False, None
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    async def _tolerate(self, step: Coroutine[Deferred[Any], Any, None]) -> None:
        try:
            await step
        except Exception as error:  # what follows it must happen in any case
            log.warn("{tenant}: at its end: {error}", tenant=self.tenant_id, error=error)

    async def register_again(self) -> None:
        """Litestream was started anew and knows nothing. :raises PBClusterError: it failed."""
        if (self._registered or self._registering) and not self.leaving:
            await self._parts.replication.register(self.tenant_id, self.epoch, self._database)

    # -- inside --

    def _happened(self, event: Event, cause: str = "") -> None:
        self.life.happened(event, cause)
        self.changes.fire()

    def _report(self, outcome: str, *, observed_epoch: int = 0, detail: str = "") -> None:
        report = TenantReport(
            node_id=self._parts.node_id,
            incarnation=0,
            tenant_id=self.tenant_id,
            epoch=self.epoch,
            outcome=outcome,
            observed_epoch=observed_epoch,
            detail=detail,
        )
        self._parts.report(report)
