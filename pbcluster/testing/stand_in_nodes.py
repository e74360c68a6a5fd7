"""Nodes that only live: they register, send heartbeats with their own keys, and carry no tenant.

The control plane places tenants on living nodes with room. Where a test is about the control plane
alone, real nodes (with S3 and a PocketBase for every tenant) would only take the machine's time.
These speak the same frames over the same sockets as ``pbnode`` and ignore what they are told, so a
tenant that is placed on one never becomes ready.

    with RealCluster(nodes=4, members=3) as cluster, StandInNodes(cluster.where, cluster.plan):
        cluster.start(*cluster.ids("member"))
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
from datetime import UTC, datetime
from types import TracebackType

import attrs
import zmq

from pbcluster import wire
from pbcluster.cli.layout import LOOPBACK, ClusterDir, Plan, Process
from pbcluster.errors import PBClusterError
from pbcluster.records import NodeResources
from pbcluster.testing.dealer import dealer

#: Much shorter than the silence after which a node is suspected (0.9 s).
BEAT_INTERVAL_S = 0.4
QUESTION_TIMEOUT_MS = 2000
CAPACITY = 10_000
#: Messages of members that are read in a row: lists of assignments that nobody obeys.
_READ_AT_ONCE = 1000


@attrs.define
class _Node:
    """One node's sockets, one to each member, and what it knows of itself."""

    id: str
    address: str
    sockets: list[zmq.Socket[bytes]]
    start_id: str = attrs.field(factory=lambda: secrets.token_hex(8))
    incarnation: int = 0

    def next_body(self) -> wire.Body:
        """What it tells all members now."""
        if not self.incarnation:
            return wire.RegisterNode(self.id, self.start_id, self.address, CAPACITY)
        now = datetime.now(UTC)
        resources = NodeResources()
        return wire.Heartbeat(self.id, self.incarnation, now, "healthy", CAPACITY, 0, 0, resources)


class StandInNodes:
    """All nodes of a plan, in one thread. None of them may really be running."""

    def __init__(self, where: ClusterDir, plan: Plan) -> None:
        self._plan = plan
        self._context = zmq.Context()
        self._numbers = itertools.count(1, 2)
        self._ending = threading.Event()
        self._nodes = [self._made(where, node) for node in plan.of("node")]
        self._thread = threading.Thread(target=self._run, name="stand-in nodes", daemon=True)

    def __enter__(self) -> StandInNodes:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def registered(self) -> bool:
        """Whether every node has its incarnation."""
        return all(node.incarnation for node in self._nodes)

    def _made(self, where: ClusterDir, process: Process) -> _Node:
        plan = self._plan
        sockets = [
            dealer(self._context, where, plan, member.id, "requests", name=process.id)
            for member in plan.of("member")
        ]
        return _Node(process.id, f"http://{LOOPBACK}:{process.ports['http']}", sockets)

    def _run(self) -> None:
        while not self._ending.wait(BEAT_INTERVAL_S):
            for node in self._nodes:
                self._read(node)
                self._tell(node)

    def _tell(self, node: _Node) -> None:
        envelope = wire.Envelope(
            self._plan.cluster_id,
            node.id,
            next(self._numbers),
            QUESTION_TIMEOUT_MS,
            node.start_id,
            node.next_body(),
        )
        for socket in node.sockets:
            with contextlib.suppress(zmq.Again):
                socket.send(wire.encode(envelope), zmq.NOBLOCK)

    def _read(self, node: _Node) -> None:
        for socket in node.sockets:
            with contextlib.suppress(zmq.Again):
                for _ in range(_READ_AT_ONCE):
                    self._heard(node, socket.recv(zmq.NOBLOCK))

    @staticmethod
    def _heard(node: _Node, frame: bytes) -> None:
        try:
            body = wire.decode(frame).body
        except PBClusterError:
            return
        if isinstance(body, wire.Registered):
            node.incarnation = body.incarnation
