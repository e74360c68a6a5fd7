"""The simulator: seeds pass, repeat themselves exactly, and planted bugs are caught."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import outcomes, raft_driver, raft_proposals
from pbcluster.testing.raft_sim.__main__ import main
from pbcluster.testing.raft_sim.mutants import MUTANTS
from pbcluster.testing.raft_sim.runner import hunt, run_seed, run_seeds, shorten
from pbcluster.testing.raft_sim.schedule import KINDS, draw_profile, draw_schedule

#: A short run for every change; `make sim` runs the thousands.
SEEDS = 100
#: Mutants that one of the first seeds catches: enough to see that the hunt works.
QUICK_MUTANTS = {
    "vote_not_persisted": 5,
    "old_term_counting": 40,
    "unconditional_truncation": 10,
    "leader_counts_unsynced": 40,
    "gap_ignored": 20,
    "two_votes_a_term": 40,
    "no_prevote": 40,
    "ack_before_fsync": 5,
    "messages_before_gap": 20,
    "lazy_commit_index_written_last": 10,
    "snapshot_counts_before_its_pieces": 10,
    "installed_snapshot_not_loaded": 20,
    "answer_by_index_alone": 40,
    "answer_before_apply": 5,
    "leader_reads_without_round": 40,
    "repetition_runs_again": 20,
}
ROOT = Path(__file__).parents[2]


class SeedTests(SynchronousTestCase):
    def test_all_properties_hold(self) -> None:
        """Over the first seeds, in which things happened: commits, operations, faults."""
        summary = run_seeds(range(SEEDS))
        self.assertEqual([failure.text for failure in summary.failures], [])
        self.assertGreater(summary.commits, 20 * SEEDS)
        self.assertGreater(summary.operations, 20 * SEEDS)

    def test_every_kind_of_fault_occurs(self) -> None:
        """No kind is forgotten by the schedules of the first seeds."""
        drawn = set()
        for seed in range(SEEDS):
            profile = draw_profile(Random(f"{seed}/profile"))
            schedule = draw_schedule(Random(f"{seed}/schedule"), profile)
            drawn |= {fault.kind for fault in schedule}
        self.assertEqual(drawn, set(KINDS))

    def test_adds_end_before_the_registry_forgets(self) -> None:
        """Seed 77728 had more adds of one key than the registry remembers starts of a node: its
        clients could not say any more what they saw."""
        self.assertEqual(run_seed(77728).broken, "")

    def test_the_same_seed_gives_the_same_trace(self) -> None:
        """Twice in this process, and in others with other hash seeds."""
        here = run_seed(7)
        self.assertEqual(run_seed(7).trace_hash, here.trace_hash)
        self.assertNotEqual(run_seed(8).trace_hash, here.trace_hash)
        program = (
            "from pbcluster.testing.raft_sim.runner import run_seed; print(run_seed(7).trace_hash)"
        )
        for hash_seed in ("1", "2"):
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
            out = subprocess.run(
                [sys.executable, "-c", program],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            self.assertEqual(out.stdout.strip(), here.trace_hash)

    def test_a_kept_trace_is_the_same_run(self) -> None:
        """To look does not change what is seen."""
        self.assertEqual(run_seed(3, keep_trace=True).trace_hash, run_seed(3).trace_hash)

    def test_processes_change_nothing(self) -> None:
        """The summary of two processes is that of one, and the order of progress too."""
        seen: list[int] = []
        one = run_seeds(range(6))
        two = run_seeds(range(6), jobs=2, progress=lambda done, _failed: seen.append(done))
        self.assertEqual(one, two)
        self.assertEqual(seen, [1, 2, 3, 4, 5, 6])

    def test_production_is_as_before(self) -> None:
        """Bounds that a run makes small, and loggers that it silences, are back after it."""

        def changed() -> tuple[object, ...]:
            patience_s = raft_proposals.PROPOSAL_TIMEOUT_S
            return (outcomes.MAX_OUTCOMES, patience_s, raft_driver.log.observer)

        before = changed()
        run_seed(3)
        self.assertEqual(before, changed())


class MutantTests(SynchronousTestCase):
    def test_there_are_enough(self) -> None:
        """At least fifty, in the core and around it, with names of their own."""
        names = [mutant.name for mutant in MUTANTS]
        self.assertGreaterEqual(len(names), 50)
        self.assertEqual(len(set(names)), len(names))

    def test_quick_ones_are_caught(self) -> None:
        """By a property that they name, within few seeds."""
        for mutant in MUTANTS:
            if mutant.name in QUICK_MUTANTS:
                caught = hunt(mutant, range(QUICK_MUTANTS[mutant.name]))
                self.assertTrue(caught.is_caught, f"{mutant.name}: {caught.others}")

    def test_a_planted_bug_is_taken_out_again(self) -> None:
        """After the hunt the code is as before."""
        before = [mutant.owner.__dict__[mutant.attribute] for mutant in MUTANTS]
        for mutant in MUTANTS:
            with mutant.planted():
                self.assertIs(mutant.owner.__dict__[mutant.attribute], mutant.replacement)
        after = [mutant.owner.__dict__[mutant.attribute] for mutant in MUTANTS]
        self.assertEqual(before, after)

    def test_a_failure_is_shortened(self) -> None:
        """To a schedule that breaks the same property, with its trace."""
        mutant = next(one for one in MUTANTS if one.name == "old_term_counting")
        with mutant.planted():
            failure = next(
                result for result in map(run_seed, range(100)) if result.broken == "commit_own_term"
            )
            shorter = shorten(failure)
        self.assertEqual(shorter.broken, failure.broken)
        self.assertLess(len(shorter.schedule), len(failure.schedule))
        self.assertIn("BROKEN", shorter.lines[-1])


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[str] = []
        self.patch(sys.modules[main.__module__], "_say", lambda text="": self.said.append(text))

    def test_seeds(self) -> None:
        """A range of seeds ends with their count and the hash of all traces."""
        self.assertEqual(main(["--jobs", "1", "--from", "3", "--to", "6"]), 0)
        self.assertIn("seeds 3 to 5: 0 failed", self.said[-1])
        self.assertIn("trace hash", self.said[-1])

    def test_mutants(self) -> None:
        """One that is caught, one that is not within the seeds given, one that does not exist."""
        self.assertEqual(main(["--jobs", "1", "--seeds", "5", "--mutants", "ack_before_fsync"]), 0)
        self.assertEqual(main(["--jobs", "1", "--seeds", "0", "--mutants", "ack_before_fsync"]), 1)
        self.assertEqual(main(["--mutants", "none_such"]), 2)

    def test_a_failure_is_shown(self) -> None:
        """Its property, the shortened schedule and the end of its trace; the status is 1."""
        mutant = next(one for one in MUTANTS if one.name == "vote_not_persisted")
        with mutant.planted():
            self.assertEqual(main(["--jobs", "1", "--seeds", "3"]), 1)
        text = "\n".join(self.said)
        self.assertIn("durable_before_told", text)
        self.assertIn("shortest schedule found", text)
