"""Measure "node": the node's hop, from the gateway's signed request to PocketBase's answer.

The node is ``pbnode`` but for its S3, Litestream and PocketBase, which are fakes: it registers with
a real member, takes assignments, renews its lease, and proves ownership for every request. wrk
sends it, byte for byte, what a real gateway sent a moment ago for one request: the gateway's signed
time holds for 30 s. nginx in its place strips the platform's marks and forwards; it neither checks
nor logs.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.figures import Target
from benchmarks.gateway import peers, wrk
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Checkout, Ours
from benchmarks.gateway.processes import free_ports
from benchmarks.gateway.proxied import CONNECTIONS, PYTHON, WARM_UP_S
from benchmarks.gateway.turns import take_turns, together, url, weigh
from benchmarks.measured import Measured

NEEDS = ("nginx", "wrk", "taskset")
TARGETS = (Target("cpu_us", "nginx", 1.5, cause=PYTHON),)
#: A captured request is good for 30 s; the load must be over by then.
LONGEST_S = 20.0


class Capture:
    """Stands at the address that the node registers, answers all that comes, and keeps the last
    request for the measured path as it came."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.last = b""
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5.0)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            try:
                more = connection.recv(1 << 16)
            except OSError:
                return
            if not more:
                return
            received += more
        if received.startswith(b"GET " + peers.PATH.encode()):
            self.last = received
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Node:
    """A checkout's node behind its gateway, and the requests that the latter sends to it."""

    def __init__(self, checkout: Checkout, options: Options, upstream_port: int) -> None:
        self.name = checkout.label
        self._capture = Capture()
        self._ours = Ours(
            checkout,
            upstream_port,
            {"node": options.core, "other": options.other},
            node="front",
            node_settings={"advertise": f"http://127.0.0.1:{self._capture.port}"},
        )
        self.port = int(self._ours.told["node_port"])

    def pids(self) -> list[int]:
        return [int(self._ours.told["node_pid"])]

    def request(self) -> bytes:
        """A request with a fresh signature."""
        ask = urllib.request.Request(url(self._ours), headers={"Host": peers.HOST})
        ask.add_header("Accept", "application/json")
        with urllib.request.urlopen(ask, timeout=10) as answer:
            answer.read()
        return self._capture.last

    def stop(self) -> None:
        self._ours.stop()
        self._capture.stop()


def lua(root: Path, request: bytes) -> Path:
    """A script with which wrk sends exactly ``request``."""
    raw, script = root / "request", root / "request.lua"
    raw.write_bytes(request)
    script.write_text(
        f'local file = io.open("{raw}", "rb")\nlocal raw = file:read("*a")\nfile:close()\n'
        "request = function() return raw end\n"
    )
    return script


def measure(options: Options) -> Measured:
    seconds = min(options.seconds, LONGEST_S)
    with together() as to, tempfile.TemporaryDirectory(prefix="bench-node-") as root:
        upstream_port, port = free_ports(2)
        to.add(peers.upstream(upstream_port, options.other))
        nodes = [to.add(Node(each, options, upstream_port)) for each in options.checkouts]
        nginx = to.add(peers.nginx_hop(port, upstream_port, options.core))

        def one(system: Any, number: int) -> dict[str, float]:
            def load(for_s: float) -> Any:
                signer = system if isinstance(system, Node) else nodes[0]
                script = lua(Path(root), signer.request())
                return wrk.run(
                    url(system),
                    {},
                    connections=CONNECTIONS,
                    seconds=for_s,
                    core=options.other,
                    script=script,
                )

            if number == 0:
                load(WARM_UP_S)
            return weigh(system.pids(), lambda: load(seconds))

        found = take_turns([*nodes, nginx], options.rounds, one)
    return Measured(
        "node",
        f"The node's hop, {CONNECTIONS} connections",
        found,
        options.labels,
        TARGETS,
    )
