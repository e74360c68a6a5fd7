"""Measures "writes" and "reads": what the platform adds to a request of PocketBase.

One tenant; requests go by turns straight to its PocketBase, to its node (signed as its gateway
signs) and through the gateway, so that every figure comes from the same process and the same
minute. The difference of two medians is what was added. S3 is SeaweedFS on the loopback.
"""

from __future__ import annotations

import statistics
import threading
import time
import timeit
from collections.abc import Callable
from urllib.parse import urlsplit

from benchmarks.figures import Figures, Target, percentile
from benchmarks.measured import Measured, alone
from benchmarks.node.options import Options
from benchmarks.node.stage import (
    RECORDS,
    Wire,
    create_tenants,
    one_node,
    pocketbase_port,
    row,
    signed_in,
    to_node,
)
from pbcluster.durations import Durations
from pbcluster.node.machine import boottime
from pbcluster.node.proofs import Held, Proofs
from pbcluster.testing.cluster import RealCluster

WRITERS = 20
SYNC_TARGETS = (
    Target(
        "sync_added_p50_ms",
        "",
        10.0,
        cause="nearly all of it is Litestream's sync with its PUT to S3, on cores that all share",
    ),
    Target(
        "sync_writes_s",
        "",
        900.0,
        at_most=False,
        cause="load generator, SeaweedFS, Litestream, node and PocketBase share two cores",
    ),
)
ASYNC_TARGETS = (
    Target(
        "async_added_p50_ms",
        "",
        0.3,
        cause="the node's hop is Python: one more process reads and writes every request",
    ),
)
#: "Nothing measurable" in a read, whose p50 varies more than that from round to round.
READ_TARGETS = (Target("read_proof_share", "", 0.02),)
READ_LABELS = {
    "read_proof_us": "of it the look at the proof, µs",
    "read_proof_share": "the look at the proof, share of PocketBase's own p50",
}
WARM_UP = 50


def ways(cluster: RealCluster, name: str) -> dict[str, Callable[[], Wire]]:
    """Way → a new connection that goes it."""
    tenant = cluster.admin.tenant(name)
    port = pocketbase_port(cluster, tenant["nodeID"], tenant["id"])
    gateway = urlsplit(cluster.gateway_url).port or 0
    host = cluster.host(name)
    return {
        "direct": lambda: Wire(port, host),
        "node": lambda: to_node(cluster, tenant),
        "gateway": lambda: Wire(gateway, host),
    }


def by_turns(
    connections: dict[str, Wire], count: int, one: Callable[[Wire, int, str], int]
) -> dict[str, list[float]]:
    """Milliseconds of ``count`` requests on each connection, in turns."""
    took: dict[str, list[float]] = {way: [] for way in connections}
    for number in range(count + WARM_UP):
        for way, wire in connections.items():
            began = time.perf_counter()
            status = one(wire, number, way)
            spent = (time.perf_counter() - began) * 1000
            if status != 200:
                raise SystemExit(f"a request by way of {way} answered {status}")
            if number >= WARM_UP:
                took[way].append(spent)
    return took


def added(took: dict[str, list[float]], prefix: str) -> Figures:
    """Medians, and what the node and the whole way add to PocketBase's own."""
    mid = {way: statistics.median(times) for way, times in took.items()}
    return {
        f"{prefix}_direct_p50_ms": mid["direct"],
        f"{prefix}_added_p50_ms": mid["node"] - mid["direct"],
        f"{prefix}_added_p99_ms": percentile(took["node"], 0.99) - percentile(took["direct"], 0.99),
        f"{prefix}_whole_added_p50_ms": mid["gateway"] - mid["direct"],
    }


def labels(prefix: str) -> dict[str, str]:
    """How the figures are told."""
    twenty = f"{WRITERS} writers at once"
    return {
        f"{prefix}_direct_p50_ms": "PocketBase alone, p50, ms",
        f"{prefix}_added_p50_ms": "added by the node, p50, ms",
        f"{prefix}_added_p99_ms": "added by the node, p99, ms",
        f"{prefix}_whole_added_p50_ms": "added by gateway and node, p50, ms",
        f"{prefix}_direct_writes_s": f"{twenty}, PocketBase alone, writes a second",
        f"{prefix}_direct_20_p50_ms": f"{twenty}, PocketBase alone, p50, ms",
        f"{prefix}_writes_s": f"{twenty}, at the node, writes a second",
        f"{prefix}_20_p50_ms": f"{twenty}, at the node, p50, ms",
        f"{prefix}_gateway_writes_s": f"{twenty}, at the gateway, writes a second",
        f"{prefix}_gateway_20_p50_ms": f"{twenty}, at the gateway, p50, ms",
    }


def one_write(wire: Wire, number: int, way: str) -> int:
    return wire.ask(b"POST", RECORDS.encode(), row(number, way[:3]))


def rate(connect: Callable[[], Wire], seconds: float, name: str) -> tuple[float, float]:
    """Writes a second of :data:`WRITERS` at once, and their p50 in milliseconds."""
    until = time.monotonic() + seconds
    took: list[float] = []

    def write(writer: int) -> None:
        wire, number = connect(), 0
        while time.monotonic() < until:
            began = time.perf_counter()
            if wire.ask(b"POST", RECORDS.encode(), row(number, f"{name}{writer:02}")) != 200:
                raise SystemExit("a write was refused")
            took.append((time.perf_counter() - began) * 1000)
            number += 1
        wire.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took) / seconds, percentile(took, 0.5)


def measure_sync(options: Options) -> Measured:
    return _measure(options, "sync", SYNC_TARGETS)


def measure_async(options: Options) -> Measured:
    return _measure(options, "async", ASYNC_TARGETS)


def _measure(options: Options, durability: str, targets: tuple[Target, ...]) -> Measured:
    rounds = []
    for number in range(options.rounds):
        with one_node() as cluster:
            create_tenants(cluster, ["bench"], durability=durability)
            signed_in(cluster, "bench").close()
            by_way = ways(cluster, "bench")
            connections = {way: connect() for way, connect in by_way.items()}
            figures = dict(added(by_turns(connections, options.requests, one_write), durability))
            for way in ("direct", "node", "gateway"):
                writes_s, p50_ms = rate(by_way[way], options.seconds, f"r{way[0]}")
                place = "" if way == "node" else f"{way}_"
                figures[f"{durability}_{place}writes_s"] = writes_s
                figures[f"{durability}_{place}20_p50_ms"] = p50_ms
        options.tell(f"{durability}, round {number + 1}/{options.rounds}: {figures}")
        rounds.append(figures)
    title = f"Writes to one {durability} tenant"
    return alone(durability, title, rounds, targets, labels=labels(durability))


def measure_reads(options: Options) -> Measured:
    """One record, read under a live lease."""
    rounds = []
    for number in range(options.rounds):
        with one_node() as cluster:
            create_tenants(cluster, ["bench"])
            signed_in(cluster, "bench").close()
            connections = {way: connect() for way, connect in ways(cluster, "bench").items()}
            one_write(connections["gateway"], 1, "one")
            path = f"{RECORDS}/one{1:012}".encode()

            def one_read(wire: Wire, number: int, way: str, path: bytes = path) -> int:
                return wire.ask(b"GET", path)

            figures = added(by_turns(connections, options.requests * 4, one_read), "read")
            proof_us = proof_s() * 1e6
            share = proof_us / (figures["read_direct_p50_ms"] * 1000)
            rounds.append({**figures, "read_proof_us": proof_us, "read_proof_share": share})
        options.tell(f"reads, round {number + 1}/{options.rounds}: {rounds[-1]}")
    title = "Reads of one record under a live lease"
    return alone("reads", title, rounds, READ_TARGETS, labels=labels("read") | READ_LABELS)


def proof_s() -> float:
    """What it takes to find that a lease covers one of 200 tenants now, in this process: all that a
    read waits for by its proof while the lease lives."""
    now, proofs = boottime(), Proofs(Durations())
    epochs = {f"tenant_{number:08}": 7 for number in range(200)}
    proofs.obey(1, epochs)
    for tenant_id in epochs:
        proofs.claimed(tenant_id, 7, now, first=True)
    proofs.lease_acked(now, granted=True, index=1)

    def ask() -> None:
        proofs.judge("tenant_00000100", 7, boottime())

    if not isinstance(proofs.judge("tenant_00000100", 7, now), Held):
        raise SystemExit("the lease proves nothing: this is not what is to be measured")
    count = 20_000
    return min(timeit.repeat(ask, number=count, repeat=5)) / count
