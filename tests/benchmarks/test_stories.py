"""Fault stories become rows of docs/benchmarks: ``benchmarks.stories`` and ``benchmarks.chaos``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import chaos, kept
from benchmarks.commands import PARTS, order
from benchmarks.stories import AT_LEAST, CAUSES, FAMILIES, family, overview, tallies
from pbcluster.testing.chaos import command
from pbcluster.testing.chaos.judge import KINDS
from pbcluster.testing.chaos.running import Result
from pbcluster.testing.chaos.story import STORIES

assert command.MODULES  # which have registered the stories


def shown(story: str, *each: dict[str, float], **more: Any) -> dict[str, Any]:
    """What a run tells of a story of which nothing is broken."""
    content = Result(STORIES[story]).shown()
    content |= {"rounds": len(each), "each": list(each), "acknowledged": 100, "reads": 200}
    return content | more


def run(*stories: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {"date": "2026-01-02", "machine": "2 cores", "versions": {"weed": "4"}, "command": "c"}
    return given | more | {"stories": list(stories)}


class Tallies(SynchronousTestCase):
    def test_a_family(self) -> None:
        """Nodes that are cut off count together, over all runs, and the rest by themselves."""
        one = run(shown("cut-s3-mute", {"away_s": 15.0}), shown("cut-s3-deaf", {"away_s": 16.0}))
        two = run(shown("cut-s3-mute", {"away_s": 14.0}), shown("node-kill", {}), shown("drain"))
        cut, kill = tallies([one, two])
        self.assertEqual((cut.name, kill.name), ("cut-s3", "node-kill"))
        figures = cut.figures()
        wanted = {"rounds": 3, "away": 14.0, "acknowledged": 300, "broken": 0}
        self.assertEqual({name: figures[name] for name in wanted}, wanted)
        self.assertIn("Stories: deaf, mute.", cut.measured(STORIES).notes)

    def test_limits(self) -> None:
        """A story's limits judge its rounds' median and worst, and too few rounds are not 100."""
        each = [{"write_gap_s": s, "read_gap_s": 1.0, "load": 2.0} for s in (2.0, 2.5, 9.0)]
        (kill,) = tallies([run(shown("node-kill", *each))])
        made = chaos.kept_of(kill, [run(shown("node-kill", *each))])
        found = {(aim.figure, aim.wanted): (aim.measured, aim.reached) for aim in made.aims}
        gap = "longest time without a good write"
        self.assertEqual(found[f"{gap}, p50, s", "≤ 3"], ("2.5", True))
        self.assertEqual(found[f"{gap}, at most, s", "≤ 8"], ("9", False))
        self.assertEqual(found["rounds", "≥ 100"], ("3", False))
        self.assertEqual(found["broken promises", "≤ 0"], ("0", True))
        self.assertNotIn(("requests of tenants without a good answer", "≤ 0"), found)

    def test_broken(self) -> None:
        """Whatever is broken is a figure, and is told."""
        lost = dict.fromkeys(KINDS, 0) | {"lost": 2, "owners": 1}
        bad = shown("migration", {}, broken=lost, unfinished=1, told=["lost: k"], failed_requests=3)
        (tally,) = tallies([run(bad)])
        made = chaos.kept_of(tally, [run(bad)])
        found = {aim.figure: (aim.measured, aim.reached) for aim in made.aims}
        self.assertEqual(found["broken promises"], ("4", False))
        self.assertEqual(found["requests of tenants without a good answer"], ("3", False))
        self.assertIn("Broken: ``lost: k``", made.notes)

    def test_every_story_has_a_row(self) -> None:
        """Each story, or its family, is a measure of ``make bench``; nothing else is named."""
        self.assertEqual({family(name) for name in STORIES}, set(order("chaos")))
        for named in (set(AT_LEAST), set(FAMILIES), {name for name, _ in CAUSES}):
            self.assertEqual(named - set(order("chaos")), set())
        for row in PARTS["chaos"]:
            self.assertTrue(row.named_only)


class Keeping(SynchronousTestCase):
    def test_keep(self) -> None:
        """Files of runs become the part's data, with the commands, days and machines of all."""
        with tempfile.TemporaryDirectory() as directory:
            files = []
            for number in (1, 2):
                files.append(Path(directory) / f"{number}.json")
                each = [{"write_gap_s": 2.0, "load": float(number)}]
                content = run(shown("node-kill", *each), machine=f"load {number}")
                files[-1].write_text(json.dumps(content))
            words = ["--keep", *map(str, files), "--data", directory]
            done = CliRunner().invoke(chaos.main, words)
            self.assertEqual(done.exit_code, 0, done.output)
            (found,) = kept.load(Path(directory) / "chaos.json")
        self.assertEqual(found.machine, "load 1; load 2")
        self.assertEqual(dict(found.versions), {"SeaweedFS": "4"})
        page = kept.draw("chaos", [found])["chaos.inc"]
        self.assertTrue(page.startswith(overview([found])))
        self.assertIn("     - 1, at most 2\n", page)
        self.assertIn("**no**: rounds", page)
