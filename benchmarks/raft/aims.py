"""What the control plane's figures are called, and what they should be."""

from __future__ import annotations

from benchmarks.figures import Target

LABELS = {
    "rate": "a second",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "errors": "errors",
    "members_us": "CPU of all members for one, µs",
    "median_ms": "longest gap, median, ms",
    "worst_ms": "longest gap at most, ms",
    "failed": "failed attempts of the client",
    "acknowledged": "writes acknowledged",
    "lost": "of them lost",
    "doubled": "doubled",
    "mb_0": "MB at first",
    "writes_1": "writes",
    "mb_1": "MB then",
    "writes_2": "writes, all in all",
    "mb_2": "MB at last",
    "restart_s": "until it serves, s",
    "leader_without_cores": "leader without nodes, cores",
    "leader_with_cores": "leader with them, cores",
    "followers_without_cores": "a follower without them, cores",
    "followers_with_cores": "a follower with them, cores",
    "added_cores": "what they cost the leader, cores",
    "entries_without": "entries of the log without them",
    "entries_with": "entries of the log with them",
    "added_entries": "entries that they add",
    "leases_without_s": "leases a second without them",
    "leases_with_s": "leases a second with them",
    "refused_without": "refused without them",
    "refused_with": "refused with them",
}
_PYTHON = (
    "a member is one Python process, etcd's use all cores; each write is encrypted (CURVE), "
    "authenticated and kept under an idempotency key, which etcd's is not"
)
_CLIENT = (
    "members take as much processor time for a write as etcd's, and the client, Python under "
    "CURVE, more than the one of gRPC; all share two cores"
)
TARGETS = {
    "write-1": (
        Target("p50_ms", "etcd", 1.2, cause=_PYTHON),
        Target("p99_ms", "etcd", 1.0, cause=_PYTHON),
    ),
    "write-64": (
        Target("rate", "etcd", 1.0, at_most=False, stretch=1.5, cause=_CLIENT),
        Target("p99_ms", "etcd", 1.0, cause=_PYTHON),
    ),
    "read-64": (Target("rate", "", 8000.0, at_most=False),),
    "lookup-64": (Target("rate", "", 15_000.0, at_most=False),),
    "kill": (
        Target("median_ms", "", 350.0),
        Target("worst_ms", "", 1000.0),
        Target("lost", "", 0.0),
        Target("doubled", "", 0.0),
    ),
    "transfer": (Target("worst_ms", "", 100.0), Target("failed", "", 0.0)),
    "nodes": (
        Target(
            "added_cores",
            "",
            0.2,
            cause="each of 1,250 leases a second is a frame that is decrypted, checked and "
            "answered by Python",
        ),
        Target("added_entries", "", 0.0),
    ),
    "restart": (Target("restart_s", "", 5.0),),
}
