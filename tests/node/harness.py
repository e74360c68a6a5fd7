"""One node's tenants on fakes: its clock, its S3, its assignments."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pbcluster.durations import Durations
from pbcluster.node.lifecycle import State
from pbcluster.node.parts import NodeParts
from pbcluster.node.proofs import Proofs
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenants import Tenants
from pbcluster.records import Durability, InitialSuperuser
from pbcluster.testing.node_fakes.disk import FakeDisk
from pbcluster.testing.node_fakes.node import FakeNode, fake_node
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.wire import Assignment, NodeAssignments, TenantReport

T = "tenant_aaaaaaaa"
U = "tenant_bbbbbbbb"
HOST = "shop.localhost"
_nonces = itertools.count(1)


class Observed:
    """``parts.Observer`` that counts."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.events.append((name, args[0] if args else None))


def assignment(tenant_id: str = T, epoch: int = 1, **kwargs: Any) -> Assignment:
    given: dict[str, Any] = {
        "name": "shop",
        "hosts": (HOST,),
        "ever_ready": epoch > 1,
        "durability": Durability.SYNC,
        "wanted": False,
        "initial_superuser": InitialSuperuser(email="me@example.com", password_hash="x"),
    }
    return Assignment(tenant_id=tenant_id, epoch=epoch, **(given | kwargs))


class NodeHarness:
    """A node with everything but its sockets."""

    def __init__(
        self,
        clock: Clock,
        s3: FakeS3,
        name: str = "node_a",
        *,
        disk: FakeDisk | None = None,
        capacity: int = 10,
        idle_stop_s: float = 900.0,
    ) -> None:
        self.name = name
        self.clock = clock
        self.fake: FakeNode = fake_node(clock, s3, name, disk)
        self.proofs = Proofs(Durations())
        self.reports: list[TenantReport] = []
        self.observed = Observed()
        self.parts = NodeParts(
            node_id=name,
            clock=clock,
            boottime=clock.seconds,
            utc_now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            new_nonce=lambda: f"nonce-{next(_nonces)}",
            encryption_key=lambda tenant_id: "k" * 32,
            claims=self.fake.claims,
            replication=self.fake.replication,
            workloads=self.fake.workloads,
            directories=self.fake.directories,
            proofs=self.proofs,
            report=self.reports.append,
            observer=self.observed,
        )
        self.tenants = Tenants(self.parts, capacity=capacity, idle_stop_s=idle_stop_s)
        self.tenants.registered(1)
        self.tenants.start()
        self._index = 0

    def assign(self, *assignments: Assignment, index: int | None = None) -> bool:
        self._index = index if index is not None else self._index + 1
        return self.tenants.obey(NodeAssignments(self.name, 1, self._index, assignments))

    def lease(self) -> None:
        """A lease that was asked for and acknowledged right now."""
        self.proofs.lease_acked(self.clock.seconds(), granted=True, index=self.tenants.obeyed_index)

    def ready(self, tenant_id: str = T, *, write: bool = True, within_s: float = 30.0) -> Any:
        """A Deferred of ``Tenants.ready``."""
        deadline = self.clock.seconds() + within_s
        waiting: Deferred[Tenant] = Deferred.fromCoroutine(
            self.tenants.ready(tenant_id, write=write, deadline=deadline)
        )
        return waiting

    def run(self, seconds: float, step: float = 0.1) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def tenant(self, tenant_id: str = T) -> Tenant:
        found = self.tenants.find(tenant_id)
        assert found is not None
        return found

    def load(self, tenant_id: str = T) -> Tenant:
        """Load it and wait out the claim."""
        self.ready(tenant_id)
        self.run(1.0)
        tenant = self.tenant(tenant_id)
        assert tenant.state is State.ACTIVE, (tenant.state, tenant.life.cause)
        return tenant

    def outcomes(self, tenant_id: str = T) -> list[tuple[str, int]]:
        return [(each.outcome, each.epoch) for each in self.reports if each.tenant_id == tenant_id]
