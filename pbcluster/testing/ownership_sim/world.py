"""One world from one seed: nodes, control plane, S3, clients, and everything going wrong.

After every step all properties are checked that can be seen from outside (``journal.PROPERTIES``).
After :data:`CHAOS_S` everything is made well again, and each tenant must come back. The same seed
gives the same steps: chance comes from the seed alone, time from one clock.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from random import Random
from typing import Any, cast

import attrs
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from pbcluster import wire
from pbcluster.durations import Durations
from pbcluster.errors import PBClusterError
from pbcluster.node.parts import spawn
from pbcluster.node.tenant import Tenant
from pbcluster.records import Durability
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.testing.ownership_sim.clients import Clients
from pbcluster.testing.ownership_sim.clocks import ProcessClock, WorldClock
from pbcluster.testing.ownership_sim.faults import Faults
from pbcluster.testing.ownership_sim.files import Files
from pbcluster.testing.ownership_sim.journal import Journal, Violation
from pbcluster.testing.ownership_sim.network import Network
from pbcluster.testing.ownership_sim.observing import Bucket
from pbcluster.testing.ownership_sim.plane import Plane
from pbcluster.testing.ownership_sim.process import NodeProcess, Watchers
from pbcluster.testing.ownership_sim.storage import SimDisk
from pbcluster.testing.ownership_sim.trace import Trace
from pbcluster.transport.interfaces import Asked

NODES = ("node_1", "node_2", "node_3")
TENANTS = ("tenant_aaaaaaaa", "tenant_bbbbbbbb")
CHAOS_S = 40.0
#: Within so long after the last fault each tenant answers and acknowledges again.
RECOVERY_S = 45.0
#: Suspicion within 0.35 s and a short wait after a claim: what keeps two from answering must be the
#: margin, not the slowness of the rest.
HASTY = Durations(
    lease_interval_s=0.1,
    suspect_after_s=0.25,
    probe_timeout_s=0.1,
    head_proof_s=0.2,
    claim_wait_s=0.3,
)
#: A client asks a node each so many seconds on average.
CLIENT_S = 0.08
#: A gateway looks a tenant up so often.
LOOKUP_S = 0.5


@attrs.frozen
class Result:
    """What became of a seed. ``broken``: the property, empty: all held."""

    seed: int
    broken: str
    text: str
    trace_hash: str
    steps: int
    acked: int
    reads: int
    takeovers: int
    local_acks: int
    lines: tuple[str, ...]


class World:
    """See the module.

    :ivar violation: the first property that broke.
    """

    def __init__(
        self, seed: int, *, durations: Durations | None = None, keep_trace: bool = False
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.clock = WorldClock()
        self.trace = Trace(keep=keep_trace)
        self.violation: Violation | None = None
        self.durations = durations or self.random.choice((Durations(), Durations(), HASTY))
        self.durations.check()
        self.s3 = FakeS3(self.clock)
        self.network = Network(self.clock, self.random)
        self.plane = Plane(self.clock, self.random, self.network, self.durations)
        self.local_acks = 0
        self.well = False
        self.tombstones: set[str] = set()
        durabilities = (Durability.SYNC, self.random.choice(list(Durability)))
        self.journals = {t: Journal(d) for t, d in zip(TENANTS, durabilities, strict=True)}
        for tenant_id, journal in self.journals.items():
            # From there on an epoch soon has one digit more.
            after = self.random.choice((0, 0, 7))
            self.plane.create(tenant_id, tenant_id[-8:], journal.durability, after)
        self.bucket = Bucket(self)
        self.files = Files(self.s3)
        self.clients = Clients(self, self.random, self.files)
        self._idle_stop_s = self.random.choice((3.0, 900.0))
        self._numbers = itertools.count(1)
        #: Every process that ever was: what a dead one left suspended must not be ended by the
        #: garbage collector in the middle of a step.
        self.processes: list[NodeProcess] = []
        #: Node → the process that the control plane knows by this name.
        self.current: dict[str, NodeProcess] = {}
        self.plane.consensus.subscribe(lambda applied: self._applied())
        self._known: dict[str, tuple[str, int]] = {}
        self._degraded: dict[str, bool] = {}
        for name in NODES:
            self.boot(name, SimDisk())
        self.faults = Faults(self)
        self.every(CLIENT_S / len(NODES), self._client)
        self.every(LOOKUP_S, self._look_up)

    # -- time --

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return float(self.clock.seconds())

    def later(self, delay_s: float, what: Callable[..., object], *args: Any) -> None:
        """Do something in a while, whatever is paused."""
        self.clock.callLater(delay_s, what, *args)

    def every(self, mean_s: float, what: Callable[[], object]) -> None:
        """Do something again and again."""

        def due() -> None:
            what()
            self.later(self.random.random() * 2 * mean_s, due)

        self.later(self.random.random() * 2 * mean_s, due)

    # -- processes --

    @property
    def living(self) -> list[NodeProcess]:
        """All processes that are not dead, paused ones and replaced ones too."""
        return [each for each in self.processes if not each.clock.dead]

    def boot(self, name: str, disk: SimDisk) -> NodeProcess:
        """A new start of a node."""
        number = next(self._numbers)
        self.trace.add(self.now, name, f"start {number}")
        watchers = Watchers(self.bucket.requested, self.bucket.restored, self._reported)
        process = NodeProcess(
            name,
            number,
            ProcessClock(self.clock),
            self.random,
            self.s3,
            self.network,
            self.durations,
            disk,
            watchers,
            idle_stop_s=self._idle_stop_s,
        )
        self.processes.append(process)
        self.current[name] = process
        return process

    # -- clients and gateways --

    def _client(self) -> None:
        tenant_id = self.random.choice(TENANTS)
        owner = self.current.get(self.plane.registry.tenant(tenant_id).node_id)
        living = self.living
        if not living:
            return
        process = self.random.choice(living)
        if owner is not None and not owner.clock.dead and self.random.random() < 0.5:
            process = owner
        self.clients.ask(process, tenant_id)

    def _look_up(self) -> None:
        question = wire.LookupRoute(tenant_id=self.random.choice(TENANTS), place=True)
        asked = Asked("gateway_1", "", self.now + 2.0, self.now, "gateway")
        spawn(self._ask_plane(asked, question), "a look-up")

    async def _ask_plane(self, asked: Asked, question: wire.Body) -> None:
        try:
            await self.plane.requests(asked, question)
        except PBClusterError as error:
            self.trace.add(self.now, "gateway_1", f"look-up: {error.code}")

    # -- properties --

    def broken(self, name: str, text: str) -> None:
        """A property does not hold."""
        self.found(Violation(name, text))

    def found(self, violation: Violation | None) -> None:
        """As :meth:`broken`."""
        if violation is not None and self.violation is None:
            self.trace.add(self.now, "world", str(violation))
            self.violation = violation

    def claimant(self, tenant_id: str) -> tuple[str, int]:
        """Node and epoch that the owner object shows."""
        return self.bucket.claimant(tenant_id)

    def local_acked(self, process: NodeProcess, tenant: Tenant, row: str) -> Violation | None:
        """A write was acknowledged as local."""
        self.local_acks += 1
        self.journals[tenant.tenant_id].local[row] = tenant.epoch
        record = self.plane.registry.tenant(tenant.tenant_id)
        if tenant.tenant_id in self.tombstones:
            return None
        if not record.degraded or (record.node_id, record.epoch) != (process.name, tenant.epoch):
            return Violation("local_is_committed", f"{row} at {process.name}")
        return None

    def _reported(self, process: NodeProcess, report: wire.TenantReport) -> None:
        what = f"reports {report.outcome} {report.tenant_id} {report.epoch} {report.detail}"
        self.trace.add(self.now, process.name, what)
        if report.outcome == "released" and process.runs(report.tenant_id):
            self.broken("released_is_over", f"{process.name} of {report.tenant_id}")
        owner = self.bucket.owner(report.tenant_id)
        lost = report.outcome == "refused" and "owns it" in report.detail
        own = owner is not None and owner.nonce in process.nonces
        if lost and own and owner is not None and owner.epoch == report.epoch:
            self.broken("own_claim_known", f"{process.name}: {report.detail}")

    def _applied(self) -> None:
        """Look at every tenant after each applied command."""
        for tenant_id in TENANTS:
            record = self.plane.registry.tenant(tenant_id)
            owner = (record.node_id, record.epoch)
            self._flag(tenant_id, record.degraded)
            before = self._known.get(tenant_id, ("", 0))
            if owner == before:
                continue
            self._known[tenant_id] = owner
            self.trace.add(self.now, "member", f"{tenant_id} to {owner[0]} epoch {owner[1]}")
            if record.degraded and tenant_id not in self.tombstones:
                self.broken("degraded_stays", f"{tenant_id} from {before} to {owner}")

    def _flag(self, tenant_id: str, degraded: bool) -> None:
        """Whoever ends the flag says that S3 has everything; but an operator, who gives it up."""
        before, journal = self._degraded.get(tenant_id, False), self.journals[tenant_id]
        self._degraded[tenant_id] = degraded
        if before and not degraded:
            self.trace.add(self.now, "member", f"{tenant_id} is degraded no more")
            missing = journal.local_missing(self.bucket.stored(tenant_id))
            if missing:
                self.broken("flag_ends_durable", f"{tenant_id}: {missing[:3]}")
            journal.caught_up()

    def _check(self) -> None:
        for tenant_id in TENANTS:
            answering = [each for each in self.living if each.answers(tenant_id)]
            if len(answering) > 1:
                names = [f"{each.name} start {each.number}" for each in answering]
                self.broken("one_owner", f"{tenant_id}: {', '.join(names)}")

    def _logged(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            failure = event["log_failure"]
            where = failure.getTraceback(elideFrameworkCode=False).strip().splitlines()[-8:]
            self.broken("no_internal_error", f"{event.get('what', '')}: {' '.join(where)}")

    # -- the run --

    def run(self, chaos_s: float = CHAOS_S) -> Result:
        """Until everything is well again, or a property breaks."""
        # A suspended coroutine of another world that is collected in the middle of this one would
        # run its ``finally`` here.
        collects = gc.isenabled()
        gc.disable()
        observer = cast(ILogObserver, self._logged)
        globalLogPublisher.addObserver(observer)
        try:
            self._run_until(lambda: self.now >= chaos_s)
            if self.violation is None:
                self.well = True
                self.faults.end()
                well_at = self.now
                self._run_until(lambda: self._recovered(well_at) or self.now > well_at + RECOVERY_S)
                if self.violation is None and not self._recovered(well_at):
                    self.broken("recovers", self._who_is_away(well_at))
        finally:
            globalLogPublisher.removeObserver(observer)
            if collects:
                gc.enable()
        return self._result()

    def _run_until(self, ended: Callable[[], bool]) -> None:
        while self.violation is None and not ended():
            self.clock.step()
            self._check()

    def _away(self, since: float) -> list[str]:
        clients = self.clients
        return [
            tenant_id
            for tenant_id in TENANTS
            if tenant_id not in self.tombstones
            and (
                clients.written.get(tenant_id, -1.0) < since
                or clients.read.get(tenant_id, -1.0) < clients.written[tenant_id]
                or self.plane.registry.tenant(tenant_id).degraded
            )
        ]

    def _recovered(self, since: float) -> bool:
        return not self._away(since)

    def _who_is_away(self, since: float) -> str:
        told = []
        for tenant_id in self._away(since):
            record = self.plane.registry.tenant(tenant_id)
            told.append(f"{tenant_id} on {record.node_id} epoch {record.epoch}")
            for each in self.living:
                tenant = each.tenants.find(tenant_id)
                if tenant is not None:
                    told.append(f"{each.name}: {tenant.state.value} {tenant.life.cause}")
        return "; ".join(told)

    def _result(self) -> Result:
        broken = self.violation.broken if self.violation is not None else ""
        return Result(
            self.seed,
            broken,
            str(self.violation) if self.violation is not None else "",
            self.trace.hash,
            self.trace.steps,
            sum(each.acked for each in self.journals.values()),
            self.clients.reads,
            sum(self.plane.registry.tenant(each).epoch for each in TENANTS),
            self.local_acks,
            tuple(self.trace.lines),
        )
