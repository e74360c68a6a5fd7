"""A real control plane that begins with many tenants, and the processes that simulate the rest.

Three members as ``pbcluster init`` sets them up, with LMDB, txZMQ and CURVE. Their stores are
written before the first start: nodes, gateways and tenants stand in the first snapshot, as if they
had been there for long. The first node has :data:`ON_FIRST_NODE` tenants whatever the size; the
others share the rest evenly.
"""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime
from typing import Any

import attrs
import zmq

from pbcluster.cli.layout import to_toml
from pbcluster.config import FIRST_START, read_toml
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.raft_store import RaftStore
from pbcluster.controlplane.registry import Registry
from pbcluster.raft import ConfState, StoredState
from pbcluster.records import ProcessRecord
from pbcluster.testing.cluster import RealCluster

MEMBERS = ("member_1", "member_2", "member_3")
#: Of the node whose death is measured.
ON_FIRST_NODE = 200
#: More than a real node's 200, so that what is created during a measure finds room.
CAPACITY = 400
#: How a simulated node names its start: what the image knows already is not registered again.
START_ID, ADDRESS = "start", "http://127.0.0.1:1"


def node_name(number: int) -> str:
    return f"sim_{number}"


def gateway_name(number: int) -> str:
    return f"simgw_{number}"


@attrs.frozen
class Size:
    """:ivar gateways: that listen to broadcasts."""

    tenants: int
    nodes: int = 500
    gateways: int = 50


class World:
    """The members, not started, and the keys of all whom they will meet."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.cluster = RealCluster(nodes=1, members=len(MEMBERS))
        where = self.cluster.where
        names = [(node_name(n), "node") for n in range(size.nodes)]
        names += [(gateway_name(n), "gateway") for n in range(size.gateways)]
        keys = {name: zmq.curve_keypair() for name, _ in names}
        rows = {
            name: {"role": role, "curve_public": keys[name][0].decode()} for name, role in names
        }
        peers = read_toml(where.peers_file)["peers"] | rows
        where.peers_file.write_text(to_toml({"peers": peers}))
        secrets = {name: secret.decode() for name, (_, secret) in keys.items()}
        (where.root / "nodes.json").write_text(json.dumps(secrets))
        processes = [
            ProcessRecord(name, row["role"], row["curve_public"])
            for name, row in peers.items()
            if row["role"] in ("node", "gateway")
        ]
        self._write_stores(registry(self.cluster.plan.base_domain, size, processes))

    def _write_stores(self, filled: Registry) -> None:
        where, first = self.cluster.where, filled.to_bytes()
        for member in MEMBERS:
            store = RaftStore(where.data(member) / "store", self.cluster.plan.cluster_id, member)
            conf = ConfState(tuple(sorted(MEMBERS)))
            begin = StoredState.first(conf, len(first), zlib.crc32(first), filled.applied_index)
            store.begin(begin, first)
            store.close()
            (where.data(member) / FIRST_START).unlink()

    def start(self) -> None:
        """Start the members; returns when one leads."""
        self.cluster.start(*MEMBERS)
        self.cluster.wait_until(lambda: bool(self.leader()), "a leader")

    def leader(self) -> str:
        """The member that leads; empty: nobody."""
        rows = self.cluster.admin.all("members")
        return next((str(row["id"]) for row in rows if row["role"] == "leader"), "")

    def pids(self) -> dict[str, int]:
        return {name: pid for name in MEMBERS if (pid := self.cluster.pid(name))}

    def job(self, **more: Any) -> dict[str, Any]:
        """What a simulating process is told."""
        return {"root": str(self.cluster.where.root), **more}

    def close(self) -> None:
        self.cluster.close()


def registry(base_domain: str, size: Size, processes: list[ProcessRecord]) -> Registry:
    """The registry with nodes, gateways and tenants, each of which is ready."""
    filled = Registry(base_domain)
    at = datetime.now(UTC)

    def apply(command: c.Command) -> None:
        outcome = filled.apply(filled.applied_index + 1, c.Keyed("", command)).outcome
        if outcome.error is not None:
            raise SystemExit(f"the first state: {outcome.error}")

    for process in processes:
        apply(c.SetProcess(at, process))
    nodes = [node_name(number) for number in range(size.nodes)]
    for node in nodes:
        apply(c.RegisterNode(at, node, START_ID, ADDRESS, CAPACITY))
    first, others = nodes[0], nodes[1:]
    on_first = min(ON_FIRST_NODE, size.tenants)
    rest = [others[n % len(others)] for n in range(size.tenants - on_first)]
    for number, node in enumerate([first] * on_first + rest):
        name, tenant_id = f"tenant{number:06d}", f"tenant_{number:020d}"
        apply(c.CreateTenant(at, tenant_id, name, f"{name}.{base_domain}"))
        apply(c.AssignTenant(at, tenant_id, node, 0))
        apply(c.MarkReady(at, tenant_id, node, filled.tenant(tenant_id).epoch))
    return filled
