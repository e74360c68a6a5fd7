"""One start of a node: production tenants, lease and reports on simulated shells.

A machine outlives its processes: its disk stays, and after a death of the node alone a tenant's
PocketBase may be left over for a while, with the directory's lock (rule 11).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import attrs

from pbcluster.durations import Durations
from pbcluster.node.claims import S3ClaimStore
from pbcluster.node.heartbeat import Condition, NodeFacts, Standing
from pbcluster.node.outages import NodeOutages
from pbcluster.node.parts import NodeParts, spawn
from pbcluster.node.proofs import Proofs
from pbcluster.node.reports import Reports
from pbcluster.node.tenants import Tenants
from pbcluster.records import NodeResources, NodeStatus
from pbcluster.testing.node_fakes.database import Database
from pbcluster.testing.node_fakes.directories import FakeDirectories
from pbcluster.testing.node_fakes.node import FakeNode
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.testing.node_fakes.workloads import FakeWorkloads
from pbcluster.testing.ownership_sim.clocks import ProcessClock
from pbcluster.testing.ownership_sim.network import Network, SimControlPlaneClient
from pbcluster.testing.ownership_sim.storage import SimDisk, SimReplication, SimS3Client, Weather
from pbcluster.wire import TenantReport

CAPACITY = 10


class Unobserved:
    """``Observer`` that nobody looks at."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


@attrs.frozen
class Watchers:
    """Whom a process tells what it does.

    :ivar requested: client, method and key of each request that S3 carried out.
    :ivar restored: who restored, tenant, epoch, copy, and whether the epoch has READY.
    :ivar reported: each report at the moment the node makes it.
    """

    requested: Callable[[str, str, str], None]
    restored: Callable[[NodeProcess, str, int, Database, bool], None]
    reported: Callable[[NodeProcess, TenantReport], None]


class NodeProcess:
    """See the module.

    :ivar clock: its view of time; pausing and killing go by it. :ivar fake: its shells.
    """

    def __init__(
        self,
        name: str,
        number: int,
        clock: ProcessClock,
        random: Random,
        s3: FakeS3,
        network: Network,
        durations: Durations,
        disk: SimDisk,
        watchers: Watchers,
        *,
        idle_stop_s: float,
    ) -> None:
        """
        :param number: of this start, unique in the world.
        """
        self.name = name
        self.number = number
        self.clock = clock
        self.weather = Weather()
        self.disk = disk
        self.proofs = Proofs(durations)
        #: Of all claims that this process tried.
        self.nonces: set[str] = set()
        self._watchers = watchers
        self.client = SimS3Client(s3, name, clock, random, self.weather, watchers.requested)
        replication = SimReplication(clock, self.client, disk, partial(watchers.restored, self))
        replication.running = True
        self.fake = FakeNode(
            self.client,
            disk,
            S3ClaimStore(self.client),
            replication,
            FakeWorkloads(clock, disk),
            FakeDirectories(disk),
        )
        self.fake.workloads.start_delay_s = 0.03
        self.fake.workloads.stop_delay_s = 0.02
        self._assemble(random, network, idle_stop_s)

    def _assemble(self, random: Random, network: Network, idle_stop_s: float) -> None:
        keys = (f"key-{self.number}-{n}" for n in itertools.count(1))
        plane = SimControlPlaneClient(network, self.name, self.clock)
        self._standing: Standing
        self._reports = Reports(
            self.clock, plane, lambda: self._standing.incarnation, lambda: next(keys)
        )
        utc_now = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # noqa: E731
        parts = NodeParts(
            node_id=self.name,
            clock=self.clock,
            boottime=self.clock.seconds,
            utc_now=utc_now,
            new_nonce=lambda: self._new_nonce(random),
            encryption_key=lambda tenant_id: "k" * 32,
            claims=self.fake.claims,
            replication=self.fake.replication,
            workloads=self.fake.workloads,
            directories=self.fake.directories,
            proofs=self.proofs,
            report=self._report,
            observer=Unobserved(),
            outages=NodeOutages(
                self.clock,
                self.fake.claims,
                plane,
                self.name,
                lambda: self._standing.incarnation,
            ),
        )
        self.tenants = Tenants(parts, capacity=CAPACITY, idle_stop_s=idle_stop_s)
        self._standing = Standing(
            NodeFacts(
                node_id=self.name,
                start_id=f"start-{self.number}",
                address=f"http://127.0.0.1:{1000 + self.number}",
                capacity=CAPACITY,
            ),
            clock=self.clock,
            boottime=self.clock.seconds,
            utc_now=utc_now,
            client=plane,
            proofs=self.proofs,
            owned=self.tenants,
            condition=self._condition,
            new_key=lambda: next(keys),
        )
        plane.start(self._standing.handle)
        self.tenants.start()
        spawn(self._standing.start(), f"{self.name} registers")

    def _new_nonce(self, random: Random) -> str:
        nonce = f"{random.getrandbits(64):016x}"
        self.nonces.add(nonce)
        return nonce

    def _report(self, report: TenantReport) -> None:
        self._watchers.reported(self, report)
        self._reports.send(report)

    def _condition(self) -> Condition:
        return Condition(
            status=NodeStatus.HEALTHY,
            active=len(self.tenants.cache),
            cached=0,
            hits=0,
            misses=0,
            evictions=0,
            resources=NodeResources(),
            tenants=self.tenants.usage(),
        )

    def answers(self, tenant_id: str) -> bool:
        """Whether a read that came at this moment would be handed to PocketBase."""
        if not self.clock.runs:
            return False
        tenant = self.tenants.find(tenant_id)
        return tenant is not None and tenant.upstream(write=False) is not None and tenant.proven()

    def database(self, tenant_id: str) -> Path:
        """Path of the tenant's data.db."""
        return self.fake.directories.database(tenant_id)

    def replaced(self, tenant_id: str) -> bool:
        """Whether the tenant itself put another file in its database's place."""
        found = self.disk.databases.get(self.database(tenant_id))
        return found is not None and found.inode in self.disk.replaced

    def runs(self, tenant_id: str) -> bool:
        """Whether a PocketBase of the tenant's runs that this process started."""
        found = self.fake.workloads.running.get(tenant_id)
        return found is not None and found._workloads is self.fake.workloads

    # -- death --

    def die(self, *, orphans: bool) -> None:
        """kill -9. :param orphans: its PocketBases live on for now, and keep their locks."""
        self.clock.dead = True
        running, locks = dict(self.fake.workloads.running), dict(self.fake.directories.locks)
        self.fake.die()
        if orphans:
            self.fake.workloads.running.update(running)
            self.fake.directories.locks.update(locks)

    def inherit(self, before: NodeProcess) -> None:
        """Find what an earlier process of this machine left over."""
        self.fake.workloads.running.update(before.fake.workloads.running)
        self.fake.directories.locks.update(before.fake.directories.locks)

    def orphans_end(self, before: NodeProcess) -> None:
        """What was left over dies at last."""
        for tenant_id, workload in before.fake.workloads.running.items():
            workload.alive = False
            if self.fake.workloads.running.get(tenant_id) is workload:
                del self.fake.workloads.running[tenant_id]
        for tenant_id, lock in before.fake.directories.locks.items():
            if self.fake.directories.locks.get(tenant_id) is lock:
                del self.fake.directories.locks[tenant_id]
