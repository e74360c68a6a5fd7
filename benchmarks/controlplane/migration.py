"""The pause of migrations: 50 moves of a small tenant under 50 writes/s and 50 reads/s.

The pause of a move is the longest that any request took which was under way during it, as its
client saw it. No request may fail. With ``--kill`` the control plane's leader is killed in each
phase in turn, every fourth move excepted.
"""

from __future__ import annotations

import json
import statistics

import click

from pbcluster.testing.soak_migration import Killed, soak


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def figures(found: list[Killed]) -> dict[str, dict[str, float]]:
    """What took how long, in seconds."""
    columns = {"longest request": [each.round.pause_s for each in found]}
    for name in ("preparing", "draining", "switching"):
        columns[name] = [each.round.durations.get(name, 0.0) for each in found]
    return {
        name: {
            "p50": statistics.median(values),
            "p99": percentile(values, 0.99),
            "max": max(values),
        }
        for name, values in columns.items()
    }


@click.command(help=__doc__)
@click.option("--moves", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--rate", default=50.0, show_default=True, type=click.FloatRange(1, 500))
@click.option("--kill", is_flag=True, help="Kill the leader in each phase.")
@click.option("--json", "as_json", is_flag=True)
def main(moves: int, rate: float, kill: bool, as_json: bool) -> None:
    found = soak(moves, 0, lambda line: click.echo(line, err=True), rate=rate, kills=kill)
    shown = figures(found)
    if as_json:
        click.echo(json.dumps(shown))
        return
    click.echo(f"{'seconds':<20}{'p50':>10}{'p99':>10}{'max':>10}{'n':>6}")
    for name, values in shown.items():
        line = "".join(f"{values[key]:>10.3f}" for key in ("p50", "p99", "max"))
        click.echo(f"{name:<20}{line}{moves:>6}")


if __name__ == "__main__":
    main()
