"""Simulated nodes in one process: a session to every member each, leases and heartbeats as real
nodes send them. Takes its keys from ``nodes.json``, which the group wrote."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pbcluster.reactor import install

install()

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from benchmarks.raft.measures import NODES_PER_PROCESS
from benchmarks.raft.our_client import nothing
from pbcluster.cli.layout import ClusterDir
from pbcluster.config import NodeConfig, Secrets, load, load_peers
from pbcluster.durations import Durations
from pbcluster.records import NodeResources
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.connection import Factory
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.curve import Curve
from pbcluster.transport.sockets import Sockets
from pbcluster.wire import Heartbeat, Lease, RegisterNode

HEARTBEAT_S = 5.0
TIMEOUT_S = 5.0


class Node:
    def __init__(self, name: str, client: ZmqControlPlaneClient, counts: Counter[str]) -> None:
        self._name = name
        self._client = client
        self._counts = counts
        self._incarnation = self._index = 0

    async def start(self, delay_s: float) -> None:
        await deferLater(reactor, delay_s)
        self._client.start(nothing)
        body = RegisterNode(self._name, "start", "http://127.0.0.1:1", 100)
        answer: Any = await self._client.ask(body, timeout_s=30.0, idempotency_key=self._name)
        self._incarnation, self._index = answer.incarnation, answer.assignments.index
        for seconds, send in (
            (Durations().lease_interval_s, self._lease),
            (HEARTBEAT_S, self._heartbeat),
        ):
            LoopingCall(lambda send=send: Deferred.fromCoroutine(send())).start(seconds)

    async def _lease(self) -> None:
        try:
            body = Lease(self._name, self._incarnation, self._index)
            answer: Any = await self._client.ask(body, timeout_s=TIMEOUT_S)
            self._counts["leases" if answer.granted else "failed"] += 1
        except Exception:
            self._counts["failed"] += 1

    async def _heartbeat(self) -> None:
        resources = NodeResources()
        now = datetime.now(UTC)
        body = Heartbeat(self._name, self._incarnation, now, "healthy", 100, 0, 0, resources)
        try:
            await self._client.ask(body, timeout_s=TIMEOUT_S)
        except Exception:
            self._counts["failed"] += 1


async def run(job: dict[str, Any]) -> dict[str, Any]:
    where = ClusterDir.at(Path(job["root"]))
    config = load(NodeConfig, where.config("node_1"))
    keys, peers = json.loads((where.root / "nodes.json").read_text()), load_peers(config.peers_file)
    shared, counts = Factory(reactor), Counter[str]()
    starts = []
    for number in range(NODES_PER_PROCESS):
        name = f"sim_{job['first'] + number}"
        sockets = Sockets(
            reactor, config.cluster_id, name, Curve.of(Secrets(curve_secret=keys[name]), peers)
        )
        # One context for all: a hundred would be a hundred threads.
        sockets._factory.shutdown()
        sockets._factory = shared
        client = ZmqControlPlaneClient(sockets, member_addresses(config.members))
        starts.append(Deferred.fromCoroutine(Node(name, client, counts).start(number * 0.02)))
    await gatherResults(starts, consumeErrors=True)
    await deferLater(reactor, 1.0)
    print("ready", flush=True)
    await deferLater(reactor, 2.0)
    counts.clear()
    began = time.monotonic()
    await deferToThread(sys.stdin.read)
    leases_s = counts["leases"] / (time.monotonic() - began)
    return {"leases_s": leases_s, "failed": counts["failed"]}


if __name__ == "__main__":
    from benchmarks.raft.our_client import run_reactor

    print(json.dumps(run_reactor(run(json.loads(sys.argv[1])))))
