"""Rules 1 to 7 of "Ownership" in a world where everything goes wrong, and each rule left out."""

from __future__ import annotations

import gc
import os

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.durations import Durations
from pbcluster.node import acks
from pbcluster.testing.node_fakes import FakeReplication
from tests.node.ownership_world import World

#: More for a soak: PBCLUSTER_WORLD_SEEDS=1000.
SEEDS = int(os.environ.get("PBCLUSTER_WORLD_SEEDS", "8"))
SECONDS = 40.0
#: A left-out rule must be caught within so many seeds.
SEEDS_UNTIL_CAUGHT = 60


class WorldTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Kept, so that no coroutine of a dead node is thrown away in the middle of another world.
        self.worlds: list[World] = []
        self.addCleanup(self.forget)

    def forget(self) -> None:
        self.worlds.clear()
        gc.collect()
        self.flushLoggedErrors()

    def run_world(self, seed: int, **bug: object) -> World:
        world = World(seed, **bug)  # type: ignore[arg-type]
        self.worlds.append(world)
        world.run(SECONDS)
        return world

    def caught(self, **bug: object) -> None:
        for seed in range(SEEDS_UNTIL_CAUGHT):
            if self.run_world(seed, **bug).violations:
                self.flushLoggedErrors()
                return
        self.fail("nobody noticed that a rule was left out")

    def test_nothing_acknowledged_is_missing(self) -> None:
        """Every read shows every write that was acknowledged before it."""
        acked = takeovers = reads = 0
        for seed in range(SEEDS):
            world = self.run_world(seed)
            self.assertEqual(world.violations, [], f"seed {seed}")
            self.assertEqual(self.flushLoggedErrors(), [], f"seed {seed}")
            acked += len(world.acked)
            reads += world.reads
            takeovers += world.plane.takeovers
        self.assertGreater(acked, 100 * SEEDS)
        self.assertGreater(reads, 100 * SEEDS)
        self.assertGreater(takeovers, 3 * SEEDS)

    def test_lease_that_covers_all(self) -> None:
        """An acknowledgement that does not name its list lets a deposed owner answer."""
        self.caught(lease_covers_all=True)

    def test_no_margin(self) -> None:
        """Giving away at once overlaps with the old lease."""
        self.caught(margin_s=0.0, false_suspicion=0.1)

    def test_proof_aged_from_its_answer(self) -> None:
        """A late answer would prove for too long."""
        self.caught(age_from_answer=True)

    def test_no_wait_after_the_claim(self) -> None:
        """A predecessor's look at the owner object outlives the claim."""
        self.caught(durations=Durations(claim_wait_s=0.0))

    def test_no_owner_check_after_the_sync(self) -> None:
        """A deposed owner acknowledges what its successor did not restore."""
        self.patch(acks, "still_ours", lambda owner, seen: True)
        self.caught()

    def test_resume_without_a_position(self) -> None:
        """A copy that was put back serves, and replicates, an older state."""
        self.patch(FakeReplication, "local_txid", lambda self, database: 10**9)
        self.caught()
