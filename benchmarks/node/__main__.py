"""What a node weighs and how quickly it answers, on real parts of this machine.

\b
    capacity  many active tenants: memory (PSS), idle processor time, warm start, stop
    waking    the first request to a stopped tenant: warm, and from S3 by size
    sync      writes to a tenant that acknowledges after S3, beside its own PocketBase
    async     the same for a tenant that acknowledges at once
    reads     one record under a live lease
    neighbour what a tenant feels of a hostile one on its node

The figure that a target names is the median of the rounds. Progress goes to stderr.

\b
    python -m benchmarks.node --only capacity --tenants 50
    python -m benchmarks.node --json figures.json
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import measured, report
from benchmarks.measured import Measured
from benchmarks.node import capacity, neighbour, waking, writes
from benchmarks.node.options import Options

MEASURES: dict[str, Callable[[Options], Measured]] = {
    "capacity": capacity.measure,
    "waking": waking.measure,
    "sync": writes.measure_sync,
    "async": writes.measure_async,
    "reads": writes.measure_reads,
    "neighbour": neighbour.measure,
}


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
def main(only: tuple[str, ...], json_file: Path | None, **rest: int) -> None:
    options = Options(tell=lambda line: click.echo(line, err=True), **rest)  # type: ignore[arg-type]
    found = []
    for name in only or tuple(MEASURES):
        click.echo(f"== {name}", err=True)
        found.append(MEASURES[name](options))
        click.echo(report.text(found[-1]) + "\n")
    measured.write(json_file, found)


if __name__ == "__main__":
    main()
