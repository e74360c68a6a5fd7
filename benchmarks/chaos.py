"""Fault stories, kept like every other figure of docs/benchmarks.

\b
    python -m benchmarks.chaos node-kill --rounds 100 --json FILE
    python -m benchmarks.chaos --keep kills.json cuts.json

The first plays stories by ``python -m pbcluster.testing.chaos``, to which it gives all of its
arguments, and writes measures. Exit status 1 only if nothing was measured: a broken promise is a
figure. The second keeps runs that were made by that command with ``--json``, in
docs/benchmarks/data/chaos.json: rounds of one story in several files count together, and replace
what was kept of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import kept, measured, report
from benchmarks.commands import order
from benchmarks.stories import Tally, family, tallies
from pbcluster.testing.chaos import command
from pbcluster.testing.chaos.story import STORIES

PART = "chaos"
_PROGRAMS = {"pocketbase": "PocketBase", "litestream": "Litestream", "weed": "SeaweedFS"}


def play(words: Sequence[str]) -> Mapping[str, Any]:
    """Play stories. :returns: what the command tells. :raises ClickException: it tells nothing."""
    with tempfile.TemporaryDirectory(prefix="pbbench-") as directory:
        file = Path(directory) / "run.json"
        argv = [sys.executable, "-m", "pbcluster.testing.chaos", *words, "--json", str(file)]
        done = subprocess.run(argv, check=False, stdout=sys.stderr)
        if not file.exists():
            raise click.ClickException(f"{' '.join(words)} ended with {done.returncode}")
        found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def kept_of(tally: Tally, runs: Sequence[Mapping[str, Any]]) -> kept.Kept:
    """A tally with what must be known of the runs that made it."""
    assert command.MODULES  # which have registered the stories
    own = [run for run in runs if any(family(s["story"]) == tally.name for s in run["stories"])]

    def told(name: str, between: str) -> str:
        return between.join(dict.fromkeys(str(run[name]) for run in own))

    versions = {_PROGRAMS.get(n, n): v for run in own for n, v in run["versions"].items()}
    return kept.keep(
        PART,
        tally.measured(STORIES),
        command=told("command", "; "),
        date=told("date", ", "),
        machine=told("machine", "; "),
        versions=versions,
    )


@click.command(
    help=__doc__,
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.option("--keep", is_flag=True, help="The arguments are files of runs, which are kept.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=kept.DOCS / "data",
    help="Where figures are kept. Default: docs/benchmarks/data.",
)
def main(words: tuple[str, ...], keep: bool, json_file: Path | None, data: Path) -> None:
    assert command.MODULES  # which have registered the stories
    if not keep:
        found = [tally.measured(STORIES) for tally in tallies([play(words)])]
        for each in found:
            click.echo(report.text(each))
        measured.write(json_file, found)
        return
    runs = [json.loads(Path(word).read_text(encoding="utf-8")) for word in words]
    fresh = [kept_of(tally, runs) for tally in tallies(runs)]
    kept.merge(data / f"{PART}.json", fresh, order(PART))
    click.echo(f"kept {', '.join(each.name for each in fresh)}; now: python -m benchmarks --draw")


if __name__ == "__main__":
    main()
