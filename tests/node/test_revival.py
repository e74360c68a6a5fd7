"""``node.revival``: Litestream that sleeps after an outage of S3 is begun anew."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ProcessFailed
from pbcluster.node.outages import FRESH_S, NodeOutages
from pbcluster.node.revival import BACKOFF_S, PATIENCE_S, Revival
from pbcluster.testing.node_fakes.replication import FakeReplication
from pbcluster.testing.node_fakes.s3 import FakeS3
from tests.node.harness import NodeHarness


class SleepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        node = NodeHarness(self.clock, FakeS3(self.clock))
        self.s3 = node.fake.s3
        self.replication = FakeReplication(self.clock, self.s3, node.fake.disk)
        self.replication.running = True
        nobody: Any = None
        self.outages = NodeOutages(self.clock, node.fake.claims, nobody, "node_a", lambda: 1)
        self.closed = False
        parts = attrs.evolve(node.parts, outages=self.outages, replication=self.replication)
        Revival(parts, [], lambda: self.closed).start()

    def away(self) -> bool:
        self.clock.advance(FRESH_S + 0.1)
        asked = Deferred.fromCoroutine(self.outages.away())
        self.clock.advance(0.1)
        return self.successResultOf(asked)

    def outage(self) -> None:
        """S3 was away, and is there again; this node has noticed both."""
        self.s3.faults.down = True
        self.assertTrue(self.away())
        self.replication.waiting.append(self.clock.seconds())
        self.s3.faults.down = False
        self.assertFalse(self.away())

    def test_it_sleeps(self) -> None:
        """A sync from before S3's return that still waits: Litestream is ended and started."""
        self.outage()
        self.clock.advance(PATIENCE_S - 0.2)
        self.assertEqual(self.replication.starts, 0)
        self.clock.advance(0.3)
        self.assertEqual(self.replication.starts, 1)
        self.assertFalse(self.away())

    def test_away_until_it_is_back(self) -> None:
        """S3 counts as away until Litestream runs again, so that writes wait."""
        start = self.replication.start
        tries = []

        async def fails_once() -> None:
            tries.append(self.clock.seconds())
            if len(tries) == 1:
                raise ProcessFailed("no memory")
            await start()

        self.patch(self.replication, "start", fails_once)
        self.outage()
        self.clock.advance(PATIENCE_S)
        asked = Deferred.fromCoroutine(self.outages.away())
        self.assertTrue(self.successResultOf(asked))
        self.clock.advance(BACKOFF_S)
        self.assertEqual(len(tries), 2)
        self.assertFalse(self.away())

    def test_it_does_not_sleep(self) -> None:
        """A sync that ended, or began after the return, is none that sleeps; nor is a node that
        ends in need of one."""
        self.outage()
        self.replication.waiting.clear()
        self.replication.waiting.append(self.clock.seconds())
        self.clock.advance(PATIENCE_S)
        self.outage()
        self.closed = True
        self.clock.advance(PATIENCE_S)
        self.assertEqual(self.replication.starts, 0)
