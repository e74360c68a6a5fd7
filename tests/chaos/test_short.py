"""Fault stories on one real cluster, judged; and what the command says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.binaries import VERSIONS
from pbcluster.testing.chaos import command, composed
from pbcluster.testing.chaos.command import SHORT
from pbcluster.testing.chaos.judge import Verdict
from pbcluster.testing.chaos.running import Result, Wish, again, run
from pbcluster.testing.chaos.stage import Outcome
from pbcluster.testing.chaos.stories_cuts import HOW
from pbcluster.testing.chaos.story import STORIES, Shape
from tests.chaos.planted import Planted

#: The machine may be busy with other things: figures are measured by the long form.
GAP_S = 20.0


class ShortTests(SynchronousTestCase):
    timeout = 300

    def test_stories(self) -> None:
        """A node is killed, cut from the control plane one way, the leader is killed, a tenant
        moves, all on one cluster of three members and two nodes: every promise is kept."""
        shape = Shape(proxied=True)
        stories = [attrs.evolve(STORIES[name], shape=shape) for name in SHORT]
        lines: list[str] = []
        pictures = Path(self.mktemp())
        wish = Wish(seed=7, pictures=pictures, picture=True, durable_reads=True)
        results = run(stories, wish, lines.append)
        told = "\n".join(lines)
        self.assertEqual([result.good for result in results], [True] * len(SHORT), told)
        for result in results:
            (outcome,) = result.outcomes
            self.assertGreater(outcome.verdict.acknowledged, 20, told)
            self.assertGreater(outcome.verdict.reads, 20, told)
            self.assertGreater(outcome.verdict.probes, 5, told)
            self.assertLess(outcome.figures["write_gap_s"], GAP_S, told)
            self.assertEqual(result.pictures[0].read_text()[:4], "<svg")


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = Path(self.mktemp())
        self.files.mkdir()

    def outcome(self, name: str, number: int = 1, seed: int = 5, **more: object) -> Outcome:
        planted = Planted()
        planted.event("a fault", fault=True)
        planted.create("k")
        given: dict[str, object] = {
            "verdict": Verdict(acknowledged=1, reads=2, probes=3, failed_requests=0),
            "figures": {"write_gap_s": 2.5},
        } | more
        return Outcome(
            story=STORIES[name],
            number=number,
            seed=seed,
            history=planted.history,
            **given,  # type: ignore[arg-type]
        )

    def invoke(self, *arguments: str, results: dict[str, list[Outcome]]) -> str:
        """What the command says if its stories come to this."""

        def played(
            stories: object, wish: Wish, tell: object, after_each: Callable[[list[Result]], None]
        ) -> list[Result]:
            found = [Result(STORIES[name], outcomes) for name, outcomes in results.items()]
            after_each(found)
            return found

        self.patch(command, "run", played)
        done = CliRunner().invoke(command.main, arguments)
        self.status = done.exit_code
        return done.output

    def test_list(self) -> None:
        """Each story of the seed and of the table has a name."""
        told = self.invoke("--list", results={})
        for name in (
            *("first-request", "cache-hit", "migration", "drain", "node-kill", "node-frozen"),
            *("leader-kill", "plane-dead", "s3-away", "kill-everything", "rolling-restart"),
            *(f"cut-{whom}-{how}" for whom in ("plane", "s3", "gateways", "all") for how in HOW),
        ):
            self.assertIn(f"{name} ", told)

    def test_unknown(self) -> None:
        """A name that is none is an error that names those that are."""
        told = self.invoke("node-kil", results={})
        self.assertEqual(self.status, 2)
        self.assertIn("node-kill", told)

    def test_figures(self) -> None:
        """As JSON, from the first round on."""
        kills = [self.outcome("node-kill", n, figures={"write_gap_s": float(n)}) for n in (2, 3, 4)]
        file = self.files / "a.json"
        told = self.invoke("--json", str(file), "--long", results={"node-kill": kills})
        self.assertEqual(self.status, 0)
        self.assertIn("node-kill               3 rounds, good", told)
        run_ = json.loads(file.read_text())
        self.assertTrue(run_["long"])
        self.assertEqual(run_["versions"]["pocketbase"], VERSIONS["pocketbase"])
        shown = run_["stories"][0]
        self.assertEqual(shown["figures"]["write_gap_s"], {"p50": 3.0, "p99": 4.0, "max": 4.0})

    def test_broken(self) -> None:
        """A broken promise is the exit status."""
        verdict = Verdict(acknowledged=1, reads=2, probes=3, failed_requests=0, lost=("k",))
        bad = {"node-kill": [self.outcome("node-kill", verdict=verdict)]}
        told = self.invoke(results=bad)
        self.assertEqual(self.status, 1)
        self.assertIn("BROKEN", told)

    def test_again(self) -> None:
        """The command that repeats what failed."""
        prefix = "python -m pbcluster.testing.chaos --seed 5"
        self.assertEqual(again(self.outcome(composed.NAME), Wish()), f"{prefix} --random 1")
        self.assertEqual(
            again(self.outcome("node-kill", 3), Wish(long=True, durable_reads=True)),
            f"{prefix} --durable-reads --long node-kill --rounds 3",
        )
