"""How many requests a node makes to S3: for a tenant that is active and idle, for a write, for a
wake-up. They are counted by a proxy between everybody and SeaweedFS.

\b
    python -m benchmarks.node.s3_requests
    python -m benchmarks.node.s3_requests --tenants 2 --watch 5 --writes 5 --wakes 2 --settle 2

Providers bill PUT, COPY, POST and LIST as one class and GET, HEAD as another; DELETE is free.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks import measured, report
from benchmarks.figures import Figures
from benchmarks.measured import alone
from benchmarks.node.stage import RECORDS, create_tenants, everywhere, first_answer_s, signed_in
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.s3_faults import S3Faults
from pbcluster.testing.workload import Client

#: Kinds that are billed as the dear class; the rest but DELETE are the cheap one.
DEAR = ("put", "post", "copy", "list")
WRITERS = 20
SETTLE_S = 5.0
LABELS = {
    "node_dear_h": "a node without tenants, PUT and LIST an hour",
    "node_cheap_h": "a node without tenants, GET and HEAD an hour",
    "active_dear_h": "an active tenant that nobody writes to, PUT and LIST an hour",
    "active_cheap_h": "an active tenant that nobody writes to, GET and HEAD an hour",
    "stopped_dear_h": "a stopped tenant, PUT and LIST an hour",
    "stopped_cheap_h": "a stopped tenant, GET and HEAD an hour",
    "write_dear": "a write, one after the other, PUT and LIST",
    "write_cheap": "a write, one after the other, GET and HEAD",
    "shared_dear": f"a write among {WRITERS} writers, PUT and LIST",
    "shared_cheap": f"a write among {WRITERS} writers, GET and HEAD",
    "warm_dear": "a stop and a warm wake-up, PUT and LIST",
    "warm_cheap": "a stop and a warm wake-up, GET and HEAD",
    "cold_dear": "a stop and a wake-up from S3, PUT and LIST",
    "cold_cheap": "a stop and a wake-up from S3, GET and HEAD",
}
NOTE = (
    "Tenants are ``sync``, with ``auxiliary`` as by default. What Litestream compacts by the hour "
    "and day is not in it. After a wake-up the tenant stops again: its end is counted with it."
)


@contextmanager
def counted(**settings: Any) -> Iterator[tuple[RealCluster, S3Faults]]:
    """A cluster of one node whose way to S3 goes through a counter."""
    with RealCluster(nodes=1, members=1, settings={"node": settings}) as cluster:
        (s3,) = cluster.plan.of("s3")
        real = f"http://127.0.0.1:{s3.ports['s3']}"
        with S3Faults(real) as counter:
            for path in cluster.where.root.rglob("node_1*.toml"):
                path.write_text(path.read_text().replace(real, counter.url))
            cluster.start()
            yield cluster, counter


def classes(before: Counter[str], after: Counter[str]) -> tuple[int, int]:
    """Requests of the dear and of the cheap class in between."""
    spent = after - before
    dear = sum(spent[kind] for kind in DEAR)
    return dear, sum(spent.values()) - dear - spent["delete"]


def during(counter: S3Faults, do: Callable[[], object], each: float) -> tuple[float, float]:
    """Requests of both classes while ``do`` runs, divided by ``each``."""
    before = Counter(counter.seen)
    do()
    dear, cheap = classes(before, Counter(counter.seen))
    return dear / each, cheap / each


def an_hour(counter: S3Faults, seconds: float, less: tuple[float, float]) -> tuple[float, float]:
    """Requests an hour, told by so many seconds of nothing, without those of ``less``."""
    dear, cheap = during(counter, lambda: time.sleep(seconds), seconds / 3600)
    return max(0.0, dear - less[0]), max(0.0, cheap - less[1])


def active(
    tenants: int, watch_s: float, writes: int, settle_s: float
) -> dict[str, tuple[float, float]]:
    found = {}
    names = [f"t{number}" for number in range(tenants)]
    with counted(idle_stop_s=86_400.0) as (cluster, counter):
        time.sleep(SETTLE_S)
        node = found["node"] = an_hour(counter, watch_s, (0.0, 0.0))
        create_tenants(cluster, names)
        signed_in(cluster, names[0]).close()
        time.sleep(settle_s)
        dear, cheap = an_hour(counter, watch_s, node)
        found["active"] = dear / tenants, cheap / tenants

        def write(client: Client, count: int) -> None:
            for number in range(count):
                status, answer = client.ask("POST", RECORDS, {"n": number})
                if status != 200:
                    raise SystemExit(f"a write answered {status}: {answer}")

        host = cluster.host(names[0])
        client = Client(cluster.gateway_url, host)
        found["write"] = during(counter, lambda: write(client, writes), writes)
        client.close()
        each = max(1, writes // 4)
        clients = {str(n): Client(cluster.gateway_url, host) for n in range(WRITERS)}
        at_once = lambda: everywhere(lambda n: write(clients[n], each), list(clients))  # noqa: E731
        found["shared"] = during(counter, at_once, each * WRITERS)
    return found


def waking(wakes: int, watch_s: float, *, warm: bool) -> dict[str, tuple[float, float]]:
    settings = {} if warm else {"warm_bytes": 0}
    with counted(idle_stop_s=0.5, **settings) as (cluster, counter):
        create_tenants(cluster, ["t"])

        def stopped() -> None:
            idle = lambda: cluster.admin.tenant("t")["status"] == "idle"  # noqa: E731
            cluster.wait_until(idle, "the tenant to be idle")
            time.sleep(1.0)

        def wake() -> None:
            for _ in range(wakes):
                first_answer_s(cluster, "t")
                stopped()

        stopped()
        found = {"warm" if warm else "cold": during(counter, wake, wakes)}
        if warm:
            node_and_tenant = during(counter, lambda: time.sleep(watch_s), watch_s / 3600)
            found["stopped"] = node_and_tenant
    return found


def figures(tenants: int, watch_s: float, writes: int, wakes: int, settle_s: float) -> Figures:
    found = active(tenants, watch_s, writes, settle_s)
    found |= waking(wakes, watch_s, warm=True)
    found |= waking(wakes, watch_s, warm=False)
    node = found["node"]
    dear, cheap = found["stopped"]
    found["stopped"] = max(0.0, dear - node[0]), max(0.0, cheap - node[1])
    told = {}
    for name, (dear, cheap) in found.items():
        hour = "_h" if name in ("node", "active", "stopped") else ""
        told |= {f"{name}_dear{hour}": dear, f"{name}_cheap{hour}": cheap}
    return {name: told[name] for name in LABELS}


@click.command(help=__doc__)
@click.option("--tenants", default=10, show_default=True, type=click.IntRange(1, 200))
@click.option("--watch", "watch_s", default=90.0, show_default=True, help="Seconds of nothing.")
@click.option("--writes", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--wakes", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--settle",
    "settle_s",
    default=70.0,
    show_default=True,
    help="Seconds after the creations: Litestream's first compaction comes after 30.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(
    tenants: int,
    watch_s: float,
    writes: int,
    wakes: int,
    settle_s: float,
    json_file: Path | None,
) -> None:
    title = f"Requests to S3, {tenants} tenants"
    found = figures(tenants, watch_s, writes, wakes, settle_s)
    made = alone("s3-requests", title, [found], labels=LABELS, notes=(NOTE,))
    click.echo(report.text(made))
    measured.write(json_file, [made])


if __name__ == "__main__":
    main()
