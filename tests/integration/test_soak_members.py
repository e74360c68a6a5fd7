"""The soak of the control plane, a few rounds of it: leaders die, every promise is kept."""

from __future__ import annotations

import json

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing import soak_members
from pbcluster.testing.histories import Verdict
from pbcluster.testing.soak_members import Found, Kill

#: An election takes half a second; the machine may be busy with other things.
GAP_MS = 5000.0


class SoakTests(SynchronousTestCase):
    def test_two_leaders_die(self) -> None:
        """Killed with SIGKILL under writers and readers at all members: creations go on in
        seconds, and nothing is lost, doubled or stale."""
        lines: list[str] = []
        found = soak_members.soak(2, seed=5, tell=lines.append)
        self.assertTrue(found.good, soak_members.report(found))
        figures = found.figures()
        self.assertEqual(figures["kills"], 2)
        self.assertGreater(figures["acknowledged"], 20)
        self.assertGreater(figures["reads"], 5)
        self.assertGreater(figures["lookups"], 5)
        self.assertLess(figures["gap_ms"]["max"], GAP_MS)
        self.assertIn("kill 2/2", lines[-1])

    def test_what_the_command_says(self) -> None:
        """Figures as text or JSON; its status tells whether a promise was broken."""
        kills = [Kill(n, "member_1", 100.0 * n, n) for n in range(1, 4)]
        good = Found(kills, Verdict(10, 5), [])
        bad = Found(kills, Verdict(10, 5, lost=("t1",)), [])
        for found, status in ((good, 0), (bad, 1)):
            self.patch(soak_members, "soak", lambda *_, found=found: found)
            done = CliRunner().invoke(soak_members.main, ["--rounds", "3", "--json"])
            self.assertEqual(done.exit_code, status)
            figures = json.loads(done.stdout)
            gaps = {"min": 100.0, "median": 200.0, "p99": 300.0, "max": 300.0}
            self.assertEqual(figures["gap_ms"], gaps)
            self.assertEqual((figures["lost"], figures["split_votes"]), (status, 2))
        self.assertIn("lost: t1", soak_members.report(bad))
