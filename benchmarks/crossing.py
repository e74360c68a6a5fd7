"""How long a user waits, and what an empty cluster weighs, on real parts of this machine.

    python -m benchmarks.crossing [--rounds 5] [--wakes 20] [--json FILE]

Measured: start of a whole cluster until it serves; creation of a tenant until the first 200 of its
dashboard; first request to a stopped tenant with a warm copy; memory of an empty cluster (three
members, two nodes, one gateway, SeaweedFS; sum of the resident sets of all processes and what is
below them). The machine's own speed varies: quote medians.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from benchmarks import measured, report
from benchmarks.figures import Figures, Target, percentile
from benchmarks.measured import alone
from pbcluster.testing.cluster import RealCluster

LABELS = {
    "serves_s": "the cluster serves after its start, s",
    "created_s": "tenant created to first 200 of its dashboard, s",
    "wake_p50_ms": "first request to a stopped tenant with a warm copy, p50, ms",
    "wake_max_ms": "the same, at most, ms",
    "rss_mb": "resident memory of the empty cluster, MB",
}
TARGETS = (
    Target("serves_s", "", 15.0),
    Target("created_s", "", 2.0),
    Target("wake_p50_ms", "", 150.0),
    Target("rss_mb", "", 700.0),
)
NOTE = (
    "The memory is the sum of the resident sets of all processes, so pages that they share count "
    "several times."
)
EMAIL, PASSWORD = "bench@example.com", "a password for the bench"


def resident_bytes(cluster: RealCluster) -> int:
    """Sum of VmRSS of every process of the cluster."""
    pids = [pid for name in cluster.ids() if (pid := cluster.pid(name))]
    pids += [who.pid for name in cluster.ids() for who in cluster.children_of(name)]
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def start_and_create() -> list[Figures]:
    """One cluster; the creations of its tenants are rounds of their own."""
    with RealCluster(nodes=2) as cluster:
        began = time.monotonic()
        cluster.start()
        first = {"serves_s": time.monotonic() - began}
        time.sleep(1.0)
        first["rss_mb"] = resident_bytes(cluster) / 1e6
        found = []
        for number in range(3):
            name = f"bench{number}"
            began = time.monotonic()
            cluster.admin.create_tenant(name, EMAIL, PASSWORD)
            while cluster.ask_tenant(name, "GET", "/_/").status != 200:
                time.sleep(0.005)
            found.append(first | {"created_s": time.monotonic() - began})
            first = {}
        return found


def wake_ups(wakes: int) -> Figures:
    took = []
    with RealCluster(nodes=1, settings={"node": {"idle_stop_s": 0.3}}) as cluster:
        cluster.start()
        cluster.create_tenant("bench", EMAIL, PASSWORD)
        for _ in range(wakes):
            for status in ("active", "idle"):
                cluster.wait_until(
                    lambda: cluster.admin.tenant("bench")["status"] == status,  # noqa: B023
                    f"the tenant to be {status}",
                    20.0,
                )
            time.sleep(0.1)
            began = time.monotonic()
            answer = cluster.ask_tenant("bench", "GET", "/api/health").status
            took.append((time.monotonic() - began) * 1000)
            if answer != 200:
                raise click.ClickException(f"a stopped tenant answered {answer}")
    return {"wake_p50_ms": percentile(took, 0.5), "wake_max_ms": max(took)}


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--wakes", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(rounds: int, wakes: int, json_file: Path | None) -> None:
    found: list[Figures] = []
    for number in range(rounds):
        click.echo(f"round {number + 1}/{rounds}", err=True)
        found += start_and_create()
    click.echo(f"{wakes} wake-ups", err=True)
    found.append(wake_ups(wakes))
    title = "A whole cluster with two nodes"
    made = alone("crossing", title, found, TARGETS, labels=LABELS, notes=(NOTE,))
    click.echo(report.text(made))
    measured.write(json_file, [made])


if __name__ == "__main__":
    main()
