"""Gaps, spreads and limits of the chaos stories."""

from __future__ import annotations

import math

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.chaos.figures import Limit, Spread, longest_gap_s, quantile, round_figures
from tests.chaos.planted import Planted


class FigureTests(SynchronousTestCase):
    def test_gap(self) -> None:
        """From the fault or a good answer to the next good one; failures do not end it."""
        planted = Planted()
        planted.create("a")
        planted.now_s = 10.0
        planted.create("b", 503)
        planted.now_s = 14.0
        planted.create("c")
        planted.now_s = 15.0
        planted.create("d")
        operations = planted.history.operations
        self.assertAlmostEqual(longest_gap_s(operations, 3.0), 11.1)
        self.assertAlmostEqual(longest_gap_s(operations, 14.05), 1.0)
        self.assertEqual(longest_gap_s(operations, 99.0), math.inf)

    def test_of_a_round(self) -> None:
        """What was not asked has no figure; probes of nodes count nowhere."""
        planted = Planted()
        planted.create("a")
        planted.look("a", 503)
        planted.probe("node_1", begun_s=0.0, ended_s=50.0)
        figures = round_figures(planted.history, 0.05)
        self.assertEqual((figures["failed_writes"], figures["failed_reads"]), (0, 1))
        self.assertAlmostEqual(figures["write_gap_s"], 0.05)
        self.assertAlmostEqual(figures["longest_read_s"], 0.1)
        self.assertNotIn("admin_gap_s", figures)

    def test_spread(self) -> None:
        """By the nearest rank."""
        values = [float(n) for n in range(1, 101)]
        self.assertEqual(Spread.of(values), Spread(50.0, 99.0, 100.0))
        self.assertEqual(Spread.of([2.0]), Spread(2.0, 2.0, 2.0))
        self.assertEqual(quantile([3.0, 1.0, 2.0], 0.5), 2.0)

    def test_limit(self) -> None:
        """It names what was not reached; what was not measured was not missed."""
        limit = Limit("gap_s", p50=1.0, max=5.0)
        self.assertEqual(limit.missed([{"gap_s": 1.0}, {"gap_s": 4.0}, {}]), "")
        self.assertEqual(
            limit.missed([{"gap_s": 6.0}]), "gap_s: p50 6.0 over 1.0, max 6.0 over 5.0"
        )
        self.assertEqual(limit.missed([{}]), "")
