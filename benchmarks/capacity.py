"""What a number of nodes carries, and what S3 is asked and paid for it in a month.

Every figure comes from what was measured (docs/benchmarks/data) or from an assumption that an
option changes; the formulas are shown. Nothing is run.

\b
    python -m benchmarks.capacity
    python -m benchmarks.capacity --nodes 3 --active 0.2 --writes 500 --dear 4.5 --cheap 0.36
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import click

from benchmarks import kept
from benchmarks.figures import Spread, number
from benchmarks.report import Table, aligned, rst_table

HOURS = 730.0
DAYS = HOURS / 24
#: What `benchmarks.node --only capacity` runs at once.
MEASURED_TENANTS = 200
FORMULAS = (
    "tenants = nodes × places × (1 − reserve)",
    "active = tenants × active share",
    "memory of a node = memory of 200 active tenants × active of it / 200",
    "processor of a node, idle = that of 200 idle active tenants × active of it / 200",
    "requests a month = 730 h × (nodes × of a node + active × of an active tenant "
    "+ stopped × of a stopped one) + 30.4 days × tenants × (writes × of a write + wakes × of a "
    "wake-up)",
    "cost a month = PUT and LIST × their price + GET and HEAD × theirs + tenants × stored × its "
    "price",
)


@attrs.frozen(kw_only=True)
class Assumptions:
    """What nobody can measure for somebody else.

    :ivar places: tenants of a node, running or not. :ivar reserve: share of them that is kept for
        tenants of nodes that die. :ivar active_share: of the tenants, runs at a time.
    :ivar writes_day, wakes_day: of one tenant. :ivar stored_gb: in S3, of one tenant.
    :ivar dear, cheap: US dollars for a million requests of the class.
    :ivar storage: US dollars for a gigabyte and month.
    """

    places: int = 200
    reserve: float = 0.1
    active_share: float = 0.3
    writes_day: float = 200.0
    wakes_day: float = 3.0
    stored_gb: float = 0.1
    dear: float = 5.0
    cheap: float = 0.4
    storage: float = 0.023


@attrs.frozen(kw_only=True)
class Costs:
    """What was measured. Requests are (PUT and LIST, GET and HEAD)."""

    pss_gib: float
    idle_cores: float
    node_h: tuple[float, float]
    active_h: tuple[float, float]
    stopped_h: tuple[float, float]
    write: tuple[float, float]
    wake: tuple[float, float]


@attrs.frozen(kw_only=True)
class Carried:
    """One line of the table."""

    nodes: int
    tenants: int
    active: int
    memory_gib: float
    cores: float
    dear: float
    cheap: float
    requests_usd: float
    storage_usd: float


def carried(nodes: int, by: Assumptions, costs: Costs) -> Carried:
    """What so many nodes carry. Pure: :data:`FORMULAS` in code."""
    tenants = int(nodes * by.places * (1 - by.reserve))
    active = int(tenants * by.active_share)
    share = active / nodes / MEASURED_TENANTS

    def month(kind: int) -> float:
        hour = (
            nodes * costs.node_h[kind]
            + active * costs.active_h[kind]
            + (tenants - active) * costs.stopped_h[kind]
        )
        day = by.writes_day * costs.write[kind] + by.wakes_day * costs.wake[kind]
        return HOURS * hour + DAYS * tenants * day

    dear, cheap = month(0), month(1)
    return Carried(
        nodes=nodes,
        tenants=tenants,
        active=active,
        memory_gib=costs.pss_gib * share,
        cores=costs.idle_cores * share,
        dear=dear,
        cheap=cheap,
        requests_usd=(dear * by.dear + cheap * by.cheap) / 1e6,
        storage_usd=tenants * by.stored_gb * by.storage,
    )


def measured(data: Path) -> Costs:
    """The figures that the formulas need.

    :raises click.ClickException: one was not measured yet; says by which command it is.
    """
    capacity = figures(data, "node", "capacity")
    s3 = figures(data, "node", "s3-requests")

    def pair(name: str, hour: str = "") -> tuple[float, float]:
        return s3[f"{name}_dear{hour}"], s3[f"{name}_cheap{hour}"]

    return Costs(
        pss_gib=capacity["pss_gib"],
        idle_cores=capacity["idle_cores"],
        node_h=pair("node", "_h"),
        active_h=pair("active", "_h"),
        stopped_h=pair("stopped", "_h"),
        write=pair("write"),
        wake=pair("warm"),
    )


def figures(data: Path, part: str, name: str) -> Mapping[str, float]:
    """Medians of a measure. :raises click.ClickException: there are none."""
    for each in kept.load(data / f"{part}.json"):
        if each.name == name and each.measured is not None:
            rounds = each.measured.rounds["pbcluster"]
            return {f: Spread.of([r[f] for r in rounds if f in r]).mid for f in rounds[0]}
    raise click.ClickException(
        f"{name} was not measured yet: python -m benchmarks --only {part}/{name}"
    )


def assumption_table(by: Assumptions) -> Table:
    return [
        ("assumption", "value", "option"),
        ("places for tenants on a node", str(by.places), "--places"),
        ("of them kept for tenants of nodes that die", f"{by.reserve:.0%}", "--reserve"),
        ("share of the tenants that runs at a time", f"{by.active_share:.0%}", "--active"),
        ("writes of a tenant a day", number(by.writes_day), "--writes"),
        ("wake-ups of a tenant a day", number(by.wakes_day), "--wakes"),
        ("stored in S3 for a tenant, GB", number(by.stored_gb), "--stored"),
        ("a million of PUT, POST and LIST, US $", number(by.dear), "--dear"),
        ("a million of GET and HEAD, US $", number(by.cheap), "--cheap"),
        ("a gigabyte for a month, US $", number(by.storage), "--storage"),
    ]


def cost_table(costs: Costs) -> Table:
    def row(name: str, both: tuple[float, float]) -> tuple[str, ...]:
        return name, number(both[0]), number(both[1])

    return [
        ("requests, as measured", "PUT and LIST", "GET and HEAD"),
        row("a node without tenants, an hour", costs.node_h),
        row("an active tenant that nobody writes to, an hour", costs.active_h),
        row("a stopped tenant, an hour", costs.stopped_h),
        row("a write", costs.write),
        row("a warm wake-up and the stop after it", costs.wake),
    ]


def result_table(rows: list[Carried]) -> Table:
    found: Table = [("nodes", *(f"{each.nodes:,}" for each in rows))]
    for name, get in (
        ("tenants", lambda r: f"{r.tenants:,}"),
        ("of them active at a time", lambda r: f"{r.active:,}"),
        ("memory of a node for them, GiB", lambda r: number(r.memory_gib)),
        ("processor of a node when they are idle, cores", lambda r: number(r.cores)),
        ("PUT and LIST a month, millions", lambda r: number(r.dear / 1e6)),
        ("GET and HEAD a month, millions", lambda r: number(r.cheap / 1e6)),
        ("requests a month, US $", lambda r: number(r.requests_usd)),
        ("storage a month, US $", lambda r: number(r.storage_usd)),
        ("S3 for a tenant and month, US $", lambda r: number(_each(r))),
    ):
        found.append((name, *(get(each) for each in rows)))
    return found


def _each(row: Carried) -> float:
    return (row.requests_usd + row.storage_usd) / max(1, row.tenants)


def tables(nodes: tuple[int, ...], by: Assumptions, costs: Costs) -> list[Table]:
    """Assumptions, what was measured, what follows."""
    rows = [carried(each, by, costs) for each in nodes]
    return [assumption_table(by), cost_table(costs), result_table(rows)]


def page(data: Path) -> str:
    """docs/benchmarks/capacity.inc: the tables of the assumptions that stand here."""
    made = tables((1, 10, 500), Assumptions(), measured(data))
    formulas = "\n".join(f"* {each}" for each in FORMULAS)
    return "\n".join([*map(rst_table, made), f"Formulas:\n\n{formulas}\n"])


@click.command(help=__doc__)
@click.option("--nodes", multiple=True, type=click.IntRange(1), help="Default: 1, 10 and 500.")
@click.option("--places", default=200, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--reserve", default=0.1, show_default=True, type=click.FloatRange(0, 1))
@click.option("--active", "active_share", default=0.3, show_default=True)
@click.option("--writes", "writes_day", default=200.0, show_default=True, help="Of a tenant a day.")
@click.option("--wakes", "wakes_day", default=3.0, show_default=True, help="Of a tenant a day.")
@click.option("--stored", "stored_gb", default=0.1, show_default=True, help="GB of a tenant.")
@click.option("--dear", default=5.0, show_default=True, help="$ a million PUT, POST, LIST.")
@click.option("--cheap", default=0.4, show_default=True, help="$ a million GET, HEAD.")
@click.option("--storage", default=0.023, show_default=True, help="$ a GB and month.")
def main(nodes: tuple[int, ...], **given: float) -> None:
    by = Assumptions(**given)  # type: ignore[arg-type]
    for table in tables(nodes or (1, 10, 500), by, measured(kept.DOCS / "data")):
        click.echo(aligned(table) + "\n")
    for formula in FORMULAS:
        click.echo(formula)


if __name__ == "__main__":
    main()
