"""What is measured, each on groups that are running. Every function gives figures by their name."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import attrs

from benchmarks.raft.groups import MEMBERS, Etcd, Group, Ours, SyncObj
from benchmarks.raft.processes import Client, cpu_s, disk_bytes, freeze, thaw


@attrs.frozen
class LoadKind:
    """:ivar job: what a client is told. :ivar loops: how many of its loops ask at once."""

    title: str
    job: str
    loops: int


LOADS = {
    "write-1": LoadKind("Writes, one client", "write", 1),
    "write-64": LoadKind("Writes, 64 in flight", "write", 64),
    "read-64": LoadKind("Linearizable reads, 64 in flight", "read", 64),
    "lookup-64": LoadKind("Look-ups at one member, 64 in flight", "lookup", 64),
}
#: A fault is watched for so long; the silence that it causes begins within so long.
WATCH_S, SILENT_WITHIN_S = 3.0, 0.3
NODES, NODES_PER_PROCESS = 500, 100

Figures = dict[str, float]


@contextmanager
def alone(one: Any, everyone: list[Any]) -> Any:
    """While ``one`` is measured the others stand still; it has a leader again when this begins."""
    others = [each for each in everyone if each is not one]
    for other in others:
        freeze(other.pids())
    try:
        one.settle()
        yield
    finally:
        for other in others:
            thaw(other.pids())


def load(group: Group | SyncObj, name: str, seconds: float) -> Figures:
    """One of :data:`LOADS`. ``members_us``: processor time of all members for one operation."""
    kind, loops = LOADS[name].job, LOADS[name].loops
    pids = group.pids().values()
    before = sum(map(cpu_s, pids))
    if isinstance(group, SyncObj):
        found = group.load(kind, loops=loops, seconds=seconds)
    else:
        found = group.client(kind, loops=loops, seconds=seconds).result()
    used = sum(map(cpu_s, pids)) - before
    if found["rate"]:
        found["members_us"] = used / (found["rate"] * seconds) * 1e6
    return found


# -- faults ---------------------------------------------------------------------------------------


def gap_ms(acknowledged: list[list[float]], fault_at: float) -> float:
    """From the fault to the end of the longest silence that begins soon after it."""
    times = sorted(row[0] for row in acknowledged)
    pairs = [
        (after - before, after)
        for before, after in pairwise(times)
        if after > fault_at and before < fault_at + SILENT_WITHIN_S
    ]
    return (max(pairs)[1] - fault_at) * 1000 if pairs else float("inf")


def faults(group: Group, prefix: str, count: int, fault: Callable[[], float]) -> Figures:
    """Faults under one witness, and what it says of its writes in the end.

    :param fault: does it, and gives the moment (CLOCK_MONOTONIC) just before.
    """
    witness = group.client("witness", loops=1, prefix=prefix)
    witness.ready()
    moments = []
    for number in range(count):
        time.sleep(0.5)
        moments.append(fault())
        time.sleep(WATCH_S if number == 0 else 1.5)
        for member in set(MEMBERS) - set(group.pids()):
            group.start_member(member)
        group.settle()
    found = witness.result()
    gaps = sorted(gap_ms(found["acknowledged"], at) for at in moments)
    wrong = wrongs(group, prefix, found["acknowledged"])
    near = [f for f in found["failures"] if any(0 <= f - at < WATCH_S for at in moments)]
    return {
        "median_ms": gaps[len(gaps) // 2],
        "worst_ms": gaps[-1],
        "failed": len(near),
        "acknowledged": len(found["acknowledged"]),
        **wrong,
    }


def wrongs(group: Group, prefix: str, acknowledged: list[list[float]]) -> Figures:
    """Acknowledged writes that are lost, and writes that count twice.

    Of ours each new start of a node raises its incarnation by one, so the incarnations told must be
    in a row. Of etcd every key must be there; it knows no idempotency key, so one that the client
    had to repeat may have two versions.
    """
    if isinstance(group, Etcd):
        versions = group.client("versions", prefix=prefix).result()
        keys = [f"{prefix}{int(row[1]):08d}" for row in acknowledged]
        doubled = sum(version > 1 for version in versions.values())
        return {"lost": sum(key not in versions for key in keys), "doubled": doubled}
    told = [int(row[2]) for row in acknowledged]
    steps = [b - a for a, b in pairwise(told)]
    return {"lost": sum(s < 1 for s in steps), "doubled": sum(s > 1 for s in steps)}


def kills(group: Group, prefix: str, count: int) -> Figures:
    """``kill -9`` of the leader; it comes back before the next."""

    def kill() -> float:
        leader = group.leader()
        at = time.monotonic()
        group.kill9(leader)
        return at

    return faults(group, prefix, count, kill)


def transfers(group: Group, prefix: str, count: int) -> Figures:
    """Planned changes of the leader."""
    return faults(group, prefix, count, group.transfer)


# -- 500 nodes ------------------------------------------------------------------------------------


def idle_nodes(seconds: float) -> Figures:
    """Members' share of a core under the leases and heartbeats of 500 nodes, and under none."""
    group = Ours(nodes=NODES)
    try:
        group.start()
        figures = {}
        for name, nodes in (("without", 0), ("with", NODES)):
            workers = [
                Client("our_nodes", {"root": str(group.cluster.where.root), "first": first})
                for first in range(0, nodes, NODES_PER_PROCESS)
            ]
            for worker in workers:
                worker.ready()
            time.sleep(2.0)
            index = group.members()[0]["index"]
            before = {m: cpu_s(pid) for m, pid in group.pids().items()}
            time.sleep(seconds)
            used = {m: (cpu_s(pid) - before[m]) / seconds for m, pid in group.pids().items()}
            leader = group.leader()
            figures[f"leader_{name}_cores"] = used.pop(leader)
            figures[f"followers_{name}_cores"] = sum(used.values()) / len(used)
            figures[f"entries_{name}"] = group.members()[0]["index"] - index
            granted = [worker.result() for worker in workers]
            figures[f"leases_{name}_s"] = sum(g["leases_s"] for g in granted)
            figures[f"refused_{name}"] = sum(g["failed"] for g in granted)
        figures["added_cores"] = figures["leader_with_cores"] - figures["leader_without_cores"]
        figures["added_entries"] = figures["entries_with"] - figures["entries_without"]
        return figures
    finally:
        group.close()


# -- the disk -------------------------------------------------------------------------------------


def restart(group: Group, member: str) -> Figures:
    """From the start of a stopped member until it serves."""
    group.kill9(member)
    time.sleep(0.3)
    began = time.monotonic()
    group.start_member(member)
    return {"restart_s": time.monotonic() - began}


def growth(group: Group, seconds: float) -> Figures:
    """Bytes on a member's disk at first, after one load of writes, and after two."""
    found: Figures = {"mb_0": disk_bytes(group.data(MEMBERS[0])) / 1e6}
    written = 0.0
    for number in (1, 2):
        written += group.client("write", loops=64, seconds=seconds).result()["rate"] * seconds
        found[f"writes_{number}"] = written
        found[f"mb_{number}"] = disk_bytes(group.data(MEMBERS[0])) / 1e6
    return found


def fill_etcd(group: Etcd, count: int) -> None:
    group.client("fill", prefix="tenant/", count=count).result()


def ours_with_tenants(count: int) -> Ours:
    """A group, not started, whose first snapshot holds so many tenants."""
    from benchmarks.raft.tenants import prepare

    group = Ours()
    prepare(group.cluster.where, group.cluster.plan, count)
    return group
