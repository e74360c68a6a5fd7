"""The stores of a new group that begins with many tenants instead of none."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.config import FIRST_START
from pbcluster.controlplane.commands import CreateTenant, Keyed
from pbcluster.controlplane.raft_store import RaftStore
from pbcluster.controlplane.registry import Registry
from pbcluster.raft import ConfState, StoredState


def image(base_domain: str, count: int) -> bytes:
    """A registry with so many tenants, as of log index 1."""
    registry = Registry(base_domain)
    at = datetime.now(UTC)
    for number in range(count):
        name = f"tenant{number:06d}"
        command = CreateTenant(at, f"tenant_{number:016d}", name, f"{name}.{base_domain}")
        registry.apply(number + 1, Keyed("", command))
    registry.applied_index = registry.last_broadcast = 1
    return registry.to_bytes()


def prepare(where: ClusterDir, plan: Plan, count: int) -> None:
    """Before the first start of any member."""
    members = [member.id for member in plan.of("member")]
    first = image(plan.base_domain, count)
    for member in members:
        store = RaftStore(where.data(member) / "store", plan.cluster_id, member)
        conf = ConfState(tuple(sorted(members)))
        store.begin(StoredState.first(conf, len(first), zlib.crc32(first)), first)
        store.close()
        (where.data(member) / FIRST_START).unlink()
