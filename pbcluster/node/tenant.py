"""One tenant on this node, under one assignment: from S3 to a PocketBase that serves, and back.

What holds:

* One load, restart or stop is under way at a time; nothing but this tenant's own turn is held while
  S3 or a process is waited for.
* The order of a new epoch is: claim, restore, forget Litestream's metadata, note the claim, start,
  register under the new prefix, first sync, READY, serve writes. Reads may come earlier.
* :meth:`Tenant.fence` stops answering within the same call; the processes are killed right after.
* A stop keeps the data and the claim note: a warm copy, resumed only if ``ownership`` trusts it.

Here is the order of things; what runs is ``tenant_process``'s, what brings its writes to S3
``tenant_replication``'s. It does not decide when to load or to stop (``tenants`` does), and knows
no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from pbcluster.errors import ClaimRefused, PBClusterError
from pbcluster.node.copies import Copies, Copy
from pbcluster.node.durability import Reason
from pbcluster.node.interfaces import DirectoryLock, OwnerSeen, RunningWorkload
from pbcluster.node.lifecycle import READABLE, Event, Life, State, load_retry_s
from pbcluster.node.parts import Changes, NodeParts, both, spawn, tenant_report
from pbcluster.node.prover import Prover
from pbcluster.node.tenant_process import ON_THE_DISK, TenantProcess
from pbcluster.node.tenant_replication import TenantReplication
from pbcluster.wire import Assignment

#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_ACTIVE = State.ACTIVE
log = Logger(__name__)

MAX_HELD = 1000  # requests that wait for one tenant to load; the gateway holds as many


class _Abandoned(Exception):
    """The load ends because the tenant must go; who asked for it cleans up."""


class Tenant:
    """See the module.

    :ivar assignment: what the control plane said last; its epoch stays. :ivar prover: its proofs.
    :ivar tenant_id: and ``epoch``: of its assignments, which all have the same.
    :ivar process: its PocketBase. :ivar replication: what brings its writes to S3.
    :ivar changes: fires at every change of state, and when serving begins to end.
    :ivar refused_by: not 0: this assignment is over; a new epoch must exceed this one.
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
        self.tenant_id, self.epoch = assignment.tenant_id, assignment.epoch
        self.adopts = adopts
        self._replaced = replaced
        self._on_hold = False
        self.changes = Changes(parts.clock, MAX_HELD)
        self.refused_by, self.retry_at = 0, 0.0
        self._parts = parts
        self._turn = DeferredLock()
        self._leaving = False
        self._over = False
        self.prover = Prover(parts, assignment.tenant_id, assignment.epoch, self.fence)
        self.process = TenantProcess(parts, self._process_ended)
        database = parts.directories.path(assignment.tenant_id) / "data" / "data.db"
        self._copies = Copies(parts, incarnation, database)
        self.replication = TenantReplication(
            parts,
            assignment,
            database=database,
            copies=self._copies,
            prover=self.prover,
            go_on=self._go_on,
            ended=self._replication_ended,
        )
        self._lock: DirectoryLock | None = None
        self._failures = 0

    # -- what it is --

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self.life.state

    def is_leaving(self) -> bool:
        """Whether it is being stopped or was fenced."""
        return self._leaving or self._over or self.prover.fenced

    def is_held(self) -> bool:
        """Whether a migration takes it away: no request is handed on, nothing is started."""
        return bool(self.assignment.handing_over)

    @property
    def can_load(self) -> bool:
        """Whether a load makes sense at all under this assignment."""
        idle = self.state in (State.ABSENT, State.FAILED)
        return idle and not self.is_leaving() and not self.refused_by and not self.is_held()

    @property
    def workload(self) -> RunningWorkload | None:
        """Its PocketBase while it may be asked, else None."""
        return None if self.is_leaving() else self.process.running

    def upstream(self, write: bool) -> tuple[str, int] | None:
        """Host and port of its PocketBase if it may be asked now (under a proof), else None."""
        running = self.process.running
        if running is None or self.is_leaving() or self.is_held() or self._on_hold:
            return None
        state = self.life.state
        if state is not _ACTIVE:
            # What was restored from a backup is shown only once it lasts, and of a tenant with
            # durable reads everything is: before the first sync a read could not be known to last.
            late = write or self.adopts or self.assignment.durable_reads
            if late or state not in READABLE:
                return None
        return self.process.address()

    def tick(self) -> None:
        """Each second."""
        acks = self.replication.acks
        if acks is None:
            return
        if self.state is _ACTIVE and acks.replaced and not self._on_hold:
            self._database_replaced()
        else:
            self.replication.tick()

    # -- while a backup is restored (``restoring``) --

    def hold(self) -> None:
        """Hand nothing on until :meth:`let_go`: requests wait."""
        self._on_hold = True

    def let_go(self) -> None:
        """Hand requests on again."""
        self._on_hold = False
        self.changes.fire()

    def _replication_ended(self, reason: str, seen: OwnerSeen | None) -> None:
        if reason == Reason.DATABASE_REPLACED.value and self.state is _ACTIVE:
            self._database_replaced()
        else:
            self.fence(reason, seen)

    def _database_replaced(self) -> None:
        if self._replaced is None or self._on_hold:
            self.fence(Reason.DATABASE_REPLACED.value, None)
            return
        self.replication.acknowledge_no_more(Reason.DATABASE_REPLACED)
        self._replaced(self)

    # -- proofs --

    def proven(self) -> bool:
        """Whether a proof is held right now; costs no I/O."""
        return self.prover.proven()

    async def prove(self) -> None:
        """Get a proof: wait out a young claim, else read the owner object.

        :raises OwnershipLost: the owner object shows another claim; the tenant was fenced.
        :raises NoProof: it cannot be told now.
        """
        await self.prover.prove()

    def assigned(self, assignment: Assignment) -> None:
        """The control plane's list says this now (same epoch)."""
        self.assignment = assignment
        self.replication.assigned(assignment)

    async def covered(self) -> None:
        """What PocketBase committed before this call is in S3, and the tenant was ours after that.

        Whatever its durability: for what may only happen when a write can not be undone any more.

        :raises PBClusterError: it cannot be said.
        """
        await self.replication.covered()

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
                self.assignment, note, ready_written=self.replication.ready_written
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
            workload = await self._start_process(copy)
            self._happened(Event.WORKLOAD_ANSWERED)
            if await self.replication.begin(copy, self._runs(workload)):
                self._happened(Event.SYNCED)
                return
            await self._before_restart()

    def _runs(self, workload: RunningWorkload) -> Callable[[], bool]:
        return lambda: self.process.runs(workload)

    async def _start_process(self, copy: Copy) -> RunningWorkload:
        first_start = not (self.assignment.ever_ready or copy.parent or copy.ready)
        files = self._parts.files
        access = await files.open(self) if files is not None else ON_THE_DISK
        self._go_on()
        self.replication.process_starts()
        workload = await self.process.start(self.assignment, access, first_start=first_start)
        self._go_on()
        return workload

    def _go_on(self) -> None:
        if self.is_leaving():
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

    def _process_ended(self, reason: str) -> None:
        if self._on_hold:  # a restore was under way: what stands there now is nobody's
            self.fence(f"PocketBase ended while a backup was restored: {reason}", None)
            return
        self.life.cause = reason
        log.warn("{tenant}: PocketBase ended: {reason}", tenant=self.tenant_id, reason=reason)
        if self.state is _ACTIVE and not self.is_leaving():
            spawn(self._restart(), f"restart of {self.tenant_id}")

    async def _restart(self) -> None:
        await self._turn.acquire()
        try:
            if (
                self.state is not _ACTIVE
                or self.prover.owner is None
                or self.process.running is not None
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
        await self.process.wait_before_restart(self.life.cause)
        self._go_on()

    # -- the end --

    def begin_leaving(self, *, for_good: bool = False) -> None:
        """No request is handed on any more; what is open may still finish, until :meth:`stop`.

        :param for_good: it will not be loaded again under this assignment.
        """
        self._leaving = True
        self._over = self._over or for_good
        if self.state is _ACTIVE:
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
        self.replication.acknowledge_no_more(Reason.OWNERSHIP_LOST)
        self.begin_leaving()
        running = self.process.running
        if running is not None:  # now, whatever is under way; _end cleans up after it
            spawn(running.kill(), f"kill of {self.tenant_id}")
        spawn(self._end(kill=True), f"end of {self.tenant_id}")

    async def _end(self, *, kill: bool) -> None:
        await self._turn.acquire()
        try:
            if self.state is State.ABSENT:
                return
            if self.state is _ACTIVE:
                self._happened(Event.STOP_WANTED)
            draining = self.state is State.DRAINING
            self._happened(Event.DRAINED if draining else Event.STOP_WANTED)
            await self._tear_down(kill=kill)
            self._happened(Event.STOPPED)
        finally:
            self._turn.release()

    async def _tear_down(self, *, kill: bool) -> None:
        """PocketBase first, then its replication: the last sync must see its last write."""
        end = self.process.end(self.tenant_id, kill=kill)
        await both(end, self.replication.process_ends(kill=kill))
        await self.replication.end_auxiliary()
        if self._parts.files is not None:
            self._parts.files.close(self)
        await self.replication.end()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    # -- inside --

    def _happened(self, event: Event, cause: str = "") -> None:
        self.life.happened(event, cause)
        self.changes.fire()

    def _report(self, outcome: str, *, observed_epoch: int = 0, detail: str = "") -> None:
        told = tenant_report(self._parts, self.assignment, outcome, observed_epoch, detail)
        self._parts.report(told)
