"""``benchmarks.soaks``: what a soak told becomes figures, also when it broke a promise."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import measured, soaks
from benchmarks.kept import aims
from pbcluster.testing.soak_crossing import Round, figures_of
from pbcluster.testing.soak_node import Figures


class SoakTests(SynchronousTestCase):
    def test_deaths(self) -> None:
        """Waits are judged by their median and their worst."""
        found = [
            Round(
                n, "pbnode alone", acked=10, failed_reads=0, write_gap_s=g, read_gap_s=1, probes=5
            )
            for n, g in enumerate((2.0, 3.0, 9.0))
        ]
        told = {"seed": 1, "writers": 20, "good": True} | figures_of(found)
        made = soaks.crossing(told)
        (figures,) = made.rounds["pbcluster"]
        self.assertEqual((figures["acknowledged"], figures["write_gap_max_s"]), (30.0, 9.0))
        self.assertEqual((figures["restores_checked"], figures["probes"]), (3.0, 15.0))
        self.assertEqual([each.reached for each in aims(made)], [True, True, False])

    def test_a_broken_promise(self) -> None:
        """It is a figure that misses its target; there are no others then."""
        for make in (soaks.crossing, soaks.node):
            made = make({"seed": 1, "good": False, "broken": "a row is lost"})
            self.assertEqual(made.rounds["pbcluster"], [{"broken": 1.0}])
            self.assertEqual([each.reached for each in aims(made)], [False])

    def test_from_a_run(self) -> None:
        """What a run printed before is taken, every number of it."""
        told = {"seed": 1, "good": True} | Figures(bursts=3, rows=7, kills=2).shown()
        run, file = Path(self.mktemp()), Path(self.mktemp())
        run.write_text(json.dumps(told))
        words = ["node", "--from", str(run), "--json", str(file)]
        result = CliRunner().invoke(soaks.main, words)
        self.assertEqual(result.exit_code, 0, result.output)
        (made,) = measured.read(file)
        (figures,) = made.rounds["pbcluster"]
        self.assertEqual((figures["bursts"], figures["rows"], figures["kills"]), (3, 7, 2))
        self.assertIn("bursts of use", result.output)
