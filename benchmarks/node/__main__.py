"""What a node weighs and how quickly it answers, on real parts of this machine.

\b
    capacity  many active tenants: memory (PSS), idle processor time, warm start, stop
    waking    the first request to a stopped tenant: warm, and from S3 by size
    sync      writes to a tenant that acknowledges after S3, beside its own PocketBase
    async     the same for a tenant that acknowledges at once
    reads     one record under a live lease

The figure that a target names is the median of the rounds. Progress goes to stderr.

\b
    python -m benchmarks.node --only capacity --tenants 50
    python -m benchmarks.node --json figures.json --rst docs/benchmarks/node.inc
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import click

from benchmarks.gateway.machine import machine
from benchmarks.node import capacity, waking, writes
from benchmarks.node.options import Options, Part

MEASURES: dict[str, Callable[[Options], Part]] = {
    "capacity": capacity.measure,
    "waking": waking.measure,
    "sync": writes.measure_sync,
    "async": writes.measure_async,
    "reads": writes.measure_reads,
}
HEADS = ("figure", "measured", "target", "verdict")


def text(part: Part) -> str:
    """A part as a table for the terminal."""
    rows = [HEADS, *part.rows()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join([part.title, *(line.rstrip() for line in lines)])


def rst(parts: Sequence[Part], how: str) -> str:
    """All parts as reStructuredText tables."""
    lines = [how, ""]
    for part in parts:
        lines += [f".. list-table:: {part.title}", "   :header-rows: 1", ""]
        for row in [HEADS, *part.rows()]:
            lines += [f"   {'*' if cell is row[0] else ' '} - {cell}" for cell in row]
        lines.append("")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(MEASURES)), help="Measures; default: all."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=5.0, show_default=True, help="Of each load of 20 writers.")
@click.option("--requests", default=300, show_default=True, help="One after the other, a way.")
@click.option("--tenants", default=200, show_default=True, type=click.IntRange(1, 240))
@click.option("--wakes", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--watch", "watch_s", default=30.0, show_default=True, help="Seconds of idleness.")
@click.option("--large", is_flag=True, help="Wake a tenant of 1 GB too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
@click.option("--rst", "rst_file", type=click.Path(path_type=Path), help="The tables.")
def main(only: tuple[str, ...], json_file: Path | None, rst_file: Path | None, **rest: int) -> None:
    options = Options(tell=lambda line: click.echo(line, err=True), **rest)  # type: ignore[arg-type]
    parts = []
    for name in only or tuple(MEASURES):
        click.echo(f"== {name}", err=True)
        parts.append(MEASURES[name](options))
        click.echo(text(parts[-1]) + "\n")
    if json_file is not None:
        json_file.write_text(json.dumps([attrs.asdict(each) for each in parts], indent=1))
    if rst_file is not None:
        rst_file.write_text(rst(parts, f"{rest['rounds']} rounds; {machine()}.") + "\n")


if __name__ == "__main__":
    main()
