"""``python -m benchmarks.raft``: loads in rounds, then faults, nodes and the disk."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.raft import measures, report
from benchmarks.raft.groups import MEMBERS, Etcd, Ours, SyncObj

Others = dict[str, measures.Figures]
PARTS = ("loads", "faults", "nodes", "restart", "growth")


def loads(groups: list[Any], rounds: int, seconds: float, only: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: {} for name in measures.LOADS if only in name}
    for number in range(rounds):
        for name, systems in found.items():
            for group in groups:
                if isinstance(group, SyncObj) and not name.startswith("writes"):
                    continue
                with measures.alone(group, groups):
                    figures = measures.load(group, name, seconds)
                systems.setdefault(group.name, []).append(figures)
                click.echo(f"round {number + 1}: {name}: {group.name}: {figures}", err=True)
    return found


def faults(groups: list[Any], kills: int) -> Others:
    found: Others = {}
    for group in groups:
        if isinstance(group, SyncObj):
            continue
        with measures.alone(group, groups):
            prefix = f"kill-{secrets.token_hex(4)}-"
            found[f"kill -9 of the leader, {group.name}"] = measures.kills(group, prefix, kills)
            prefix = f"move-{secrets.token_hex(4)}-"
            name = f"planned transfer, {group.name}"
            found[name] = measures.transfers(group, prefix, max(3, kills // 3))
    return found


def growth(groups: list[Any], seconds: float) -> Others:
    found: Others = {}
    for group in groups:
        if not isinstance(group, SyncObj):
            with measures.alone(group, groups):
                found[f"disk, {group.name}"] = measures.growth(group, seconds)
    return found


def restarts(tenants: int) -> Others:
    found: Others = {}
    ours = measures.ours_with_tenants(tenants)
    try:
        ours.cluster.start(*MEMBERS)
        for _ in range(2):
            found[f"restart with {tenants} tenants, pbcluster"] = measures.restart(ours, MEMBERS[0])
    finally:
        ours.close()
    etcd = Etcd()
    try:
        etcd.start()
        measures.fill_etcd(etcd, tenants)
        found[f"restart with {tenants} keys, etcd"] = measures.restart(etcd, MEMBERS[0])
    finally:
        etcd.close()
    return found


def run(
    systems: list[Callable[[], Any]], parts: tuple[str, ...], options: dict[str, Any]
) -> tuple[dict[str, Any], Others]:
    rounds: dict[str, Any] = {}
    others: Others = {}
    groups: list[Any] = []
    try:
        if {"loads", "faults", "growth"} & set(parts):
            for make in systems:
                groups.append(make())
                groups[-1].start()
        if "loads" in parts:
            rounds = loads(groups, options["rounds"], options["seconds"], options["only"])
        if "faults" in parts:
            others |= faults(groups, options["kills"])
        if "growth" in parts:
            others |= growth(groups, options["growth_s"])
    finally:
        for group in groups:
            group.close()
    if "nodes" in parts:
        others["share of a core, 500 nodes"] = measures.idle_nodes(options["nodes_s"])
    if "restart" in parts:
        others |= restarts(options["tenants"])
    return rounds, others


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
@click.option("--rst", "rst_file", type=click.Path(path_type=Path), help="Tables; SVG beside.")
def main(
    parts: tuple[str, ...],
    without_pysyncobj: bool,
    json_file: Path | None,
    rst_file: Path | None,
    **options: Any,
) -> None:
    systems: list[Callable[[], Any]] = [Ours, Etcd]
    if not without_pysyncobj:
        systems.append(SyncObj)
    rounds, others = run(systems, parts or PARTS, options)
    click.echo(report.text_table(report.rows(rounds)))
    for name, told in report.facts(others):
        click.echo(f"{name}: {told}")
    if json_file is not None:
        json_file.write_text(json.dumps({"rounds": rounds, "others": others}, indent=1))
    if rst_file is not None:
        report.write_rst(rst_file, rounds, others)


if __name__ == "__main__":
    main()
