"""Round trips a second of the request sockets on the loopback, plain and encrypted.

    python benchmarks/transport.py [SECONDS]

Client and member run in this one process and share one core, so two processes do better. For each
security it prints the round trips a second with 64 questions in flight, and the time of one
question alone (median and 99th percentile of 1,000).
"""

from __future__ import annotations

import sys
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from pbcluster.config import Peer, Secrets
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.control_plane_client import ZmqControlPlaneClient
from pbcluster.transport.curve import Curve, PlainSockets, Security, generate_keys
from pbcluster.transport.interfaces import Asked
from pbcluster.transport.request_server import ZmqRequestServer
from pbcluster.transport.sockets import Sockets
from pbcluster.wire import Body, Lease, LeaseAck, Ok

IN_FLIGHT = 64
ALONE = 1000


async def handler(asked: Asked, body: Body) -> Body:
    return LeaseAck(True, body.assignments_index) if isinstance(body, Lease) else Ok()


def encrypted() -> tuple[Security, Security]:
    keys = {"member_1": generate_keys(), "node_a": generate_keys()}
    peers = {name: Peer(name, name.split("_")[0], pair.public) for name, pair in keys.items()}
    member, node = (
        Curve.of(Secrets(curve_secret=keys[name].secret), peers) for name in ("member_1", "node_a")
    )
    return member, node


async def measure(name: str, securities: tuple[Security, Security], seconds: float) -> None:
    member = Sockets(reactor, "benchmark", "member_1", securities[0])
    node = Sockets(reactor, "benchmark", "node_a", securities[1])
    server = ZmqRequestServer(member, "tcp://127.0.0.1:0")
    server.start(handler)
    client = ZmqControlPlaneClient(node, [MemberAddress(server.endpoint, "member_1")])
    client.start(handler)
    body = Lease("node_a", 1, 7)
    await client.ask(body, timeout_s=10.0)

    alone = []
    for _ in range(ALONE):
        began = time.perf_counter()
        await client.ask(body, timeout_s=10.0)
        alone.append(time.perf_counter() - began)
    alone.sort()

    count = 0
    end = time.perf_counter() + seconds

    async def asking() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await client.ask(body, timeout_s=10.0)
            count += 1

    began = time.perf_counter()
    await gatherResults([Deferred.fromCoroutine(asking()) for _ in range(IN_FLIGHT)])
    rate = count / (time.perf_counter() - began)
    middle, slow = alone[ALONE // 2] * 1e6, alone[ALONE * 99 // 100] * 1e6
    print(
        f"{name:6} {rate:8.0f} round trips/s with {IN_FLIGHT} in flight; "
        f"alone p50 {middle:.0f} µs, p99 {slow:.0f} µs"
    )
    client.stop()
    server.stop()
    node.close()
    member.close()


async def main(seconds: float) -> None:
    try:
        await measure("plain", (PlainSockets(), PlainSockets()), seconds)
        await measure("CURVE", encrypted(), seconds)
    finally:
        reactor.stop()


if __name__ == "__main__":
    length_s = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main(length_s)))
    reactor.run()
