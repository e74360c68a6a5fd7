"""How long a user waits, and what an empty cluster weighs, on real parts of this machine.

    python benchmarks/crossing.py [--rounds 5] [--wakes 20] [--json]

Prints: start of a whole cluster until it serves; creation of a tenant until the first 200 of its
dashboard; first request to a stopped tenant with a warm copy; memory of an empty cluster (one
member, two nodes, one gateway, SeaweedFS; sum of the resident sets of all processes and what is
below them). The machine's own speed varies: quote medians.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click

from pbcluster.testing.cluster import RealCluster

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


def start_and_create(found: dict[str, list[float]]) -> None:
    with RealCluster(nodes=2) as cluster:
        began = time.monotonic()
        cluster.start()
        found["cluster serves, s"].append(time.monotonic() - began)
        time.sleep(1.0)
        found["empty cluster, MB RSS"].append(resident_bytes(cluster) / 1e6)
        for number in range(3):
            name = f"bench{number}"
            began = time.monotonic()
            cluster.admin.create_tenant(name, EMAIL, PASSWORD)
            while cluster.ask_tenant(name, "GET", "/_/").status != 200:
                time.sleep(0.005)
            found["create to first 200 of the dashboard, s"].append(time.monotonic() - began)


def wake_ups(found: dict[str, list[float]], wakes: int) -> None:
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
            took_ms = (time.monotonic() - began) * 1000
            if answer != 200:
                raise click.ClickException(f"a stopped tenant answered {answer}")
            found["first request to a stopped tenant, warm, ms"].append(took_ms)


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--wakes", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def main(rounds: int, wakes: int, as_json: bool) -> None:
    found: dict[str, Any] = {
        "cluster serves, s": [],
        "create to first 200 of the dashboard, s": [],
        "first request to a stopped tenant, warm, ms": [],
        "empty cluster, MB RSS": [],
    }
    for number in range(rounds):
        click.echo(f"round {number + 1}/{rounds}", err=True)
        start_and_create(found)
    click.echo(f"{wakes} wake-ups", err=True)
    wake_ups(found, wakes)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{'figure':<46}{'min':>10}{'median':>10}{'max':>10}{'n':>5}")
    for name, values in found.items():
        click.echo(
            f"{name:<46}{min(values):>10.2f}{statistics.median(values):>10.2f}"
            f"{max(values):>10.2f}{len(values):>5}"
        )


if __name__ == "__main__":
    main()
