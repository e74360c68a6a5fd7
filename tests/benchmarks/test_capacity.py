"""``benchmarks.capacity``: formulas, prices and pages say the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs
from click import ClickException
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import capacity
from benchmarks.capacity import Assumptions, Costs, carried

COSTS = Costs(
    pss_gib=2.0,
    idle_cores=0.4,
    node_h=(1.0, 10.0),
    active_h=(2.0, 0.0),
    stopped_h=(0.0, 0.0),
    write=(1.0, 2.0),
    wake=(3.0, 4.0),
)


class Formulas(SynchronousTestCase):
    def test_one_node(self) -> None:
        """Places without the reserve, a share of them active, requests by hour and by day."""
        by = Assumptions(active_share=0.5, writes_day=10.0, wakes_day=1.0, stored_gb=1.0)
        found = carried(1, by, COSTS)
        self.assertEqual((found.tenants, found.active), (180, 90))
        self.assertAlmostEqual(found.memory_gib, 0.9)
        self.assertAlmostEqual(found.cores, 0.18)
        self.assertAlmostEqual(found.dear, 730 * (1 + 90 * 2) + 730 / 24 * 180 * (10 + 3))
        self.assertAlmostEqual(found.cheap, 730 * 10 + 730 / 24 * 180 * (20 + 4))
        self.assertAlmostEqual(found.storage_usd, 180 * 0.023)

    def test_linear(self) -> None:
        """Ten nodes carry and cost ten times as much; a node of them is as full."""
        one, ten = carried(1, Assumptions(), COSTS), carried(10, Assumptions(), COSTS)
        self.assertEqual(ten.tenants, 10 * one.tenants)
        self.assertAlmostEqual(ten.requests_usd, 10 * one.requests_usd)
        self.assertAlmostEqual(ten.memory_gib, one.memory_gib)

    def test_prices(self) -> None:
        """A price moves its own part of the cost only."""
        free = attrs.evolve(Assumptions(), dear=0.0, cheap=0.0)
        found = carried(1, free, COSTS)
        self.assertEqual(found.requests_usd, 0.0)
        self.assertGreater(found.storage_usd, 0.0)

    def test_every_assumption_has_an_option(self) -> None:
        """Each is shown with the option that changes it."""
        shown = {row[2] for row in capacity.assumption_table(Assumptions())[1:]}
        options = {name for p in capacity.main.params for name in p.opts} - {"--nodes"}
        self.assertEqual(shown, options)
        self.assertEqual(len(shown), len(attrs.fields(Assumptions)))

    def test_what_was_not_measured_is_named(self) -> None:
        """The error tells the command that measures it."""
        with tempfile.TemporaryDirectory() as directory:
            error = self.assertRaises(ClickException, capacity.measured, Path(directory))
        self.assertIn("python -m benchmarks --only node/capacity", error.message)
