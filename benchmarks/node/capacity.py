"""Measure "capacity": many active tenants on one node: memory, idle processor time, start, stop.

All tenants are created and answer; they are left alone for a moment, weighed, and watched while
idle. Then the node is ended by SIGTERM, which syncs and stops all of them, started again, and all
are asked at once, so that each comes back from its warm copy.
"""

from __future__ import annotations

import time

from benchmarks.gateway.figures import Target
from benchmarks.node.options import Options, Part
from benchmarks.node.stage import (
    cpu_share,
    create_tenants,
    everywhere,
    first_answer_s,
    one_node,
    processes_of,
    pss_bytes,
)

#: Litestream's and PocketBase's work after a start goes on for a while.
SETTLE_S = 30.0
TARGETS = (
    Target("pss_gib", "", 2.2),
    Target("idle_cores", "", 0.20),
    Target("warm_load_s", "", 20.0),
    Target("stop_s", "", 10.0),
)


def measure(options: Options) -> Part:
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
    return Part(f"{len(names)} active tenants on one node", [figures], TARGETS)
