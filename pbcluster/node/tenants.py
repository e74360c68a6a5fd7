"""All tenants of a node: obeys the assignments, loads what is asked for, stops what must go.

Level-triggered: the obeyed list of assignments is the whole truth, whether it came as a whole or by
its changes, and a tick each second repairs what a lost event left behind. What is taken away stops
answering within the same call in which the list is obeyed, before any later lease acknowledgement
can count. Loads are bounded; a tenant loads once, and requests wait for it, bounded in number and
time.

How one tenant is loaded and stopped is for ``tenant``; who owns it, for the control plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from pbcluster.errors import Busy, OwnershipLost, Unavailable
from pbcluster.node.arrivals import Arrivals, Loading
from pbcluster.node.assignments import Assignments
from pbcluster.node.cache import Cache
from pbcluster.node.endings import Endings
from pbcluster.node.lifecycle import State
from pbcluster.node.parts import NodeParts, pause, spawn, tenant_report
from pbcluster.node.revival import Revival
from pbcluster.node.tenant import Tenant
from pbcluster.node.uses import Uses
from pbcluster.wire import Assignment, AssignmentChanges, NodeAssignments, TenantUsage

log = Logger(__name__)

#: Loads at once: each holds S3 transfers and a starting process; more only slow each other down.
MAX_LOADS = 8
#: A tenant that is taken away may finish its open requests for so long.
RELEASE_DRAIN_S = 5.0
#: How often open requests are counted while nobody can say when one ends.
DRAIN_POLL_S = 0.1
#: An idle tenant is stopped only without open requests, so this is just a belt.
IDLE_DRAIN_S = 1.0
TICK_S = 1.0
#: A request whose tenant finds no room looks for it so often: others end all the time.
ROOM_POLL_S = 0.2


class Tenants:
    """See the module. Call :meth:`start` first.

    :ivar parts: what its tenants work with. :ivar cache: which of them have a place.
    :ivar uses: told of their requests. :ivar arrivals: waits for assignments yet to come.
    """

    def __init__(self, parts: NodeParts, *, capacity: int, idle_stop_s: float) -> None:
        self.cache = Cache(capacity)
        self.parts = parts
        self._idle_stop_s = idle_stop_s
        self._assignments = Assignments(parts.node_id)
        self._tenants: dict[str, Tenant] = {}
        self._ending: dict[str, Deferred[None]] = {}
        self._loading: set[str] = set()
        self._stopping: set[str] = set()
        self._started_once: set[tuple[str, int]] = set()
        self._slots = DeferredSemaphore(MAX_LOADS)
        database_bytes = parts.directories.database_bytes
        self.uses = Uses(self.cache, parts.clock.seconds, parts.utc_now, database_bytes)
        self._endings = Endings(parts, lambda: self._assignments.incarnation, self._end_of)
        self.arrivals = Arrivals(parts, self.find, lambda: self._closed)
        self._revival = Revival(parts, self, lambda: self._closed)
        self._adopted: dict[str, int] = {}
        self._replaced: Callable[[Tenant], None] | None = None
        self._ticking: Deferred[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to tick."""
        self._revival.start()
        self._ticking = spawn(self._tick(), "tick of the tenants")

    # -- what is there --

    def __iter__(self) -> Iterator[Tenant]:
        return iter(list(self._tenants.values()))

    def find(self, tenant_id: str) -> Tenant | None:
        """The tenant if it is assigned to this node."""
        return self._tenants.get(tenant_id)

    def _end_of(self, tenant_id: str) -> Deferred[None] | None:
        return self._ending.get(tenant_id)

    def in_use(self) -> frozenset[str]:
        """Ids of tenants whose copy something works with, or may at any moment."""
        running = {each.tenant_id for each in self if each.state is not State.ABSENT}
        ending = {key for key, done in self._ending.items() if not done.called}
        busy = running | self._loading | self._stopping | ending
        return frozenset(busy | {each.tenant_id for each in self._assignments.endings()})

    @property
    def replication_up(self) -> bool:
        """Whether Litestream runs."""
        return self._revival.replication_up

    @property
    def obeyed_index(self) -> int:
        """Index of the list obeyed, -1: none yet."""
        return self._assignments.index

    def usage(self) -> tuple[TenantUsage, ...]:
        """What happened to each tenant since the last call."""
        return self.arrivals.followed() + self.uses.since_last(self)

    # -- assignments --

    def registered(self, incarnation: int) -> None:
        """This process has the incarnation ``incarnation``."""
        self._assignments.incarnation = incarnation

    def obey(self, new: NodeAssignments | AssignmentChanges) -> bool:
        """Take a list of assignments over; what is not in it stops answering before this returns.

        :returns: False if it is refused (see ``assignments``).
        """
        change = None if self._closed else self._assignments.obey(new)
        if change is None:
            return False
        self.parts.proofs.obey(new.index, self._assignments.epochs())
        orders = self._assignments.endings()
        gone = dict.fromkeys((*change.removed, *change.replaced, *(o.tenant_id for o in orders)))
        leaving = [self._tenants.pop(key) for key in gone if key in self._tenants]
        for each in change.updated:
            if each.tenant_id in self._tenants:
                self._tenants[each.tenant_id].assigned(each)
        for each in (each for each in change.added if not each.ending):
            self._tenants[each.tenant_id] = self._new(each)
        for tenant in leaving:
            self._let_go(tenant, released=tenant.tenant_id in change.removed)
        self._endings.obey(orders)
        self.arrivals.fire()
        self._load_wanted()
        return True

    def _new(self, assignment: Assignment) -> Tenant:
        adopted = self._adopted.pop(assignment.tenant_id, None)
        return Tenant(
            assignment,
            self._assignments.incarnation,
            self.parts,
            adopts=adopted is not None and assignment.epoch > adopted,
            replaced=self._replaced,
        )

    def adopt(self, tenant_id: str, epoch: int | None) -> None:
        """The epoch after ``epoch`` goes on with the database that is there; None: it does not."""
        self._adopted.pop(tenant_id, None)
        if epoch is not None:
            self._adopted[tenant_id] = epoch

    def when_replaced(self, callback: Callable[[Tenant], None]) -> None:
        """``callback(tenant)`` when another file stands in the place of its database."""
        self._replaced = callback

    def _let_go(self, tenant: Tenant, *, released: bool) -> None:
        """Stop answering now, the rest as it comes; a successor's load waits for its end."""
        before, done = self._ending.get(tenant.tenant_id), Deferred[None]()
        self._ending[tenant.tenant_id] = done
        self.arrivals.remember_gone(tenant)
        tenant.begin_leaving(for_good=True)
        ending = self._end(tenant, before, released=released)
        spawn(ending, f"release of {tenant.tenant_id}").chainDeferred(done)

    async def _end(self, tenant: Tenant, before: Deferred[None] | None, *, released: bool) -> None:
        if before is not None:
            await before
        await self._drained(tenant, RELEASE_DRAIN_S)
        await tenant.stop()
        self.parts.proofs.forget(tenant.tenant_id, tenant.epoch)
        if tenant.tenant_id not in self._loading:
            self.cache.remove(tenant.tenant_id)
        self._started_once.discard((tenant.tenant_id, tenant.epoch))
        if released:
            self.uses.forget(tenant.tenant_id)
            self._report(tenant, "released")

    def _load_wanted(self) -> None:
        for tenant in self:
            key = (tenant.tenant_id, tenant.epoch)
            if tenant.assignment.wanted and key not in self._started_once:
                self.want(tenant)

    # -- loading --

    async def ready(self, tenant_id: str, *, write: bool, deadline: float) -> Tenant:
        """Wait until a request for the tenant may be handed on (under a proof).

        :param deadline: seconds of the clock.
        :raises OwnershipLost: it is not this node's. ``data["epoch"]`` is what we know of.
        :raises Loading: not ready in time. :raises Busy: no room. :raises Unavailable: it failed.
        """
        while True:
            tenant = self._tenants.get(tenant_id)
            if tenant is None:
                raise self.arrivals.lost(tenant_id)
            if tenant.upstream(write=write) is not None:
                return tenant
            if tenant.refused_by > tenant.epoch:
                raise OwnershipLost("another node owns this tenant", epoch=tenant.refused_by)
            now = self.parts.clock.seconds()
            if self._closed or now >= deadline:
                raise Loading(f"the tenant is {tenant.state.value}")
            if tenant.can_load:
                if not self.want(tenant):
                    await self._wait_for_room(tenant, deadline)
                    continue
                if tenant_id not in self._loading or tenant.upstream(write=write) is not None:
                    continue  # it got somewhere, well or badly, within the call
            await tenant.changes.wait(deadline - now)

    async def _wait_for_room(self, tenant: Tenant, deadline: float) -> None:
        """:raises Unavailable: it failed a moment ago. :raises Busy: no room in time."""
        now = self.parts.clock.seconds()
        if now < tenant.retry_at:
            wait_s = tenant.retry_at - now
            raise Unavailable(f"the tenant failed: {tenant.life.cause}", retry_after_s=wait_s)
        left = deadline - now - ROOM_POLL_S
        if left <= 0:
            told = f"all {self.cache.capacity} places of this node are in use"
            raise Busy(told, retry_after_s=5.0)
        await tenant.changes.wait(min(ROOM_POLL_S, left))

    def want(self, tenant: Tenant) -> bool:
        """Begin to load it unless that is under way. :returns: False: it cannot be now."""
        if tenant.tenant_id in self._loading or not tenant.can_load:
            return True
        now = self.parts.clock.seconds()
        if self._closed or now < tenant.retry_at:
            return False
        placed = tenant.tenant_id in self.cache
        if not (placed or self._victim() is not None or self.cache.has_room()):
            return False
        self._loading.add(tenant.tenant_id)
        spawn(self._load(tenant), f"load of {tenant.tenant_id}")
        return True

    async def _load(self, tenant: Tenant) -> None:
        tenant_id = tenant.tenant_id
        try:
            before = self._ending.get(tenant_id)
            if before is not None:
                await before
            await self._slots.acquire()
            try:
                if await self._make_room(tenant_id):
                    await tenant.load()
            finally:
                self._slots.release()
        finally:
            self._loading.discard(tenant_id)
            if tenant.state is State.ACTIVE:
                self._started_once.add((tenant_id, tenant.epoch))
            self._forget_unloaded(tenant_id)
            tenant.changes.fire()
            self._wake_successor(tenant)

    def _wake_successor(self, tenant: Tenant) -> None:
        """A newer epoch that came during a load found it in its way: now it can begin."""
        successor = self._tenants.get(tenant.tenant_id)
        if successor is not None and successor is not tenant:
            successor.changes.fire()
            self._load_wanted()

    async def _make_room(self, tenant_id: str) -> bool:
        """Give the tenant a place, at the cost of the least recently used one."""
        while tenant_id not in self.cache:
            victim = self._victim()
            if self.cache.has_room():
                self.cache.add(tenant_id, self.parts.clock.seconds())
                break
            if victim is None:
                return False
            self.cache.evicted()
            await self._rest(victim)
        return True

    def _victim(self) -> Tenant | None:
        """Who must go; one that is stopping already makes room by itself, and one that was given
        away gives up its place without being asked. None: nobody may, or there is room."""
        leaving = {
            each.tenant_id for each in self if each.is_leaving() or each.replication.only_here
        }
        busy = self._loading | self._stopping | leaving
        while (name := self.cache.victim(self.parts.clock.seconds(), busy)) is not None:
            victim = self._tenants.get(name)
            if victim is not None:
                return victim
            self.cache.remove(name)
        return None

    # -- stopping --

    async def _rest(self, tenant: Tenant) -> None:
        """Stop it but keep it as ours: its next request loads it again."""
        if tenant.tenant_id in self._stopping or tenant.is_leaving():
            return
        self._stopping.add(tenant.tenant_id)
        try:
            tenant.begin_leaving()
            await self._drained(tenant, IDLE_DRAIN_S)
            await tenant.stop()
        finally:
            self._stopping.discard(tenant.tenant_id)
            self._forget_unloaded(tenant.tenant_id)
        if self._tenants.get(tenant.tenant_id) is tenant and not tenant.refused_by:
            self._report(tenant, "stopped")

    async def put_to_rest(self, tenant: Tenant, limit_s: float) -> bool:
        """Stop a tenant that is held, once its open requests ended; it stays ours.

        :returns: False if some are still open after ``limit_s`` seconds: then nothing was stopped.
        """
        await self._drained(tenant, limit_s)
        if self.cache.open_requests(tenant.tenant_id):
            return False
        self._stopping.add(tenant.tenant_id)
        try:
            await tenant.stop()
        finally:
            self._stopping.discard(tenant.tenant_id)
            self._forget_unloaded(tenant.tenant_id)
        return True

    def go_on(self, tenant: Tenant) -> None:
        """It is held no longer: those who wait look again; it is started if it was stopped."""
        self._started_once.discard((tenant.tenant_id, tenant.epoch))
        tenant.changes.fire()
        self._load_wanted()

    async def _drained(self, tenant: Tenant, limit_s: float) -> None:
        deadline = self.parts.clock.seconds() + limit_s
        while self.cache.open_requests(tenant.tenant_id):
            left = deadline - self.parts.clock.seconds()
            try:
                if not await tenant.changes.wait(left):
                    return
            except Unavailable:  # a crowd waits for its change; it must be stopped all the same
                await pause(self.parts.clock, min(DRAIN_POLL_S, left))

    def _forget_unloaded(self, tenant_id: str) -> None:
        """Free the place of a tenant of which nothing runs."""
        tenant = self._tenants.get(tenant_id)
        if tenant_id in self._loading or tenant_id in self._stopping:
            return
        if tenant is None or tenant.state in (State.ABSENT, State.FAILED):
            self.cache.remove(tenant_id)

    async def stop(self, *, drain_s: float) -> None:
        """The node ends: no request is handed on, open ones finish, then everything stops.

        Nothing is reported: the assignments stay, and a restart resumes the copies.
        """
        self._closed = True
        self._endings.stop()
        if self._ticking is not None:
            self._ticking.cancel()
        tenants = list(self)
        for tenant in tenants:
            tenant.begin_leaving(for_good=True)
        ending = [
            spawn(self._last_stop(tenant, drain_s), f"stop of {tenant.tenant_id}")
            for tenant in tenants
        ]
        for done in [*ending, *self._ending.values()]:
            await done

    async def _last_stop(self, tenant: Tenant, drain_s: float) -> None:
        await self._drained(tenant, drain_s)
        await tenant.stop()

    # -- each second --

    async def _tick(self) -> None:
        while not self._closed:
            await pause(self.parts.clock, TICK_S)
            try:
                self._repair()
            except Exception:  # one tenant's trouble must not end the watch over all others
                log.failure("a tick of the tenants failed")

    def _repair(self) -> None:
        for tenant in self:
            tenant.tick()
            self._forget_unloaded(tenant.tenant_id)
        for tenant_id in self.cache.idle(self.parts.clock.seconds(), self._idle_stop_s):
            idle = self._tenants.get(tenant_id)
            busy = idle is None or idle.replication.waiting_writes or idle.replication.only_here
            if idle is not None and idle.state is State.ACTIVE and not busy:
                spawn(self._rest(idle), f"idle stop of {tenant_id}")
        self._ending = {key: done for key, done in self._ending.items() if not done.called}
        self._load_wanted()

    def _report(self, tenant: Tenant, outcome: str) -> None:
        self.parts.report(tenant_report(self.parts, tenant.assignment, outcome))
