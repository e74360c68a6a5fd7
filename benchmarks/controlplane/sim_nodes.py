"""Simulated nodes in one process: a session to every member each, leases and heartbeats as real
nodes send them, and a word for every tenant that they are given: it is ready.

They obey lists at once, so what is measured is the control plane and nothing below it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pbcluster.reactor import install

if __name__ == "__main__":
    install()

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from benchmarks.controlplane.one_context import OneContext
from benchmarks.controlplane.world import ADDRESS, CAPACITY, START_ID, node_name
from benchmarks.raft.our_client import run_reactor
from pbcluster.cli.layout import ClusterDir
from pbcluster.config import NodeConfig, load
from pbcluster.durations import Durations
from pbcluster.node.assignments import Assignments
from pbcluster.records import NodeResources
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.interfaces import Asked
from pbcluster.wire import (
    AssignmentChanges,
    Body,
    Heartbeat,
    Lease,
    NodeAssignments,
    Ok,
    RegisterNode,
    TenantReport,
)

HEARTBEAT_S = 5.0
TIMEOUT_S = 5.0
#: They do not begin in step.
START_STEP_S = 0.01
#: A tenant that had another owner is ready only after so long; a new one at once.
RESTORE_S = 5.0


class Node:
    """One node."""

    def __init__(self, name: str, client: ZmqControlPlaneClient, counts: Counter[str]) -> None:
        self._name = name
        self._client = client
        self._counts = counts
        self._list = Assignments(name)

    async def start(self, delay_s: float) -> None:
        await deferLater(reactor, delay_s)
        self._client.start(self._told)
        body = RegisterNode(self._name, START_ID, ADDRESS, CAPACITY)
        answer: Any = await self._client.ask(body, timeout_s=30.0, idempotency_key=self._name)
        self._list.incarnation = answer.incarnation
        self._list.obey(answer.assignments)
        for seconds, send in (
            (Durations().lease_interval_s, self._lease),
            (HEARTBEAT_S, self._heartbeat),
        ):
            LoopingCall(lambda send=send: Deferred.fromCoroutine(send())).start(seconds)

    async def _told(self, asked: Asked, body: Body) -> Body:
        if isinstance(body, NodeAssignments | AssignmentChanges):
            self._obey(body)
        return Ok()

    def _obey(self, told: NodeAssignments | AssignmentChanges) -> None:
        change = self._list.obey(told)
        if change is not None:
            for each in change.added:
                Deferred.fromCoroutine(self._report(each.tenant_id, each.epoch))
        elif told.index > self._list.index:
            self._counts["changes refused"] += 1
            Deferred.fromCoroutine(self._lease())

    async def _report(self, tenant_id: str, epoch: int) -> None:
        if epoch > 1:
            await deferLater(reactor, RESTORE_S)
        body = TenantReport(self._name, self._list.incarnation, tenant_id, epoch, "ready")
        key = f"{self._name}/{tenant_id}/{epoch}"
        await self._asked(body, "reports", key)

    async def _lease(self) -> None:
        body = Lease(self._name, self._list.incarnation, self._list.index)
        answer = await self._asked(body, "leases")
        if answer is not None and answer.assignments is not None:
            self._obey(answer.assignments)

    async def _heartbeat(self) -> None:
        own = len(self._list)
        now, resources = datetime.now(UTC), NodeResources()
        body = Heartbeat(
            self._name, self._list.incarnation, now, "healthy", CAPACITY, own, own, resources
        )
        await self._asked(body, "heartbeats")

    async def _asked(self, body: Body, what: str, key: str = "") -> Any:
        try:
            answer = await self._client.ask(body, timeout_s=TIMEOUT_S, idempotency_key=key)
        except Exception as error:
            self._counts[f"{what} failed: {type(error).__name__}"] += 1
            return None
        self._counts[what] += 1
        return answer


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """:param job: root, first (number of the first node), count."""
    where = ClusterDir.at(Path(job["root"]))
    config = load(NodeConfig, where.config("node_1"))
    counts = Counter[str]()
    starts = []
    with OneContext(where.root, config.cluster_id, config.peers_file) as context:
        for number in range(job["count"]):
            name = node_name(job["first"] + number)
            client = ZmqControlPlaneClient(context.sockets(name), member_addresses(config.members))
            node = Node(name, client, counts)
            starts.append(Deferred.fromCoroutine(node.start(number * START_STEP_S)))
        await gatherResults(starts, consumeErrors=True)
        print("ready", flush=True)
        counts.clear()
        await deferToThread(sys.stdin.read)
    return dict(counts)


if __name__ == "__main__":
    print(json.dumps(run_reactor(run(json.loads(sys.argv[1])))))
