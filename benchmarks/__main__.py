"""All benchmarks in one command: each in a process of its own, one after the other.

\b
    make bench                                   everything but fault stories; takes an hour
    python -m benchmarks --list                  the table of commands
    python -m benchmarks --only raft             one part
    python -m benchmarks --only gateway/tls      one measure of a part
    python -m benchmarks --only chaos            the fault stories; takes two hours
    python -m benchmarks --quick                 everything in short, nothing is kept
    python -m benchmarks --draw                  the pages from what is kept, without measuring

What is measured is kept in docs/benchmarks/data/PART.json with machine, versions, date and
command; from these files come PART.inc, its charts, and summary.inc in docs/benchmarks. A measure
whose programs are not installed is left out and named at the end; one that fails is named, too.
Either makes the exit status 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import attrs
import click

from benchmarks import capacity, kept, measured
from benchmarks.commands import PARTS, Row, order
from benchmarks.machine import lacking, machine, versions

ROOT = Path(__file__).parent.parent


def chosen(only: tuple[str, ...]) -> list[tuple[str, Row]]:
    """The rows that ``--only`` names; without it all but those that must be named.

    :raises click.BadParameter: it names something else.
    """
    rows = [(part, row) for part, rows in PARTS.items() for row in rows]
    if not only:
        return [(part, row) for part, row in rows if not row.named_only]
    known = {*PARTS, *(f"{part}/{name}" for part, row in rows for name in row.measures)}
    for name in only:
        if name not in known:
            raise click.BadParameter(f"{name!r}; there are: {', '.join(sorted(known))}")
    return [
        (part, row)
        for part, row in rows
        if part in only or any(f"{part}/{name}" in only for name in row.measures)
    ]


def run(part: str, row: Row, words: tuple[str, ...]) -> list[kept.Kept]:
    """Run one command; its output is seen.

    :raises click.ClickException: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="pbbench-") as directory:
        file = Path(directory) / "figures.json"
        command = [sys.executable, "-m", *words, *row.json_option, str(file)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        busy = f"load average {os.getloadavg()[0]:.1f} when it began"
        done = subprocess.run(command, check=False, env=environment, stdout=sys.stderr)
        if done.returncode or not file.exists():
            raise click.ClickException(f"{' '.join(words)} ended with {done.returncode}")
        return [
            kept.keep(
                part,
                each,
                command=f"python -m {' '.join(words)}",
                date=datetime.now(UTC).date().isoformat(),
                machine=f"{machine()}, {busy}",
                versions=versions(row.versions),
            )
            for each in measured.read(file)
        ]


def draw(data: Path) -> None:
    """All pages from the files of ``data``; they are written beside that directory."""
    parts = {part: found for part in PARTS if (found := kept.load(data / f"{part}.json"))}
    for part, found in parts.items():
        kept.write(data.parent, kept.draw(part, found))
    kept.write(data.parent, {"summary.inc": kept.summary(parts)})
    with contextlib.suppress(click.ClickException):  # what it needs was not measured
        kept.write(data.parent, {"capacity.inc": capacity.page(data)})


def show_list(rows: list[tuple[str, Row]], quick: bool, rounds: int | None) -> None:
    for part, row in rows:
        words = " ".join(row.command(quick=quick, rounds=rounds))
        click.echo(f"{part:<14}{', '.join(row.measures)}\n{'':<14}python -m {words}")


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="A part, or PART/MEASURE; several times.")
@click.option("--rounds", type=click.IntRange(1, 1000), help="Of commands that have rounds.")
@click.option("--quick", is_flag=True, help="Short forms, which are not kept.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
@click.option("--list", "listed", is_flag=True, help="Show the commands and run none.")
@click.option("--draw", "only_draw", is_flag=True, help="Draw the pages and measure nothing.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=kept.DOCS / "data",
    help="Where figures are kept; the pages go beside it. Default: docs/benchmarks/data.",
)
def main(
    only: tuple[str, ...],
    rounds: int | None,
    quick: bool,
    as_json: bool,
    listed: bool,
    only_draw: bool,
    data: Path,
) -> None:
    rows = chosen(only)
    if listed:
        show_list(chosen(only or tuple(PARTS)), quick, rounds)
        return
    fresh, troubles = [], []
    for part, row in () if only_draw else rows:
        words = row.command(quick=quick, rounds=rounds)
        click.echo(f"== {part}: python -m {' '.join(words)}", err=True)
        if gone := lacking(row.needs):
            troubles.append(f"{' '.join(words)}: not installed: {', '.join(gone)}")
            continue
        try:
            found = run(part, row, words)
        except click.ClickException as error:
            troubles.append(error.message)
            continue
        fresh += found
        if not quick:
            kept.merge(data / f"{part}.json", found, order(part))
    if not quick:
        draw(data)
    if as_json:
        click.echo(json.dumps([attrs.asdict(each) for each in fresh], ensure_ascii=False))
    for each in fresh:
        for aim in each.aims:
            verdict = "reached" if aim.reached else f"NOT REACHED: {aim.cause}"
            told = f"{each.name}: {aim.figure}: {aim.measured} ({aim.wanted}): {verdict}"
            click.echo(told, err=True)
    for trouble in troubles:
        click.echo(f"NOT MEASURED: {trouble}", err=True)
    sys.exit(1 if troubles else 0)


if __name__ == "__main__":
    main()
