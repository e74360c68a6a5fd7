"""The soak of many tenants, a short form: used by fits and starts, moved, restored, read back."""

from __future__ import annotations

import json

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing import soak_node
from pbcluster.testing.soak_node import Broken, Figures, Soak, Wish
from pbcluster.testing.used_tenant import File, UsedTenant, content_of, file_faults

SECONDS = 15.0


def kept_file(soak: Soak) -> tuple[UsedTenant, File]:
    """An uploaded file that was not deleted, and whose it is."""
    return next((t, f) for t in soak.tenants for f in t.files if f.fate == "kept")


class SoakTests(SynchronousTestCase):
    timeout = 180

    def test_six_tenants_by_fits_and_starts(self) -> None:
        """Under idle stops, wake-ups, moves and restores nothing is lost; what is planted then
        (a row, a value, a file, a deletion that never happened) is told, each of it."""
        lines: list[str] = []
        wish = Wish(seconds=SECONDS, tenants=6, seed=5, kills=False)
        with Soak(wish, lines.append) as soak:
            soak.run()
            self.assertEqual(soak.faults(), [], soak.cluster.logs())
            done = soak.figures
            for figure in (done.bursts, done.rows, done.uploads, done.deletions):
                self.assertGreater(figure, 2, done)
            for figure in (done.restores, done.moves):
                self.assertGreater(figure, 0, done)
            self.assertGreater(done.wakes, len(soak.tenants), done)
            self.assertIn("left: ", lines[-1])
            self.plant(soak)

    def plant(self, soak: Soak) -> None:
        """Promises that were not given, and promises that were and are forgotten."""
        tenant, file = kept_file(soak)
        first = next(iter(tenant.journal.acked))
        tenant.journal.acked |= {"neverwritten000": "x", first: "another"}
        file.fate = "deleted"
        tenant.files.append(File("neveruploaded00", 1, "soak.bin", "kept"))
        found = "\n".join(soak._faults_of(tenant))
        for told in (
            "1 rows lost: ['neverwritten000']",
            f"1 rows changed: ['{first}']",
            "2 acknowledged rows",
            f"the row of the deleted file {file.record} is there",
            "the row of the file neveruploaded00 is lost",
        ):
            self.assertIn(f"{tenant.name}", found)
            self.assertIn(told, found)
        file.fate = "kept"
        tenant.files.remove(file)
        self.assertIn(f"nobody uploaded the file {file.record}", "\n".join(tenant.faults()))


class JudgementTests(SynchronousTestCase):
    def test_what_is_wrong_with_a_file(self) -> None:
        """Kept: whole and there. Deleted: neither row nor file. Unclear: what its row says."""
        whole, other = (200, content_of("r", 3)), (200, b"abc")
        none, broken = (404, b""), (503, b"")
        there, gone = {"r": "f.bin"}, dict[str, str]()
        for name, fate, rows, answer, good in (
            ("f.bin", "kept", there, whole, True),
            ("f.bin", "kept", there, other, False),
            ("f.bin", "kept", there, none, False),
            ("f.bin", "kept", gone, whole, False),
            ("f.bin", "kept", {"r": "g.bin"}, whole, False),
            ("f.bin", "deleted", gone, none, True),
            ("f.bin", "deleted", gone, whole, False),
            ("f.bin", "deleted", gone, broken, False),
            ("f.bin", "deleted", there, none, False),
            ("f.bin", "unknown", gone, none, True),
            ("f.bin", "unknown", gone, whole, False),
            ("f.bin", "unknown", there, whole, True),
            ("f.bin", "unknown", there, none, False),
            ("", "unknown", gone, none, True),
            ("", "unknown", there, none, True),
            ("", "unknown", there, whole, True),
            ("", "unknown", there, other, False),
        ):
            found = file_faults(File("r", 3, name, fate), rows, lambda *_, a=answer: a)
            self.assertEqual(found == [], good, (name, fate, rows, answer, found))

    def test_what_the_command_says(self) -> None:
        """Figures as text or JSON; a broken promise is told with the seed, and the status is 1."""
        arguments = ["--minutes", "1", "--tenants", "9", "--seed", "7", "--no-kills"]
        wishes: list[Wish] = []

        def good(wish: Wish, tell: object) -> Figures:
            wishes.append(wish)
            return Figures(rows=5, stopped=[0.2, 0.4], told=["soak1: write 503"])

        def bad(wish: Wish, tell: object) -> Figures:
            raise Broken("soak3: 1 rows lost")

        self.patch(soak_node, "soak", good)
        done = CliRunner().invoke(soak_node.main, [*arguments, "--json"])
        self.assertEqual(done.exit_code, 0, done.output)
        shown = json.loads(done.stdout)
        self.assertEqual((shown["seed"], shown["rows"], shown["stopped"]), (7, 5, 0.3))
        wish = wishes[0]
        self.assertEqual((wish.seconds, wish.tenants, wish.kills, wish.moves), (60, 9, False, True))
        done = CliRunner().invoke(soak_node.main, arguments)
        self.assertIn("failed request: soak1: write 503", done.stdout)
        self.patch(soak_node, "soak", bad)
        for more in ([], ["--json"]):
            done = CliRunner().invoke(soak_node.main, [*arguments, *more])
            self.assertEqual(done.exit_code, 1)
            self.assertIn("seed 7: soak3: 1 rows lost", done.stderr)
