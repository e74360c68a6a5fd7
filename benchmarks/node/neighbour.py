"""Measure "neighbour": what a tenant feels of a hostile one on its node.

The neighbour's record is asked for through the gateway, one request after the other, quiet and with
the hostile tenant at work by turns. Hostile is, one after the other: all processor time that it
gets, memory until it is killed (and started again), its disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Target, percentile
from benchmarks.measured import Measured, alone
from benchmarks.node.options import Options
from benchmarks.node.stage import EMAIL, PASSWORD
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client

HOOK = """
routerAdd("GET", "/burn/{what}", (e) => {
  const what = e.request.pathValue("what"), until = Date.now() + 1000;
  const kept = [];
  while (Date.now() < until) {
    if (what === "memory") kept.push($security.randomString(1000000));
    if (what === "disk") $os.writeFile(`${$app.dataDir()}/fat`, "x".repeat(8000000), 0o644);
  }
  return e.json(200, {});
});
"""
CALLERS = 4
#: So many times as many requests as other measures make: of 300, the slowest hundredth is three.
REQUESTS_FACTOR = 4
#: What the hook is asked for → how it is told.
KINDS = {"cpu": "computes", "memory": "collects memory", "disk": "writes to its disk"}
CAUSE = (
    "a thread that wakes up may wait for a tick, 4 ms here, behind the hostile tenant's "
    "(decision 0083)"
)
TARGETS = tuple(Target(f"{kind}_ratio", "", 2.0, cause=CAUSE) for kind in KINDS)
LABELS = {
    f"{kind}_{figure}": told.format(name)
    for kind, name in KINDS.items()
    for figure, told in {
        "quiet_p50_ms": "before it {}, p50, ms",
        "quiet_p99_ms": "before it {}, p99, ms",
        "p50_ms": "while it {}, p50, ms",
        "p99_ms": "while it {}, p99, ms",
        "ratio": "p99 while it {}, to the quiet one of the same round",
    }.items()
}


def measure(options: Options) -> Measured:
    """See the module."""
    rounds: list[dict[str, float]] = [{} for _ in range(options.rounds)]
    requests = REQUESTS_FACTOR * options.requests
    with RealCluster(nodes=1, members=1) as cluster:
        cluster.start()
        for name in ("quiet", "hostile"):
            cluster.create_tenant(name, EMAIL, PASSWORD)
        hook(cluster, cluster.admin.tenant("hostile")["id"])
        cluster.wait_tenant("hostile")
        limits = limits_of(cluster)
        for kind in KINDS:
            for figures in rounds:
                quiet = times_ms(cluster, requests)
                with attacking(cluster, kind):
                    loud = times_ms(cluster, requests)
                cluster.wait_until(lambda: ask(cluster, "hostile", "/api/health") == 200, "it", 60)
                figures.update(told_of(kind, quiet, loud))
            options.tell(f"{kind}: {[round(figures[f'{kind}_ratio'], 2) for figures in rounds]}")
    title = "What a tenant feels of a hostile one on its node"
    notes = (f"Each figure is of {requests} requests. Limits: {limits}.",)
    return alone("neighbour", title, rounds, TARGETS, labels=LABELS, notes=notes)


def told_of(kind: str, quiet: list[float], loud: list[float]) -> dict[str, float]:
    """The figures of one kind in one round, from milliseconds of requests."""
    calm, busy = percentile(quiet, 0.99), percentile(loud, 0.99)
    return {
        f"{kind}_quiet_p50_ms": percentile(quiet, 0.5),
        f"{kind}_quiet_p99_ms": calm,
        f"{kind}_p50_ms": percentile(loud, 0.5),
        f"{kind}_p99_ms": busy,
        f"{kind}_ratio": busy / calm,
    }


def limits_of(cluster: RealCluster) -> str:
    """What confines its tenants, in the node's own words."""
    log = cluster.where.root / "log" / "node_1.log"
    return log.read_text().partition("confined by ")[2].partition("\n")[0]


def hook(cluster: RealCluster, tenant_id: str) -> None:
    """Give the hostile tenant its hook, and let it start again."""
    (directory,) = cluster.where.root.glob(f"data/node_1/tenants/{tenant_id}")
    (directory / "hooks" / "burn.pb.js").write_text(HOOK)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if argv[0].endswith(b"pocketbase") and tenant_id.encode() in argv[2]:
                    os.kill(int(entry.name), signal.SIGKILL)
    cluster.wait_until(lambda: ask(cluster, "hostile", "/burn/cpu") == 200, "the hook", 30)


def ask(cluster: RealCluster, name: str, path: str) -> int:
    client = Client(cluster.gateway_url, cluster.host(name))
    try:
        return int(client.ask("GET", path)[0])
    except OSError:
        return 0
    finally:
        client.close()


def times_ms(cluster: RealCluster, requests: int) -> list[float]:
    """Milliseconds of each request."""
    client = Client(cluster.gateway_url, cluster.host("quiet"))
    client.sign_in(EMAIL, PASSWORD)
    spent = []
    for _ in range(requests):
        began = time.perf_counter()
        status = client.ask("GET", "/api/collections/_superusers/records")[0]
        spent.append((time.perf_counter() - began) * 1000)
        assert status == 200, status
    client.close()
    return spent


@contextlib.contextmanager
def attacking(cluster: RealCluster, kind: str) -> Iterator[None]:
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            if ask(cluster, "hostile", f"/burn/{kind}") != 200:
                over.wait(0.05)

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
