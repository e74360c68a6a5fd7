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

from collections.abc import Callable

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from pbcluster.errors import (
    ClaimRefused,
    PBClusterError,
    ProcessFailed,
    S3Unavailable,
)
from pbcluster.node.acks import Acknowledger, Level, Withheld, cover
from pbcluster.node.auxiliary import Auxiliary
from pbcluster.node.copies import Copies, Copy, Replaced
from pbcluster.node.degrading import Mode
from pbcluster.node.durability import Reason
from pbcluster.node.interfaces import (
    DirectoryLock,
    FilesAccess,
    OwnerSeen,
    Ready,
    RunningWorkload,
    WorkloadSpec,
)
from pbcluster.node.lifecycle import READABLE, Crashes, Event, Life, State, load_retry_s
from pbcluster.node.parts import Changes, NodeParts, pause, spawn, tenant_report, tolerate
from pbcluster.node.prover import NoProof, Prover
from pbcluster.wire import Assignment

__all__ = ["NoProof", "Tenant"]

log = Logger()

MAX_HELD = 1000  # requests that wait for one tenant to load; the gateway holds as many
#: The first sync of an epoch may carry the whole database.
FIRST_SYNC_TIMEOUT_S = 120.0
FIRST_SYNC_RETRY_S = 1.0  # while S3 is away
#: On a node whose tenants keep their files on the disk.
NO_FILES = FilesAccess({"s3": {"enabled": False}, "backups": {"s3": {"enabled": False}}})


class _Abandoned(Exception):
    """The load ends because the tenant must go; who asked for it cleans up."""


class Tenant:
    """See the module.

    :ivar assignment: what the control plane said last; its epoch stays. :ivar prover: its proofs.
    :ivar changes: fires at every change of state, and when serving begins to end.
    :ivar refused_by: not 0: this assignment is over; a new epoch must exceed this one.
    :ivar ended_whole: whether its last end brought all of it to S3; None: it was not ended here.
    :ivar started_generation: that of its PocketBase when it was started.
    :ivar retry_at: time of the clock before which a failed load is not tried again.
    """

    def __init__(
        self,
        assignment: Assignment,
        incarnation: int,
        parts: NodeParts,
        *,
        adopts: bool = False,
        replaced: Callable[[Tenant], None] | None = None,
    ) -> None:
        """
        :param adopts: the local database goes on under this epoch: a backup was restored.
        :param replaced: called when another file stands in the place of data.db; None: that is the
            end of this epoch.
        """
        self.assignment, self.life = assignment, Life()
        self.adopts = adopts
        self._replaced = replaced
        self._on_hold = False
        self.started_generation = ""
        self.changes = Changes(parts.clock, MAX_HELD)
        self.refused_by, self.retry_at = 0, 0.0
        self.ended_whole: bool | None = None
        self._parts = parts
        self._database = parts.directories.path(assignment.tenant_id) / "data" / "data.db"
        self._copies = Copies(parts, incarnation, self._database)
        self._auxiliary = Auxiliary(parts, assignment.tenant_id, self._database)
        self._turn = DeferredLock()
        self._leaving = False
        self._over = False
        self.prover = Prover(parts, assignment.tenant_id, assignment.epoch, self.fence)
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
        return self._leaving or self._over or self.prover.fenced

    @property
    def held(self) -> bool:
        """Whether a migration takes it away: no request is handed on, nothing is started."""
        return bool(self.assignment.handing_over)

    @property
    def can_load(self) -> bool:
        """Whether a load makes sense at all under this assignment."""
        idle = self.state in (State.ABSENT, State.FAILED)
        return idle and not self.leaving and not self.refused_by and not self.held

    @property
    def workload(self) -> RunningWorkload | None:
        """Its PocketBase while it may be asked, else None."""
        return None if self.leaving else self._workload

    @property
    def waiting_writes(self) -> int:
        """Writes held now."""
        return self._acks.waiting if self._acks is not None else 0

    def upstream(self, *, write: bool) -> tuple[str, int] | None:
        """Host and port of its PocketBase if it may be asked now (under a proof), else None."""
        if self._workload is None or self.leaving or self.held or self._on_hold:
            return None
        # What was restored is shown only once it lasts.
        early = self.state in READABLE and not (write or self.adopts)
        if self.state is State.ACTIVE or early:
            return self._workload.host, self._workload.port
        return None

    def tick(self) -> None:
        """Each second."""
        if self._acks is None:
            return
        if self.state is State.ACTIVE and self._acks.replaced and not self._on_hold:
            self._database_replaced()
        else:
            self._acks.tick()

    # -- while a backup is restored (``restoring``) --

    def hold(self) -> None:
        """Hand nothing on until :meth:`let_go`: requests wait."""
        self._on_hold = True

    def let_go(self) -> None:
        """Hand requests on again."""
        self._on_hold = False
        self.changes.fire()

    def process_address(self) -> tuple[str, int] | None:
        """Host and port of its PocketBase, held or not; None: it does not run."""
        return (self._workload.host, self._workload.port) if self._workload is not None else None

    def process_generation(self) -> str:
        """Another one after PocketBase executed itself anew; empty: it does not listen."""
        return self._workload.generation() if self._workload is not None else ""

    async def process_answers(self) -> bool:
        """Whether its PocketBase is healthy."""
        return self._workload is not None and await self._workload.answers()

    async def may_restore(self, authorization: bytes) -> bool:
        """Whether PocketBase takes this token for one of a superuser."""
        workload = self._workload
        return bool(authorization) and workload is not None and await workload.knows(authorization)

    def replicated_file(self) -> tuple[int, int] | None:
        """Device and inode of the database that is replicated; None: none is."""
        return self._acks.file if self._acks is not None else None

    async def end_replication(self) -> None:
        """A last sync of everything, then none; no write may be waiting.

        :raises PBClusterError: it cannot be said that S3 has everything.
        """
        await self._parts.replication.sync(self._database, timeout_s=FIRST_SYNC_TIMEOUT_S)
        self._registered = False
        if self._acks is not None:
            self._acks.stop(Reason.STOPPED)
        await self._parts.replication.unregister(self._database)
        await self._auxiliary.end()

    async def replicate_again(self) -> None:
        """After :meth:`end_replication`, with the same database under the same prefix.

        :raises PBClusterError: it cannot.
        """
        if self._registered or self.prover.owner is None or self.leaving:
            return
        await self._replicate(Copy(self.prover.owner, "warm", parent=0, ready=True))

    def _acks_ended(self, reason: str, seen: OwnerSeen | None) -> None:
        if reason == Reason.DATABASE_REPLACED.value and self.state is State.ACTIVE:
            self._database_replaced()
        else:
            self.fence(reason, seen)

    def _database_replaced(self) -> None:
        if self._replaced is None or self._on_hold:
            self.fence(Reason.DATABASE_REPLACED.value, None)
            return
        if self._acks is not None:
            self._acks.stop(Reason.DATABASE_REPLACED)
        self._replaced(self)

    # -- proofs and acknowledgements --

    def proven(self) -> bool:
        """Whether a proof is held right now; costs no I/O."""
        return self.prover.proven()

    async def prove(self) -> None:
        """Get a proof: wait out a young claim, else read the owner object.

        :raises OwnershipLost: the owner object shows another claim; the tenant was fenced.
        :raises NoProof: it cannot be told now.
        """
        await self.prover.prove()

    async def acknowledge(self) -> Level:
        """Wait until a write answered by PocketBase just now may be acknowledged.

        :raises Withheld: it may not.
        """
        return await self._acknowledger().acknowledge()

    def read_may_pass(self) -> bool:
        """Whether a read, or an event, answered by PocketBase just now may be shown at once."""
        if not self.assignment.durable_reads:
            return True
        return self._acks is not None and not self.prover.fenced and self._acks.read_may_pass()

    async def acknowledge_read(self) -> Level:
        """Wait until what a read has shown lasts. :raises Withheld: it is not known to."""
        return await self._acknowledger().acknowledge_read()

    def _acknowledger(self) -> Acknowledger:
        if self._acks is None or self.prover.fenced:
            raise Withheld(Reason.OWNERSHIP_LOST if self.prover.fenced else Reason.STOPPED)
        return self._acks

    def assigned(self, assignment: Assignment) -> None:
        """The control plane's list says this now (same epoch)."""
        self.assignment = assignment
        if self._acks is not None:
            self._acks.assigned(assignment)

    @property
    def only_here(self) -> bool:
        """Whether acknowledged writes are perhaps on this disk only."""
        return self._acks is not None and self._acks.only_here

    @property
    def degraded(self) -> bool:
        """Whether its writes are not, or were not until now, all acknowledged by S3."""
        return self._acks is not None and self._acks.mode is not Mode.DURABLE

    @property
    def lag_s(self) -> float:
        """For how long acknowledged writes have not all been in S3."""
        return self._acks.lag_s() if self._acks is not None else 0.0

    async def covered(self) -> None:
        """What PocketBase committed before this call is in S3, and the tenant was ours after that.

        Whatever its durability: for what may only happen when a write can not be undone any more.

        :raises PBClusterError: it cannot be said.
        """
        owner = self.prover.owner
        if owner is None or not self._registered or self.prover.fenced:
            raise NoProof("the tenant's database is not replicated now")
        await cover(self._parts, self.tenant_id, owner, self._database, self.fence)

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
            self.prover.owner = copy.owner
            self._happened(Event.RESUMED)
            return copy
        won = await self._copies.claim(self.assignment, self._go_on)
        self.prover.owner = won.owner
        self._happened(Event.CLAIM_WON)
        make = self._copies.adopt if self.adopts else self._copies.make
        copy = await make(self.tenant_id, won, self._go_on)
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
        files = self._parts.files
        access = await files.open(self) if files is not None else NO_FILES
        self._go_on()
        spec = WorkloadSpec(
            tenant_id=self.tenant_id,
            directory=self._parts.directories.path(self.tenant_id),
            encryption_key=self._parts.encryption_key(self.tenant_id),
            hosts=self.assignment.hosts,
            superuser=self.assignment.initial_superuser if first_start else None,
            settings=access.settings,
            connect_ports=(access.port,) if access.port else (),
            logs=self.assignment.logs,
            quotas=self.assignment.quotas,
        )
        if self._replicated is None:
            self._replicated = self._parts.directories.database_identity(self.tenant_id)
        self._parts.directories.unsettle(self.tenant_id)
        workload = await self._parts.workloads.start(spec)
        self._workload = workload
        self.started_generation = workload.generation()
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
        self._copies.replicating(self.tenant_id)
        await replication.register(self.tenant_id, self.epoch, self._database)
        acks = Acknowledger(
            self._parts,
            assignment=self.assignment,
            owner=copy.owner,
            database=self._database,
            fence=self._acks_ended,
            proven=self.proven,
        )
        txid = await replication.sync(self._database, timeout_s=FIRST_SYNC_TIMEOUT_S)
        self._go_on()
        self._check_not_replaced()
        if not (copy.ready or self._ready_written):
            ready = Ready(parent=copy.parent, txid=txid, at=self._parts.utc_now().isoformat())
            await self._parts.claims.write_ready(self.tenant_id, self.epoch, ready)
        self._acks, self._ready_written, self._registered = acks, True, True
        acks.assigned(self.assignment)
        acks.begin()
        spawn(self._auxiliary.begin(self.epoch), f"auxiliary.db of {self.tenant_id}")

    def _check_not_replaced(self) -> None:
        """A file that took data.db's place since PocketBase started is not what was restored; and a
        sync that succeeded may have been of the former one.

        :raises Replaced: it happened.
        """
        identity = self._parts.directories.database_identity(self.tenant_id)
        if self._replicated is None:
            self._replicated = identity  # an empty start: PocketBase made it
        elif identity != self._replicated:
            told = "the database was replaced before its first sync"
            raise Replaced(told, observed_epoch=self.epoch)

    def _go_on(self) -> None:
        if self.leaving:
            raise _Abandoned

    async def _load_failed(self, error: Exception) -> None:
        if not isinstance(error, PBClusterError):
            log.failure("{tenant} cannot be loaded", tenant=self.tenant_id)
        await self._tear_down(kill=False)
        error = self._copies.judged(self.assignment, error)
        cause = str(error) or type(error).__name__
        if isinstance(error, ClaimRefused):
            self.refused_by = max(int(error.data["observed_epoch"]), self.epoch)
            self._parts.proofs.forget(self.tenant_id, self.epoch)
            outcome = "deleted" if error.data.get("deleted") else "refused"
            self._report(outcome, observed_epoch=self.refused_by, detail=cause)
        elif self._failures == 0:
            self._report("failed", detail=cause)
        self.retry_at = self._parts.clock.seconds() + load_retry_s(self._failures)
        self._failures = min(self._failures + 1, 16)
        self._parts.observer.load_failed(type(error).__name__)
        log.error("{tenant} failed: {cause}", tenant=self.tenant_id, cause=cause)
        self._happened(Event.FAILED, cause)

    # -- PocketBase ends by itself --

    def _workload_ended(self, workload: RunningWorkload, reason: str) -> None:
        if self._workload is not workload:
            return
        self._workload = None
        if self._on_hold:  # a restore was under way: what stands there now is nobody's
            self.fence(f"PocketBase ended while a backup was restored: {reason}", None)
            return
        self.life.cause = reason
        log.warn("{tenant}: PocketBase ended: {reason}", tenant=self.tenant_id, reason=reason)
        if self.state is State.ACTIVE and not self.leaving:
            spawn(self._restart(), f"restart of {self.tenant_id}")

    async def _restart(self) -> None:
        await self._turn.acquire()
        try:
            if (
                self.state is not State.ACTIVE
                or self.prover.owner is None
                or self._workload is not None
            ):
                return
            await self._before_restart()
            await self._serve(Copy(self.prover.owner, "warm", parent=0, ready=True))
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
        await self._end(kill=self.prover.fenced)
        self._leaving = False
        self.changes.fire()

    def fence(self, reason: str, seen: OwnerSeen | None) -> None:
        """It is not ours, or its replica is not of its database: stop answering now, then kill."""
        if self.prover.fenced:
            return
        self.prover.fenced = True
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
            await tolerate(workload.kill() if kill else workload.stop(), self.tenant_id)
        await self._auxiliary.end()
        if self._parts.files is not None:
            self._parts.files.close(self)
        # Also if its first sync failed: it may be registered.
        if self.prover.owner is not None:
            last = self._parts.replication.unregister(self._database)
            synced = await tolerate(last, self.tenant_id)
            never = synced is False and not self._registered
            self.ended_whole = None if never else bool(synced)
            if synced and self._registered and not self.prover.fenced:
                self._copies.settle(self.tenant_id)
        if self._acks is not None:
            self._acks.stop(Reason.STOPPED)
        self._acks, self._registered, self._replicated = None, False, None
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    async def register_again(self) -> None:
        """Litestream was started anew and knows nothing. :raises PBClusterError: it failed."""
        if (self._registered or self._registering) and not self.leaving:
            await self._parts.replication.register(self.tenant_id, self.epoch, self._database)
            await self._auxiliary.begin(self.epoch)

    # -- inside --

    def _happened(self, event: Event, cause: str = "") -> None:
        self.life.happened(event, cause)
        self.changes.fire()

    def _report(self, outcome: str, *, observed_epoch: int = 0, detail: str = "") -> None:
        told = tenant_report(self._parts, self.assignment, outcome, observed_epoch, detail)
        self._parts.report(told)
