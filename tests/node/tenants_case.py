"""What the tests of tenants on fakes share."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.node_fakes.s3 import FakeS3
from tests.node.harness import NodeHarness, T


class Base(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.s3 = FakeS3(self.clock)
        self.node = NodeHarness(self.clock, self.s3)

    def write(self, row: str, node: NodeHarness | None = None) -> Deferred[None]:
        """PocketBase commits a row; the Deferred fires when the node acknowledges it."""
        node = node or self.node
        node.fake.workloads.running[T].write(row)
        return Deferred.fromCoroutine(node.tenant().replication.acknowledge())

    def prove(self, node: NodeHarness | None = None) -> Deferred[None]:
        return Deferred.fromCoroutine((node or self.node).tenant().prove())
