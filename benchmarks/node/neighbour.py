"""``python -m benchmarks.node.neighbour``: what a tenant feels of a hostile one on its node.

A whole cluster with one node; the neighbour's record is asked for through the gateway, one request
after the other, quiet and with the hostile tenant at work by turns. Hostile is, one after the
other: all processor time that it gets, memory until it is killed (and started again), its disk.
Then the cost of the sandbox at a start: a warm start of PocketBase with and without it by turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client

EMAIL, PASSWORD = "owner@example.com", "correct horse battery"
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
KINDS = ("cpu", "memory", "disk")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400, help="of the neighbour, each time")
    parser.add_argument("--starts", type=int, default=20)
    options = parser.parse_args()
    neighbour(options.rounds, options.requests)
    starts(options.starts)
    return 0


def neighbour(rounds: int, requests: int) -> None:
    with RealCluster(nodes=1, members=1) as cluster:
        cluster.start()
        for name in ("quiet", "hostile"):
            cluster.create_tenant(name, EMAIL, PASSWORD)
        print((cluster.where.root / "log" / "node_1.log").read_text().partition("confined by ")[2]
              .partition("\n")[0])  # fmt: skip
        hook(cluster, cluster.admin.tenant("hostile")["id"])
        cluster.wait_tenant("hostile")
        print(
            f"{'kind':8}{'quiet p50':>11}{'p99':>8}{'hostile p50':>13}{'p99':>8}{'ratio':>7} (ms)"
        )
        for kind in KINDS:
            quiet, loud = [], []
            for _ in range(rounds):
                quiet += measure(cluster, requests)
                with attacking(cluster, kind):
                    loud += measure(cluster, requests)
                cluster.wait_until(lambda: ask(cluster, "hostile", "/api/health") == 200, "it", 60)
            rows = [at(quiet, 50), at(quiet, 99), at(loud, 50), at(loud, 99)]
            text = "{:11.2f}{:8.2f}{:13.2f}{:8.2f}".format(*rows)
            print(f"{kind:8}{text}{rows[3] / rows[1]:7.2f}", flush=True)


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


def measure(cluster: RealCluster, requests: int) -> list[float]:
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


def at(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def starts(rounds: int) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    net: Any = reactor
    failures: list[Any] = []

    def run() -> None:
        done = Deferred.fromCoroutine(warm_starts(net, rounds))
        done.addErrback(failures.append)
        done.addBoth(lambda _: net.stop())

    net.callWhenRunning(run)
    net.run()
    if failures:
        failures[0].raiseException()


async def warm_starts(reactor: Any, rounds: int) -> None:
    from pbcluster import binaries
    from pbcluster.node.interfaces import WorkloadSpec
    from pbcluster.node.sandbox.sandbox import Sandbox, SandboxSettings
    from pbcluster.node.workload import PocketBaseWorkloads

    root = Path(tempfile.mkdtemp(prefix="pbstarts-"))
    root.chmod(0o711)
    binary = binaries.locate("pocketbase", {})
    ways = {}
    (root / "tenants").mkdir()
    for name, settings in (
        ("without", SandboxSettings(insecure=True)),
        ("landlock", SandboxSettings(mode="landlock")),
        ("landlock, users", SandboxSettings(mode="landlock", users=(30000, 59999))),
        ("bubblewrap", SandboxSettings(mode="bubblewrap")),
    ):
        sandbox = Sandbox(settings, root, binary)
        with contextlib.suppress(Exception):
            sandbox.prepare()
            ways[name] = PocketBaseWorkloads(
                reactor, binary=binary, data_dir=root, lock_fd=lambda _: None, sandbox=sandbox
            )
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, workloads in ways.items():
            tenant_id = f"tenant_{list(ways).index(name)}"
            spec = WorkloadSpec(
                tenant_id=tenant_id, directory=root / "tenants" / tenant_id, encryption_key="k" * 32
            )
            began = time.perf_counter()
            running = await workloads.start(spec)
            spent[name].append((time.perf_counter() - began) * 1000)
            await running.stop()
    shutil.rmtree(root)
    print(f"{'start (warm)':18}{'min':>8}{'p50':>8}{'p90':>8} (ms)")
    for name, values in spent.items():
        row = sorted(values[1:])  # the first one makes the database
        figures = (row[0], row[len(row) // 2], row[int(len(row) * 0.9)])
        print(f"{name:18}" + "".join(f"{figure:8.1f}" for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
