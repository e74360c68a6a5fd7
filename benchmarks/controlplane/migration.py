"""The pause of migrations: 50 moves of a small tenant under 50 writes/s and 50 reads/s.

The pause of a move is the longest that any request took which was under way during it, as its
client saw it. No request may fail. With ``--kill`` the control plane's leader is killed in each
phase in turn, every fourth move excepted.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import measured, report
from benchmarks.figures import Figures, Target, percentile
from benchmarks.measured import alone
from pbcluster.testing.soak_migration import Killed, soak

LABELS = {
    "pause_p50_s": "longest request of a move, p50, s",
    "pause_p99_s": "longest request of a move, p99, s",
    "pause_max_s": "longest request of a move, at most, s",
    "preparing_p50_s": "preparing, p50, s",
    "draining_p50_s": "draining, p50, s",
    "switching_p50_s": "switching, p50, s",
    "failed": "failed requests",
}
TARGETS = (
    Target("pause_p50_s", "", 0.7),
    Target("pause_p99_s", "", 1.5),
    Target("failed", "", 0.0),
)


def figures(found: list[Killed]) -> Figures:
    """What took how long, in seconds."""
    pauses = [each.round.pause_s for each in found]
    figures = {f"pause_p{n}_s": percentile(pauses, n / 100) for n in (50, 99)}
    figures["pause_max_s"] = max(pauses)
    for phase in ("preparing", "draining", "switching"):
        took = [each.round.durations.get(phase, 0.0) for each in found]
        figures[f"{phase}_p50_s"] = percentile(took, 0.5)
    return figures | {"failed": sum(each.round.failed for each in found)}


@click.command(help=__doc__)
@click.option("--moves", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--rate", default=50.0, show_default=True, type=click.FloatRange(1, 500))
@click.option("--kill", is_flag=True, help="Kill the leader in each phase.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(moves: int, rate: float, kill: bool, json_file: Path | None) -> None:
    found = soak(moves, 0, lambda line: click.echo(line, err=True), rate=rate, kills=kill)
    name = "migration-kill" if kill else "migration"
    title = f"{moves} moves of a small tenant under {rate:g} writes and {rate:g} reads a second"
    if kill:
        title += f", {sum(bool(each.phase) for each in found)} leaders killed"
    made = alone(name, title, [figures(found)], TARGETS, labels=LABELS)
    click.echo(report.text(made))
    measured.write(json_file, [made])


if __name__ == "__main__":
    main()
