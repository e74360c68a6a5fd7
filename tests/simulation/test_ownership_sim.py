"""The ownership simulator: the rules hold in it, it repeats itself, and it catches planted bugs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.ownership_sim.mutants import MUTANTS
from pbcluster.testing.ownership_sim.runner import hunt, run_seed, run_seeds

#: More by ``make sim-ownership``.
SEEDS = 12
#: Caught within the first seeds; the others by ``make sim-ownership-mutants``.
QUICK_MUTANTS = (
    "acknowledged_before_the_sync",
    "any_owner_proves",
    "prefix_shared_by_epochs",
    "restored_without_ready",
)
MUTANT_SEEDS = 12


class OwnershipSimTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(self._forget)

    def _forget(self) -> None:
        # Dropped worlds end their suspended coroutines here, not in another test.
        gc.collect()
        self.flushLoggedErrors()

    def test_every_property_holds(self) -> None:
        """One owner answers, nothing acknowledged is lost, no read is stale; everybody recovers."""
        summary = run_seeds(range(SEEDS))
        self.assertEqual([str(each.text) for each in summary.failures], [])
        self.assertGreater(summary.acked, 20 * SEEDS)
        self.assertGreater(summary.reads, 40 * SEEDS)
        self.assertGreater(summary.takeovers, 4 * SEEDS)

    def test_same_seed_same_trace(self) -> None:
        """A seed gives the same steps in another process with other hashes of strings."""
        argv = [sys.executable, "-m", "pbcluster.testing.ownership_sim"]
        argv += ["--from", "3", "--to", "5", "--jobs", "1", "--json"]
        env = os.environ | {"PYTHONHASHSEED": "12345"}
        told = subprocess.run(argv, env=env, capture_output=True, check=True, timeout=60)
        self.assertEqual(json.loads(told.stdout)["trace_hash"], run_seeds(range(3, 5)).trace_hash)
        self.assertNotEqual(run_seed(3).trace_hash, run_seed(4).trace_hash)

    def test_planted_bugs_are_caught(self) -> None:
        """Each by a property that it names."""
        mutants = {one.name: one for one in MUTANTS}
        self.assertGreaterEqual(len(mutants), 18)
        for name in QUICK_MUTANTS:
            caught = hunt(mutants[name], range(MUTANT_SEEDS))
            self.assertTrue(caught.is_caught, f"{name}: {caught.others}")
            self.flushLoggedErrors()
