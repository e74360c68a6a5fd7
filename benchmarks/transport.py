"""Round trips a second of the request sockets on the loopback, plain and encrypted.

    python -m benchmarks.transport [--seconds 3] [--rounds 3] [--json FILE]

Client and member run in this one process and share one core, so two processes do better. For each
security: round trips a second with 64 questions in flight, and the time of one question alone
(median and 99th percentile of 1,000).
"""

from __future__ import annotations

import time
from pathlib import Path

import click
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from benchmarks import measured, report
from benchmarks.figures import Figures
from benchmarks.measured import Measured
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
LABELS = {
    "rate": f"round trips a second, {IN_FLIGHT} in flight",
    "p50_ms": "one alone, p50, ms",
    "p99_ms": "one alone, p99, ms",
}


async def handler(asked: Asked, body: Body) -> Body:
    return LeaseAck(True, body.assignments_index) if isinstance(body, Lease) else Ok()


def encrypted() -> tuple[Security, Security]:
    keys = {"member_1": generate_keys(), "node_a": generate_keys()}
    peers = {name: Peer(name, name.split("_")[0], pair.public) for name, pair in keys.items()}
    member, node = (
        Curve.of(Secrets(curve_secret=keys[name].secret), peers) for name in ("member_1", "node_a")
    )
    return member, node


async def measure(securities: tuple[Security, Security], seconds: float) -> Figures:
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
    client.stop()
    server.stop()
    node.close()
    member.close()
    middle, slow = alone[ALONE // 2] * 1e3, alone[ALONE * 99 // 100] * 1e3
    return {"rate": rate, "p50_ms": middle, "p99_ms": slow}


async def run(rounds: int, seconds: float) -> Measured:
    found: dict[str, list[Figures]] = {"plain": [], "CURVE": []}
    for _ in range(rounds):
        found["plain"].append(await measure((PlainSockets(), PlainSockets()), seconds))
        found["CURVE"].append(await measure(encrypted(), seconds))
    title = "Round trips of the request sockets, client and member in one process"
    return Measured("transport", title, found, ours=("CURVE",), labels=LABELS)


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=3.0, show_default=True, help="Of the questions in flight.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(rounds: int, seconds: float, json_file: Path | None) -> None:
    found: list[Measured] = []

    def begin() -> None:
        done = Deferred.fromCoroutine(run(rounds, seconds))
        done.addCallbacks(found.append, lambda failure: failure.printTraceback())
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if not found:
        raise SystemExit(1)
    click.echo(report.text(found[0]))
    measured.write(json_file, found)


if __name__ == "__main__":
    main()
