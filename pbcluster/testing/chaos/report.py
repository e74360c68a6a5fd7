"""Figures of several runs as one table for the documentation.

    python -m pbcluster.testing.chaos.report --rst docs/benchmarks/chaos.inc one.json two.json

Each file comes from ``--json`` of the stories' command; rounds of one story in several files count
together, and so do those of a family that has one figure (``cut-plane-…``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from pbcluster.testing.chaos import command
from pbcluster.testing.chaos.figures import Spread, spreads
from pbcluster.testing.chaos.judge import KINDS
from pbcluster.testing.chaos.story import STORIES, Story

#: Of a family's stories one row is made.
FAMILIES = ("cut-plane", "cut-s3", "cut-gateways", "cut-all", "kernel")


@attrs.define
class Row:
    """A story, or a family of them, over all files."""

    name: str
    wanted: str
    stories: list[str] = attrs.field(factory=list)
    each: list[dict[str, float]] = attrs.field(factory=list)
    counts: dict[str, int] = attrs.field(factory=dict)
    broken: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(KINDS, 0))
    unfinished: int = 0

    def add(self, shown: Mapping[str, Any]) -> None:
        """Another run of it."""
        self.stories.append(shown["story"])
        self.each += shown["each"]
        self.unfinished += shown["unfinished"]
        for name in ("rounds", "acknowledged", "reads", "probes", "failed_requests"):
            self.counts[name] = self.counts.get(name, 0) + shown[name]
        for kind, number in shown["broken"].items():
            self.broken[kind] += number

    def measured(self) -> str:
        """Figures that tell something, then what was broken."""
        told = [f"{_named(name)} {_spread(s)}" for name, s in spreads(self.each).items() if s.max]
        counts = self.counts
        told.append(
            f"{counts['acknowledged']:,} writes acknowledged, {counts['reads']:,} reads, "
            f"{counts['failed_requests']:,} failed"
        )
        wrong = [f"{kind} {n}" for kind, n in self.broken.items() if n]
        if self.unfinished:
            wrong.append(f"{self.unfinished} rounds not ended")
        told.append(f"**broken**: {', '.join(wrong)}" if wrong else "no promise broken")
        return "; ".join(told)

    def missed(self, stories: Mapping[str, Story]) -> str:
        """Limits that were not reached."""
        found = {limit for name in self.stories for limit in stories[name].limits}
        told = sorted(limit.missed(self.each) for limit in found)
        return "; ".join(each for each in told if each)


def _named(figure: str) -> str:
    return figure.removesuffix("_s").replace("_", " ")


def _spread(spread: Spread) -> str:
    if spread.p50 == spread.max:
        return f"{spread.max:.3g}"
    return f"{spread.p50:.3g} / {spread.p99:.3g} / {spread.max:.3g}"


def family(name: str) -> str:
    """The row in which a story stands."""
    return next((each for each in FAMILIES if name.startswith(f"{each}-")), name)


def rows_of(runs: Iterable[Mapping[str, Any]]) -> list[Row]:
    """One row a story or family, in the order of their first runs."""
    rows: dict[str, Row] = {}
    for run in runs:
        for shown in run["stories"]:
            name = family(shown["story"])
            rows.setdefault(name, Row(name, shown["wanted"])).add(shown)
    return list(rows.values())


def rst(runs: Sequence[Mapping[str, Any]], stories: Mapping[str, Story]) -> str:
    """The table, and below it how it was made."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 16 24 8 52", ""]
    for row in [("story", "wanted", "rounds", "measured"), *_cells(rows_of(runs), stories)]:
        lines += [f"   {'*' if not n else ' '} - {cell}" for n, cell in enumerate(row)]
    lines += ["", "Made by these commands, on these machines:", ""]
    for run in runs:
        lines.append(f"* {run['date']}, {run['machine']}: ``{run['command']}``")
    return "\n".join(lines) + "\n"


def _cells(rows: Sequence[Row], stories: Mapping[str, Story]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for row in rows:
        missed = row.missed(stories)
        measured = row.measured() + (f"; **not reached**: {missed}" if missed else "")
        variants = sorted({name.removeprefix(f"{row.name}-") for name in row.stories} - {row.name})
        name = f"{row.name} ({', '.join(variants)})" if variants else row.name
        found.append((name, row.wanted, str(row.counts["rounds"]), measured))
    return found


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--rst", "target", required=True, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...], target: Path) -> None:
    """The command."""
    assert command.MODULES  # which have registered the stories
    target.write_text(rst([json.loads(file.read_text()) for file in files], STORIES))
    click.echo(f"wrote {target}")


if __name__ == "__main__":
    main()
