"""``python -m benchmarks.raft``: loads in rounds, then faults, nodes, disk and restart.

Three members of the control plane, of etcd and of PySyncObj on the loopback and on one disk; see
docs/benchmarks.rst for what an operation is in each.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import measured, report
from benchmarks.measured import Measured
from benchmarks.raft import measures
from benchmarks.raft.aims import LABELS, TARGETS
from benchmarks.raft.groups import MEMBERS, Etcd, Ours, SyncObj

#: System → its figures, round after round.
Found = dict[str, list[measures.Figures]]
PARTS = ("loads", "faults", "nodes", "restart", "growth")


def made(name: str, title: str, found: Found) -> Measured:
    """With the names and targets of this measure."""
    return Measured(name, title, found, targets=TARGETS.get(name, ()), labels=LABELS)


def loads(groups: list[Any], rounds: int, seconds: float, only: str) -> list[Measured]:
    found: dict[str, Found] = {name: {} for name in measures.LOADS if only in name}
    for number in range(rounds):
        for name, systems in found.items():
            for group in groups:
                if isinstance(group, SyncObj) and not name.startswith("write"):
                    continue
                with measures.alone(group, groups):
                    figures = measures.load(group, name, seconds)
                systems.setdefault(group.name, []).append(figures)
                click.echo(f"round {number + 1}: {name}: {group.name}: {figures}", err=True)
    return [made(name, measures.LOADS[name].title, systems) for name, systems in found.items()]


def with_clients(groups: list[Any]) -> list[Any]:
    return [group for group in groups if not isinstance(group, SyncObj)]


def faults(groups: list[Any], kills: int) -> list[Measured]:
    killed: Found = {}
    moved: Found = {}
    for group in with_clients(groups):
        with measures.alone(group, groups):
            prefix = f"kill-{secrets.token_hex(4)}-"
            killed[group.name] = [measures.kills(group, prefix, kills)]
            prefix = f"move-{secrets.token_hex(4)}-"
            moved[group.name] = [measures.transfers(group, prefix, max(3, kills // 3))]
    return [
        made("kill", f"kill -9 of the leader, {kills} times", killed),
        made("transfer", f"Planned change of the leader, {max(3, kills // 3)} times", moved),
    ]


def growth(groups: list[Any], seconds: float) -> list[Measured]:
    found: Found = {}
    for group in with_clients(groups):
        with measures.alone(group, groups):
            found[group.name] = [measures.growth(group, seconds)]
    return [made("growth", "The disk of a member under writes", found)]


def restarts(tenants: int) -> list[Measured]:
    found: Found = {"pbcluster": [], "etcd": []}
    ours = measures.ours_with_tenants(tenants)
    try:
        ours.cluster.start(*MEMBERS)
        for _ in range(2):
            found["pbcluster"].append(measures.restart(ours, MEMBERS[0]))
    finally:
        ours.close()
    etcd = Etcd()
    try:
        etcd.start()
        measures.fill_etcd(etcd, tenants)
        found["etcd"].append(measures.restart(etcd, MEMBERS[0]))
    finally:
        etcd.close()
    return [made("restart", f"Restart of a member with {tenants:,} tenants (etcd: keys)", found)]


def nodes(seconds: float) -> list[Measured]:
    title = "Leases and heartbeats of 500 nodes"
    return [made("nodes", title, {"pbcluster": [measures.idle_nodes(seconds)]})]


def run(
    systems: list[Callable[[], Any]], parts: tuple[str, ...], options: dict[str, Any]
) -> list[Measured]:
    found: list[Measured] = []
    groups: list[Any] = []
    try:
        if {"loads", "faults", "growth"} & set(parts):
            for make in systems:
                groups.append(make())
                groups[-1].start()
        if "loads" in parts:
            found += loads(groups, options["rounds"], options["seconds"], options["only"])
        if "faults" in parts:
            found += faults(groups, options["kills"])
        if "growth" in parts:
            found += growth(groups, options["growth_s"])
    finally:
        for group in groups:
            group.close()
    if "nodes" in parts:
        found += nodes(options["nodes_s"])
    if "restart" in parts:
        found += restarts(options["tenants"])
    return found


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=3.0, show_default=True, help="Of each load.")
@click.option("--kills", default=10, show_default=True, help="Of each system's leader.")
@click.option("--nodes-s", default=10.0, show_default=True, help="How long 500 nodes are watched.")
@click.option("--growth-s", default=10.0, show_default=True, help="Writes, twice, for the disk.")
@click.option("--tenants", default=100_000, show_default=True, help="For the restart.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Default: all.")
@click.option("--only", default="", help="Loads whose name holds this.")
@click.option("--without-pysyncobj", is_flag=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(
    parts: tuple[str, ...], without_pysyncobj: bool, json_file: Path | None, **options: Any
) -> None:
    systems: list[Callable[[], Any]] = [Ours, Etcd]
    if not without_pysyncobj:
        systems.append(SyncObj)
    found = run(systems, parts or PARTS, options)
    for each in found:
        click.echo(report.text(each) + "\n")
    measured.write(json_file, found)


if __name__ == "__main__":
    main()
