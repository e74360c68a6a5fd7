"""A node and whose its bucket is: at the start, and while it runs."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import generations
from pbcluster.errors import S3Unavailable, StorageCorrupt
from pbcluster.generations import LOOK_INTERVAL_S, LOOK_TIMEOUT_S, ForeignBucket, key_of
from pbcluster.node.generations import GenerationWatch, S3Generations
from pbcluster.testing.node_fakes.s3 import FakeS3, FakeS3Client


class Node:
    """A watch with its own way to S3."""

    def __init__(self, clock: Clock, s3: FakeS3, cluster_id: str) -> None:
        self.client: FakeS3Client = s3.client(cluster_id)
        self.told: list[str] = []
        self.watch = GenerationWatch(
            S3Generations(self.client),
            cluster_id=cluster_id,
            bucket="shops",
            clock=clock,
            utc_now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            random=lambda: 0.0,
            superseded=lambda error: self.told.append(str(error)),
        )

    def enter(self) -> Any:
        return Deferred.fromCoroutine(self.watch.enter())


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.s3 = FakeS3(self.clock)
        self.a = Node(self.clock, self.s3, "cluster_a")

    def tearDown(self) -> None:
        self.a.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def run_now(self, coroutine: Coroutine[Deferred[Any], Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def recover(self, number: int, cluster_id: str, previous: str = "cluster_a") -> None:
        record = generations.Generation(
            generation=number, cluster_id=cluster_id, previous=previous, at=""
        )
        self.s3.write(key_of(number), generations.encode(record))

    def owner(self, number: int = 1) -> str:
        return generations.decode(number, self.s3.objects[key_of(number)].body).cluster_id

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)


class StartTests(Case):
    def test_fresh_bucket(self) -> None:
        """The first node claims it for its cluster, once."""
        self.successResultOf(self.a.enter())
        self.assertEqual(self.owner(), "cluster_a")
        first = self.s3.objects[key_of(1)]
        self.successResultOf(Node(self.clock, self.s3, "cluster_a").enter())
        self.assertIs(self.s3.objects[key_of(1)], first)

    def test_two_nodes_of_one_cluster_race(self) -> None:
        """Both find it fresh, one claims it, both serve."""
        other = Node(self.clock, self.s3, "cluster_a")
        self.a.client.faults.delay_s = other.client.faults.delay_s = 0.2
        entering = self.a.enter(), other.enter()
        self.advance(2)
        for each in entering:
            self.successResultOf(each)
        self.assertEqual([m for _, m, key in self.s3.requests if key == key_of(1)].count("PUT"), 2)

    def test_two_clusters_race(self) -> None:
        """One of two clusters has the bucket, the other's node ends."""
        b = Node(self.clock, self.s3, "cluster_b")
        self.a.client.faults.delay_s, b.client.faults.delay_s = 0.2, 0.4
        entering = self.a.enter(), b.enter()
        self.advance(3)
        self.successResultOf(entering[0])
        self.assertIn("belongs to cluster cluster_a", str(self.failed(entering[1], ForeignBucket)))

    def test_lost_answer(self) -> None:
        """A claim whose answer got lost is found by the next try."""
        self.a.client.faults.lose_answers = 1
        self.failed(self.a.enter(), S3Unavailable)
        self.successResultOf(self.a.enter())

    def test_foreign_bucket(self) -> None:
        """Only the newest generation counts, and the node says whose it is."""
        self.recover(1, "cluster_a", "")
        self.recover(2, "cluster_b")
        told = str(self.failed(self.a.enter(), ForeignBucket))
        self.assertIn("belongs to cluster cluster_b (generation 2)", told)
        self.successResultOf(Node(self.clock, self.s3, "cluster_b").enter())

    def test_recovered_during_the_claim(self) -> None:
        """What comes after our claim of the first is seen before we serve."""
        claim = self.a.watch._store.claim

        async def slow(wanted: generations.Generation) -> None:
            await claim(wanted)
            self.recover(2, "cluster_b")

        self.patch(self.a.watch._store, "claim", slow)
        self.failed(self.a.enter(), ForeignBucket)

    def test_not_known(self) -> None:
        """Without S3, or with an object listed that is not there, nothing is known."""
        self.a.client.faults.down = True
        self.failed(self.a.enter(), S3Unavailable)
        self.assertEqual(self.s3.objects, {})

    def test_junk(self) -> None:
        """What we do not write is no generation, and none is claimed beside it."""
        self.s3.write(generations.PREFIX + "newest", b"")
        self.failed(self.a.enter(), StorageCorrupt)
        self.assertEqual(len(self.s3.objects), 1)

    def failed(self, entering: Any, kind: type[Exception]) -> Exception:
        return self.failureResultOf(entering, kind).value  # type: ignore[no-any-return]


class WatchTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.a.enter())
        self.a.watch.start()

    def test_superseded(self) -> None:
        """A newer generation of another cluster is told within an interval, once; then the watch
        is over."""
        self.advance(3 * LOOK_INTERVAL_S)
        self.assertEqual(self.a.told, [])
        self.recover(2, "cluster_b")
        self.advance(LOOK_INTERVAL_S + 0.1)
        (told,) = self.a.told
        self.assertIn("cluster cluster_b (generation 2)", told)
        self.recover(3, "cluster_c", "cluster_b")
        self.advance(3 * LOOK_INTERVAL_S)
        self.assertEqual(len(self.a.told), 1)

    def test_our_own_next_generation(self) -> None:
        """A newer generation of our own cluster is no reason to end."""
        self.recover(2, "cluster_a")
        self.advance(3 * LOOK_INTERVAL_S)
        self.assertEqual(self.a.told, [])

    def test_s3_away(self) -> None:
        """While S3 fails, hangs or refuses the node goes on; what happened meanwhile is found."""
        faults = self.a.client.faults
        faults.down = True
        self.advance(3 * LOOK_INTERVAL_S)
        faults.down, faults.delay_s = False, 10 * LOOK_TIMEOUT_S
        self.recover(2, "cluster_b")
        self.advance(3 * (LOOK_INTERVAL_S + LOOK_TIMEOUT_S))
        faults.delay_s, faults.refused = 0.0, True
        self.advance(2 * (LOOK_INTERVAL_S + LOOK_TIMEOUT_S))
        self.assertEqual(self.a.told, [])
        faults.refused = False
        self.advance(2 * LOOK_INTERVAL_S)
        self.assertEqual(len(self.a.told), 1)
        self.advance(100)  # the answers of looks that were given up

    def test_what_is_gone_is_no_news(self) -> None:
        """Generations are never removed: less than before says nothing, nor does junk, nor a fault
        in the code, and the watch goes on."""
        self.recover(2, "cluster_a")
        self.recover(1, "cluster_b", "")
        self.advance(2 * LOOK_INTERVAL_S)
        del self.s3.objects[key_of(2)]
        self.advance(2 * LOOK_INTERVAL_S)
        self.s3.objects.clear()
        self.advance(2 * LOOK_INTERVAL_S)
        self.s3.write(key_of(3), b"junk")
        self.advance(2 * LOOK_INTERVAL_S)

        async def broken() -> None:
            raise ZeroDivisionError

        broken_store = self.patch(self.a.watch._store, "newest", broken)
        self.advance(2 * LOOK_INTERVAL_S)
        broken_store.restore()
        self.assertEqual(self.a.told, [])
        self.recover(3, "cluster_b")
        self.advance(2 * LOOK_INTERVAL_S)
        self.assertEqual(len(self.a.told), 1)

    def test_everybody_has_ended_after_settling(self) -> None:
        """However slow S3 answers within its bound, SETTLE_S after the claim the node knows."""
        for early in (0.0, 1.3, 2.6, 4.9, 7.1, 9.9):
            node = Node(self.clock, self.s3, f"cluster_{early}")
            self.s3.objects.clear()
            self.successResultOf(node.enter())
            node.client.faults.delay_s = 2.0  # a listing and a read, within the bound
            node.watch.start()
            self.advance(10 + early)
            self.recover(2, "cluster_b")
            self.advance(generations.SETTLE_S)
            self.assertEqual(len(node.told), 1, early)
