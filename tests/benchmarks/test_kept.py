"""``benchmarks.kept`` and the one command: what is measured is kept, and pages say just that."""

from __future__ import annotations

import json
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import __main__ as command
from benchmarks import capacity, kept, measured
from benchmarks.commands import PARTS, order
from benchmarks.figures import Target
from benchmarks.measured import Measured

MEASURED = Measured(
    "write",
    "Writes",
    {"pbcluster": [{"rate": 90.0}, {"rate": 110.0}], "etcd": [{"rate": 100.0}, {"rate": 100.0}]},
    targets=(
        Target("rate", "etcd", 1.5, at_most=False, cause="one core"),
        Target("rate", "", 90.0, at_most=False),
    ),
    notes=("said with it",),
    labels={"rate": "a second"},
)


def made(measure: Measured = MEASURED) -> kept.Kept:
    return kept.keep(
        "raft",
        measure,
        command="python -m benchmarks.raft --part loads",
        date="2026-01-02",
        machine="2 cores",
        versions={"etcd": "3.4"},
    )


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = Path(directory.name) / "data" / "raft.json"

    def test_what_is_kept_comes_back(self) -> None:
        """A file holds everything that its pages need."""
        kept.merge(self.file, [made()], order("raft"))
        self.assertEqual(kept.load(self.file), [made()])
        self.assertEqual(kept.load(self.file.with_name("none.json")), [])

    def test_a_run_replaces_its_own_measures_only(self) -> None:
        """Others stay, and the order is that of the table of commands."""
        old = Measured("kill", "K", {"pbcluster": [{"lost": 1.0}]})
        kept.merge(self.file, [made(old), made(measured.alone("own", "O", []))], order("raft"))
        newer = Measured("kill", "K", {"pbcluster": [{"lost": 0.0}]})
        names = Measured("write-1", "W", MEASURED.rounds)
        found = kept.merge(self.file, [made(newer), made(names)], order("raft"))
        self.assertEqual([each.name for each in found], ["write-1", "kill", "own"])
        self.assertEqual(found[1].measured, newer)

    def test_measures_as_json(self) -> None:
        """What a command writes is what the runner reads."""
        self.file.parent.mkdir()
        measured.write(self.file, [MEASURED])
        self.assertEqual(measured.read(self.file), [MEASURED])
        measured.write(None, [MEASURED])


class Pages(SynchronousTestCase):
    def test_targets(self) -> None:
        """Each target has its figure, and a cause only where it is missed."""
        found = [(a.wanted, a.measured, a.reached, a.cause) for a in made().aims]
        self.assertEqual(
            found,
            [
                ("≥ 1.5", "1 (0.9, 1.1)", False, "one core"),
                ("≥ 90", "100 (90, 110)", True, ""),
            ],
        )

    def test_a_part(self) -> None:
        """Its page has command, date, machine, versions, tables, notes, and the chart is sound."""
        files = kept.draw("raft", [made()])
        self.assertEqual(sorted(files), ["raft-write.svg", "raft.inc"])
        for word in ("--part loads``", "2026-01-02", "2 cores", "etcd 3.4", "said with it"):
            self.assertIn(word, files["raft.inc"])
        chart = ET.fromstring(files["raft-write.svg"])
        bars = chart.findall("{http://www.w3.org/2000/svg}rect")
        self.assertEqual(len(bars), 1 + 2)

    def test_carried_over(self) -> None:
        """What was measured before there were files is shown cell by cell."""
        table = [("figure", "ours"), ("rate", "7")]
        old = kept.Kept(name="o", title="Old", command="c", date="d", machine="m", tables=(table,))
        self.assertIn("   * - rate\n     - 7\n", kept.draw("raft", [old])["raft.inc"])

    def test_summary(self) -> None:
        """All targets of all parts in one table, and below it why some are missed."""
        told = kept.summary({"raft": [made()]})
        self.assertIn("     - **no**", told)
        self.assertIn("* Writes: a second, ratio to etcd: one core.", told)

    def test_the_pages_are_what_the_files_say(self) -> None:
        """No figure of docs/benchmarks is written by hand: ``python -m benchmarks --draw``."""
        parts = {}
        for part in PARTS:
            found = kept.load(kept.DOCS / "data" / f"{part}.json")
            if found:
                parts[part] = found
                for name, content in kept.draw(part, found).items():
                    self.assertEqual((kept.DOCS / name).read_text(), content, name)
        self.assertEqual((kept.DOCS / "summary.inc").read_text(), kept.summary(parts))
        computed = capacity.page(kept.DOCS / "data")
        self.assertEqual((kept.DOCS / "capacity.inc").read_text(), computed)


class Command(SynchronousTestCase):
    def test_list(self) -> None:
        """Every part stands in the table with the command of each row."""
        told = CliRunner().invoke(command.main, ["--list"]).output
        for part in PARTS:
            self.assertIn(part, told)
        self.assertIn("python -m benchmarks.raft --part loads", told)

    def test_names_are_unique(self) -> None:
        """A measure's name names one row of its part."""
        for part in PARTS:
            self.assertEqual(len(order(part)), len(set(order(part))))

    def test_only(self) -> None:
        """A part or one measure of it; anything else is refused by name."""
        rows = command.chosen(("gateway/tls", "transport"))
        self.assertEqual([row.measures[0] for _, row in rows], ["tls", "transport", "http"])
        told = CliRunner().invoke(command.main, ["--only", "nothing"])
        self.assertEqual(told.exit_code, 2)
        self.assertIn("nothing", told.output)

    def test_rounds(self) -> None:
        """``--rounds`` goes to the commands that have rounds, and no others."""
        (_, loads), *others = command.chosen(("raft",))
        self.assertEqual(loads.command(rounds=2)[-2:], ("--rounds", "2"))
        self.assertNotIn("--rounds", others[0][1].command(rounds=2))

    def test_draw_measures_nothing(self) -> None:
        """``--draw`` makes the pages from the files alone."""
        with tempfile.TemporaryDirectory() as directory:
            data = Path(directory) / "data"
            kept.merge(data / "raft.json", [made()], order("raft"))
            done = CliRunner().invoke(command.main, ["--draw", "--data", str(data), "--json"])
            self.assertEqual((done.exit_code, json.loads(done.output)), (0, []))
            made_ = sorted(each.name for each in Path(directory).iterdir())
        self.assertEqual(made_, ["data", "raft-write.svg", "raft.inc", "summary.inc"])
