"""Measure "capacity": many active tenants on one node: memory, idle processor time, start, stop.

All tenants are created and answer; they are left alone for some time, weighed, and watched while
idle. Then the node is ended by SIGTERM, which syncs and stops all of them, started again, and all
are asked at once, so that each comes back from its warm copy.
"""

from __future__ import annotations

import time

from benchmarks.figures import Target
from benchmarks.measured import Measured, alone
from benchmarks.node.options import Options
from benchmarks.node.stage import (
    cpu_share,
    create_tenants,
    everywhere,
    first_answer_s,
    one_node,
    processes_of,
    pss_bytes,
)

#: Work after a start goes on for a while: a minute after a database's first sync Litestream moves
#: what came into its WAL into the database; until then it reads a snapshot each second.
SETTLE_S = 90.0
LABELS = {
    "create_s": "created and answering after, s",
    "pss_gib": "memory (PSS) of all processes, GiB",
    "node_mib": "of it the node's own process, MiB",
    "idle_cores": "processor time when idle, cores",
    "node_idle_cores": "of it the node's own process, cores",
    "stop_s": "SIGTERM until all are synced and stopped, s",
    "node_start_s": "start of the node until it serves, s",
    "warm_load_s": "start of the node until all answer from warm copies, s",
}
TARGETS = (
    Target("pss_gib", "", 2.2),
    Target(
        "idle_cores",
        "",
        0.20,
        cause="Litestream looks at each tenant's database each second, and PocketBase has timers",
    ),
    Target(
        "warm_load_s",
        "",
        20.0,
        cause="two cores, which S3 shares, are busy all the while: a start takes 0.15 s of "
        "processor time, all in all",
    ),
    Target("stop_s", "", 10.0),
)


def measure(options: Options) -> Measured:
    names = [f"t{number:03}" for number in range(options.tenants)]
    figures = {}
    with one_node(idle_stop_s=86_400.0) as cluster:
        (node,) = cluster.ids("node")
        began = time.monotonic()
        create_tenants(cluster, names)
        figures["create_s"] = time.monotonic() - began
        options.tell(f"{len(names)} tenants created in {figures['create_s']:.1f} s; settling")
        time.sleep(SETTLE_S)
        pids = processes_of(cluster, node)
        figures["pss_gib"] = pss_bytes(pids) / 2**30
        figures["node_mib"] = pss_bytes(pids[:1]) / 2**20
        figures["idle_cores"] = cpu_share(pids, options.watch_s)
        figures["node_idle_cores"] = cpu_share(pids[:1], options.watch_s)
        began = time.monotonic()
        if not cluster.stop(node):
            raise SystemExit("the node did not end by itself")
        figures["stop_s"] = time.monotonic() - began
        began = time.monotonic()
        cluster.start(node)
        figures["node_start_s"] = time.monotonic() - began
        everywhere(lambda name: first_answer_s(cluster, name), names)
        figures["warm_load_s"] = time.monotonic() - began
    title = f"{len(names)} active tenants on one node"
    return alone("capacity", title, [figures], TARGETS, labels=LABELS)
