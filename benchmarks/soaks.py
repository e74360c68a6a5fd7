"""The two long runs on nodes, kept as other figures are: a broken promise is a figure.

\b
    python -m benchmarks.soaks crossing --rounds 100 --writers 20
    python -m benchmarks.soaks node --minutes 30 --tenants 50
    python -m benchmarks.soaks crossing --from run.json

Further arguments are those of ``pbcluster.testing.soak_crossing`` and ``…soak_node``. ``--from``
makes the measure from what they printed with ``--json`` before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import measured, report
from benchmarks.figures import Target
from benchmarks.measured import Measured, alone

Told = Mapping[str, Any]
NOTHING_BROKEN = Target("broken", "", 0.0)


def crossing(told: Told) -> Measured:
    """What ``soak_crossing --json`` told."""
    figures: dict[str, float] = {"broken": float(not told["good"])}
    title = "A node's death again and again under writers"
    if told["good"]:
        title = f"{told['rounds']} deaths of a node under {told['writers']} writers and two readers"
        figures |= {name: float(told[name]) for name in CROSSING if name in told}
        for kind in ("write", "read"):
            for name, value in told[f"{kind}_gap_s"].items():
                figures[f"{kind}_gap_{name}_s"] = float(value)
    targets = (
        NOTHING_BROKEN,
        Target("write_gap_p50_s", "", 3.5),
        Target("write_gap_max_s", "", 8.0),
    )
    note = (
        "The node is killed with SIGKILL, by turns with everything below it and alone, and started "
        "again. After each death every acknowledged row is looked for through the gateway and in a "
        "database restored from S3. At least 2 s of a wait are the time for which the dead node's "
        "lease could still prove."
    )
    return alone("soak", title, [figures], targets, labels=CROSSING | GAPS, notes=(note,))


def node(told: Told) -> Measured:
    """What ``soak_node --json`` told."""
    figures: dict[str, float] = {"broken": float(not told["good"])}
    if told["good"]:
        figures |= {name: float(told[name]) for name in NODE if name in told}
    note = (
        "At the end each tenant is read back: rows, files, replica. Requests fail while their node "
        "is dead; they are counted, not judged."
    )
    title = "Many tenants used by fits and starts, moved, killed and restored"
    return alone("soak-node", title, [figures], (NOTHING_BROKEN,), labels=NODE, notes=(note,))


CROSSING = {
    "broken": "broken promises: rows lost or changed, stale reads, bad replicas, second owners",
    "acknowledged": "rows acknowledged",
    "restores_checked": "replicas restored, whole and with every row",
    "probes": "answers of nodes that were asked directly, none of a second owner",
    "failed_reads": "reads that failed",
}
GAPS = {
    f"{kind}_gap_{figure}_s": f"longest wait for a {kind}, {told}, s"
    for kind in ("write", "read")
    for figure, told in {"p50": "p50 of the rounds", "max": "at most"}.items()
}
NODE = {
    "broken": CROSSING["broken"],
    "bursts": "bursts of use",
    "rows": "rows acknowledged",
    "uploads": "files uploaded",
    "deletions": "files deleted",
    "restores": "replicas restored and checked during the run",
    "moves": "moves to the other node",
    "moves_not_done": "moves that did not come about",
    "kills": "kill -9 of a node",
    "stopped": "share of tenants that were stopped, mean",
    "failed_requests": "requests without a clear good answer",
}
SOAKS: dict[str, tuple[str, Callable[[Told], Measured]]] = {
    "crossing": ("pbcluster.testing.soak_crossing", crossing),
    "node": ("pbcluster.testing.soak_node", node),
}


def run(module: str, words: Sequence[str]) -> Told:
    """Run a soak. :returns: what it told. :raises ClickException: it told nothing."""
    argv = [sys.executable, "-m", module, *words, "--json"]
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, text=True)
    try:
        told: Told = json.loads(done.stdout)
    except ValueError:
        raise click.ClickException(f"{' '.join(argv)} ended with {done.returncode}") from None
    if not told["good"]:
        click.echo(told["broken"], err=True)
    return told


@click.command(
    help=__doc__,
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@click.argument("which", type=click.Choice(tuple(SOAKS)))
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.option("--from", "source", type=click.Path(path_type=Path, exists=True), help="A run.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(which: str, words: tuple[str, ...], source: Path | None, json_file: Path | None) -> None:
    module, make = SOAKS[which]
    told = json.loads(source.read_text()) if source is not None else run(module, words)
    found = make(told)
    click.echo(report.text(found) + "\n")
    measured.write(json_file, [found])


if __name__ == "__main__":
    main()
