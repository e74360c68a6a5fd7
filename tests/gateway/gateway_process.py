"""A gateway as a real process for the tests of its life, without a control plane or with one that
says nothing but that it is there.

It knows its tenant ``shop`` from a file of routes, as after a restart in an outage; the tenant's
node is a server in this process. All calls block with a bound.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import zmq

import pbcluster
from pbcluster import wire
from pbcluster.errors import Unavailable
from pbcluster.gateway import warm_start
from pbcluster.gateway.warm_start import SavedRoutes
from pbcluster.testing.free_ports import free_ports
from tests.gateway.fakes import route

WITHIN_S = 30.0
#: Of a client between two requests.
PAUSE_S = 0.002
HOST = "shop.localhost"
_NO_LEADER = Unavailable("there is no leader")
SETTINGS = """
id = "gateway_1"
cluster_id = "test"
data_dir = "data"
secrets_file = "secrets.toml"
peers_file = "peers.toml"
broadcasts = ["tcp://127.0.0.1:2"]
insecure_plain_sockets = true
"""


class Node:
    """The node of tenant ``shop``: ``/`` answers at once, ``/slow`` when :attr:`go` is set,
    ``/events`` never ends."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = threading.Event()
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/slow":
                    node.asked.set()
                    node.go.wait(WITHIN_S)
                if self.path == "/events":
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    self.wfile.write(b"data: 1\n\n")
                    self.wfile.flush()
                    node.go.wait(WITHIN_S)
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(b"hello")

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()


class Member:
    """A member of the control plane that answers a gateway's first question, so that one which
    starts need not wait for it, and refuses all others."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(WITHIN_S)

    def _run(self) -> None:
        while not self._over.is_set():
            if not self._socket.poll(50):
                continue
            who, *frames = self._socket.recv_multipart()
            for asked in map(wire.decode, frames):
                first = asked.body == wire.SnapshotRequest(())
                said = wire.Snapshot(0, ()) if first else wire.ErrorReply.of(_NO_LEADER)
                answer = wire.Envelope("test", "member_1", asked.request_id, 0, "", said)
                if asked.request_id:
                    self._socket.send_multipart([who, wire.encode(answer)])
        self._socket.close()
        self._context.term()


def wait_for(happened: Callable[[], Any], what: str) -> Any:
    """Ask again until it is true; gives what it gave."""
    until = time.monotonic() + WITHIN_S
    while True:
        found = happened()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {WITHIN_S:.0f} s for {what}")
        time.sleep(0.02)


class Gateway:
    """A directory with a configuration, and the processes that run on it, one after the other."""

    def __init__(self, root: Path, node: Node, member: Member | None, **settings: Any) -> None:
        """
        :param member: None: there is no control plane.
        """
        self.root = root.absolute()
        self.root.mkdir(parents=True)
        self.data = self.root / "data"
        self.file = self.root / "gateway.toml"
        self.log = self.root / "log"
        (self.root / "peers.toml").write_text('[peers.gateway_1]\nrole = "gateway"\n')
        (self.root / "secrets.toml").write_text('gateway_keys = {gateway_1 = "k"}\n')
        (self.root / "secrets.toml").chmod(0o600)
        self.settings: dict[str, Any] = {
            "listen": f"127.0.0.1:{free_ports(1)[0]}",
            "drain_ready_s": 0,
            "drain_s": 5,
            "hold_s": 1,
            "members": [member.address if member is not None else "tcp://127.0.0.1:1"],
        } | settings
        self.configure()
        self.remember(route(address=f"http://127.0.0.1:{node.port}"))
        self.processes: list[subprocess.Popen[bytes]] = []

    def configure(self, text: str = "", **changes: Any) -> None:
        self.settings |= changes
        rows = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]
        self.file.write_text(SETTINGS + "\n".join(rows) + "\n" + text)

    def remember(self, *routes: wire.Route) -> None:
        saved = SavedRoutes("test", time.time(), routes)
        warm_start.write(warm_start.routes_file(self.data / "routes", 1), saved)

    def start(self, *flags: str, wait: bool = True, **popen: Any) -> subprocess.Popen[bytes]:
        root = str(Path(pbcluster.__file__).parent.parent)
        argv = [sys.executable, "-P", "-m", "pbcluster.twistd", "--nodaemon", "--pidfile="]
        argv += ["--reactor=pbuvloop", "pbgateway", f"--config={self.file}", *flags]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*popen.pop("before", ()), *argv],
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": root},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **popen,
            )
        self.processes.append(process)
        if wait:
            self.wait_ready(process)
        return process

    def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        def serves() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"it ended with {process.returncode}:\n{self.tail()}")
            return bool(self.ready().get("pid") == process.pid)

        wait_for(serves, "the gateway to serve")

    def ready(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.data / "ready.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def tail(self) -> str:
        rows = self.log.read_text().splitlines()
        return "\n".join([row for row in rows if "gateway.access" not in row][-30:])

    @property
    def port(self) -> int:
        return int(self.settings["listen"].rpartition(":")[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)

    def get(self, path: str = "/", host: str = HOST) -> tuple[int, bytes, str | None]:
        """Status, body, the field Connection; over a connection of its own."""
        connection = self.connect()
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("Connection")
        finally:
            connection.close()

    def page(self, path: str, ready: dict[str, Any] | None = None) -> tuple[int, str]:
        """A page of the metrics listener."""
        where = (ready or self.ready())["metrics"].removeprefix("http://")
        connection = http.client.HTTPConnection(where, timeout=WITHIN_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, line: str) -> float:
        """The value of a metric, by its name and labels as they stand on the page; -1: none."""
        for row in self.page("/metrics")[1].splitlines():
            if row.startswith(line + " "):
                return float(row.rpartition(" ")[2])
        return -1.0

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(WITHIN_S)


class Load:
    """Clients that ask one request after the other, hundreds a second, which leaves time for what
    starts meanwhile; each notes every error.

    :ivar errors: what went wrong. :ivar done: good answers.
    """

    def __init__(self, gateway: Gateway, *, fresh: int, kept: int) -> None:
        """
        :param fresh: clients that make a new connection for each request.
        :param kept: clients that keep theirs as long as they are let.
        """
        self.errors: list[str] = []
        self.done = 0
        self._gateway = gateway
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number >= fresh,), daemon=True)
            for number in range(fresh + kept)
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(WITHIN_S)

    def wait_for_more(self, count: int) -> None:
        wanted = self.done + count
        wait_for(lambda: self.done >= wanted, f"{count} more answers ({self.errors[:3]})")

    def _run(self, keep: bool) -> None:
        connection = self._gateway.connect()
        while not self._over.wait(PAUSE_S):
            try:
                connection.request("GET", "/", headers={"Host": HOST})
                answer = connection.getresponse()
                body = answer.read()
                if (answer.status, body) != (200, b"hello"):
                    self.errors.append(f"{answer.status} {body[:200]!r}")
                else:
                    self.done += 1
                if not keep:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                connection.close()
