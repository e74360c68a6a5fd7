"""Measure "waking": how long the first request to a stopped tenant waits, by where its data is.

Warm: the tenant idled, its copy is on the node's disk. From S3: the copy is gone from the disk, and
the tenant comes back under a new epoch from its replica.
"""

from __future__ import annotations

import time

from benchmarks.figures import Target, percentile
from benchmarks.measured import Measured, alone
from benchmarks.node.options import Options
from benchmarks.node.stage import create_tenants, fill, first_answer_s, one_node, signed_in
from pbcluster.testing.cluster import RealCluster

TARGETS = (
    Target(
        "warm_p50_ms",
        "",
        80.0,
        cause="PocketBase itself takes 45 to 75 ms to answer, the node's look at the claim in S3 "
        "12, fork and sandbox 7, the first sync 11",
    ),
    Target("s3_1mb_p50_s", "", 1.0),
    Target("s3_100mb_p50_s", "", 3.0),
)
LABELS = {
    "warm_p50_ms": "warm copy, p50, ms",
    "warm_max_ms": "warm copy, at most, ms",
    "s3_1mb_p50_s": "1 MB from S3, p50, s",
    "s3_1mb_max_s": "1 MB from S3, at most, s",
    "s3_100mb_p50_s": "100 MB from S3, p50, s",
    "s3_100mb_max_s": "100 MB from S3, at most, s",
    "s3_1gb_p50_s": "1 GB from S3, p50, s",
    "s3_1gb_max_s": "1 GB from S3, at most, s",
}
#: Name of a size → bytes of the database, and the share of ``wakes`` that it is worth: for each the
#: node's housekeeping, which comes every half a minute, is waited for.
SIZES = {"1mb": (1_000_000, 0.3), "100mb": (100_000_000, 0.15), "1gb": (1_000_000_000, 0.05)}
IDLE_STOP_S = 0.5


def stopped(cluster: RealCluster, name: str) -> None:
    """Wait until it was running, as the registry knows, and is idle: just after its first answer
    it still stands there as idle."""
    for status in ("active", "idle"):
        cluster.wait_until(
            lambda: cluster.admin.tenant(name)["status"] == status,  # noqa: B023
            f"{name} to be {status}",
            60.0,
        )


def measure(options: Options) -> Measured:
    figures: dict[str, float] = {}
    with one_node(idle_stop_s=IDLE_STOP_S) as cluster:
        create_tenants(cluster, ["warm"])
        took = []
        for _ in range(options.wakes):
            stopped(cluster, "warm")
            took.append(first_answer_s(cluster, "warm") * 1000)
        figures["warm_p50_ms"] = percentile(took, 0.5)
        figures["warm_max_ms"] = max(took)
        options.tell(f"warm: p50 {figures['warm_p50_ms']:.0f} ms")
    for size, (size_bytes, share) in SIZES.items():
        if size == "1gb" and not options.large:
            continue
        took = from_s3(options, size, size_bytes, max(1, round(options.wakes * share)))
        figures[f"s3_{size}_p50_s"] = percentile(took, 0.5)
        figures[f"s3_{size}_max_s"] = max(took)
        options.tell(f"from S3, {size}: p50 {figures[f's3_{size}_p50_s']:.2f} s")
    return alone("waking", "First answer of a stopped tenant", [figures], TARGETS, labels=LABELS)


def from_s3(options: Options, size: str, size_bytes: int, wakes: int) -> list[float]:
    """Seconds of each wake-up; no copy survives the stop for long: there is room for one byte."""
    took = []
    with one_node(idle_stop_s=IDLE_STOP_S, warm_bytes=1) as cluster:
        create_tenants(cluster, ["cold"])
        client = signed_in(cluster, "cold")
        fill(client, size_bytes)
        client.close()
        for _ in range(wakes):
            stopped(cluster, "cold")
            directory = cluster.where.data(cluster.ids("node")[0]) / "tenants"
            tenant_id = cluster.admin.tenant("cold")["id"]
            cluster.wait_until(
                lambda: not (directory / tenant_id / "data" / "data.db").exists(),  # noqa: B023
                "the warm copy to be gone",
            )
            time.sleep(0.2)
            took.append(first_answer_s(cluster, "cold"))
    return took
