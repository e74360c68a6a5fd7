"""Whose a bucket is, on the real SeaweedFS and with a real node."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbcluster import generations
from pbcluster.cli import procfs
from pbcluster.cli.bucket import Bucket, bucket_of
from pbcluster.cli.generations import claim_next, newest
from pbcluster.cli.http import Unreachable
from pbcluster.generations import Generation, NotNewest
from pbcluster.node.generations import S3Generations
from pbcluster.node.s3 import S3Objects
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.seaweed import shared_seaweed

RACERS = 8


def now() -> datetime:
    return datetime.now(UTC)


class RaceTests(TestCase):
    timeout = 60

    async def test_one_of_many_wins(self) -> None:
        """Of nodes that claim a fresh bucket at once one wins and all agree on it; of recoveries at
        once one wins and the others are told its id."""
        seaweed = shared_seaweed()
        address = seaweed.address(seaweed.new_bucket())
        objects = S3Objects(reactor, address)
        self.addCleanup(objects.stop)
        store = S3Generations(objects)

        async def claim(cluster_id: str) -> Generation | None:
            await store.claim(generations.first(cluster_id, ""))
            return await store.newest()

        racing = [Deferred.fromCoroutine(claim(f"cluster_{n}")) for n in range(RACERS)]
        found = await gatherResults(racing)
        self.assertEqual([each.generation for each in found], [1] * RACERS)
        (old_id,) = {each.cluster_id for each in found}

        def recover(number: int) -> str:
            try:
                return claim_next(Bucket(address), old_id, f"new_{number}", now()).cluster_id
            except NotNewest as error:
                return str(error)

        with ThreadPoolExecutor(RACERS) as threads:
            results = list(threads.map(recover, range(RACERS)))
        current = await store.newest()
        assert current is not None
        self.assertEqual((current.generation, current.previous), (2, old_id))
        self.assertEqual(results.count(current.cluster_id), 1, results)
        losers = [each for each in results if each != current.cluster_id]
        self.assertEqual(
            [f"as {current.cluster_id} " in each for each in losers], [True] * (RACERS - 1)
        )
        self.assertEqual(newest(Bucket(address)), current)


class NodeTests(SynchronousTestCase):
    timeout = 120

    def test_a_recovered_cluster_is_not_served(self) -> None:
        """When its cluster was recovered under another id a node ends within 10 s with a sentence
        that says so, whatever its own control plane still grants, and its tenant answers no more;
        nor does it start again."""
        cluster = RealCluster(nodes=1)
        self.addCleanup(cluster.close)
        cluster.start()
        cluster.create_tenant("shop", "me@example.com", "long enough")
        bucket = bucket_of(cluster.where, cluster.plan)
        self.assertTrue(self.answers(cluster))
        first = newest(bucket)
        assert first is not None
        self.assertEqual((first.generation, first.cluster_id), (1, cluster.plan.cluster_id))
        below = cluster.children_of("node_1")
        claim_next(bucket, first.cluster_id, "cluster_recovered", now())
        node, claimed_at = cluster.child("node_1"), time.monotonic()
        cluster.wait_until(lambda: node.ended() is not None, "the node to end", 10.0)
        print(f"  [ended after {time.monotonic() - claimed_at:.1f} s]", file=sys.__stderr__)
        self.assertEqual(node.ended(), "exit status 1")
        told = (
            "pbnode: the bucket pbcluster belongs to cluster cluster_recovered (generation 2), but "
            f"cluster_id in this node's configuration is {first.cluster_id}: set"
        )
        self.assertIn(told, cluster.where.log("node_1").read_text())
        self.assertEqual([who for who in below if procfs.alive(who)], [])
        self.assertFalse(self.answers(cluster))
        cluster.start("node_1", wait=False)
        cluster.wait_until(lambda: node.ended() is not None, "the node to end again", 10.0)
        self.assertEqual(node.ended(), "exit status 1")
        log = cluster.where.log("node_1").read_text()
        self.assertEqual(log.count(f"\n{told}"), 2)
        self.assertNotIn("Traceback", log)

    def answers(self, cluster: RealCluster) -> bool:
        """Whether the tenant answers within a second; else its gateway still looks for a node."""
        try:
            return cluster.ask_tenant("shop", "GET", "/api/health", timeout_s=1.0).status == 200
        except Unreachable:
            return False
