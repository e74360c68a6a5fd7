"""A client of our group for one job: the transport that nodes use, under CURVE, as a node."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from pbcluster.reactor import install

if __name__ == "__main__":
    install()

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from benchmarks.raft.loops import Load, Witness
from pbcluster.cli.layout import ClusterDir
from pbcluster.config import NodeConfig, load, load_peers, load_secrets
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.curve import Curve
from pbcluster.transport.interfaces import Asked
from pbcluster.transport.sockets import Sockets
from pbcluster.wire import Body, Lease, LookupRoute, Ok, RegisterNode

TIMEOUT_S = 10.0
TENANT = "bench"


async def nothing(asked: Asked, body: Body) -> Body:
    return Ok()


class Ours:
    """A node's session with the members."""

    def __init__(self, root: str, node: str) -> None:
        where = ClusterDir.at(Path(root))
        config = load(NodeConfig, where.config(node))
        security = Curve.of(load_secrets(config.secrets_file), load_peers(config.peers_file))
        self.node = node
        self._sockets = Sockets(reactor, config.cluster_id, node, security)
        self._client = ZmqControlPlaneClient(self._sockets, member_addresses(config.members))
        self._client.start(nothing)

    def close(self) -> None:
        self._client.stop()
        self._sockets.close()

    async def register(self, start_id: str, key: str = "") -> int:
        """One log entry. A start that is known changes nothing. :returns: the incarnation."""
        body = RegisterNode(
            self.node,
            start_id,
            "http://127.0.0.1:1",
            10_000,
            region="r" * 90,
            zone="z" * 90,
            software_version="v" * 60,
        )
        key = key or secrets.token_hex(16)
        answer: Any = await self._client.ask(body, timeout_s=TIMEOUT_S, idempotency_key=key)
        return int(answer.incarnation)

    async def lease(self, incarnation: int, index: int) -> int:
        answer: Any = await self._client.ask(
            Lease(self.node, incarnation, index), timeout_s=TIMEOUT_S
        )
        return int(answer.assignments_index)

    async def lookup(self, *, place: bool = False) -> None:
        body = LookupRoute(name=TENANT, place=place)
        await self._client.ask(body, timeout_s=TIMEOUT_S, any_member=not place)


async def operation(ours: Ours, kind: str) -> Callable[[], Awaitable[Any]]:
    start_id = "the start of the bench"
    if kind == "lookup":
        return ours.lookup
    incarnation = await ours.register(start_id)
    if kind == "write":
        return lambda: ours.register(start_id)
    index = await ours.lease(incarnation, 0)
    return lambda: ours.lease(incarnation, index)


async def witness(ours: Ours, job: dict[str, Any]) -> dict[str, Any]:
    """Every number is a new start of the node, so the incarnation counts them."""

    async def write(number: int, attempt: int) -> int:
        name = f"{job['prefix']}{number:08d}"
        return await ours.register(name, name)

    seen = Witness(write)
    loops = [Deferred.fromCoroutine(seen.loop()) for _ in range(job["loops"])]
    print("ready", flush=True)
    await deferToThread(sys.stdin.read)
    seen.stopped = True
    await gatherResults(loops)
    return {"acknowledged": seen.acknowledged, "failures": seen.failures}


async def run(job: dict[str, Any]) -> dict[str, Any]:
    ours = Ours(job["root"], job["node"])
    try:
        match job["kind"]:
            case "witness":
                return await witness(ours, job)
            case "settle":
                await ours.register("the start of the bench")
                return {}
            case "place":
                # A node that was silent for a while gets no tenant until it is heard.
                await ours.lease(await ours.register("the start of the bench"), 0)
                await ours.lookup(place=True)
                return {}
        load = Load(await operation(ours, job["kind"]), job["seconds"])
        await gatherResults([Deferred.fromCoroutine(load.loop()) for _ in range(job["loops"])])
        return load.figures()
    finally:
        ours.close()


def run_reactor(coroutine: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """What the coroutine gives, in a reactor that runs for it alone."""
    found: list[Any] = []

    def started() -> None:
        done = Deferred.fromCoroutine(coroutine)
        done.addBoth(found.append)
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(started)
    reactor.run()
    if not isinstance(found[0], dict):
        found[0].raiseException()
    return dict(found[0])


if __name__ == "__main__":
    print(json.dumps(run_reactor(run(json.loads(sys.argv[1])))))
