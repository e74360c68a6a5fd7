"""``benchmarks.gateway.paced`` against servers that answer late, wrongly or not at all."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.gateway.ours import HERE

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BAD = b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}"
RATE, SECONDS = 100, 1.0


class Server:
    """Answers each request after a while, in two pieces with that while between them.

    :ivar asked: requests that came.
    """

    def __init__(self, answer: bytes, late_s: float) -> None:
        self.asked = 0
        self._answer, self._late_s = answer, late_s
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                made, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(made,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(1 << 16):
                self.asked += 1
                if not self._answer:
                    return
                connection.sendall(self._answer[:10])
                time.sleep(self._late_s)
                connection.sendall(self._answer[10:])


class PacedTests(SynchronousTestCase):
    def server(self, answer: bytes, late_s: float = 0.0) -> Server:
        made = Server(answer, late_s)
        self.addCleanup(made.close)
        return made

    def load(self, **servers: Server) -> subprocess.CompletedProcess[str]:
        job = {
            "targets": {name: {"port": each.port, "path": "/x"} for name, each in servers.items()},
            "host": "a.localhost",
            "rate": RATE,
            "seconds": SECONDS,
            "connections": 8,
        }
        command = [sys.executable, "-m", "benchmarks.gateway.paced", json.dumps(job)]
        return subprocess.run(
            command, check=False, cwd=HERE, capture_output=True, text=True, timeout=60
        )

    def told(self, **servers: Server) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(self.load(**servers).stdout)
        return found

    def test_every_request_of_every_system(self) -> None:
        """Each system gets its rate, whatever the other one takes; a latency goes from when a
        request was due to the last piece of its answer, and wrong answers are counted."""
        quick, slow = self.server(GOOD), self.server(BAD, late_s=0.02)
        told = self.told(quick=quick, slow=slow)
        for name, server in (("quick", quick), ("slow", slow)):
            self.assertEqual(told[name]["requests"], RATE * SECONDS)
            self.assertEqual(server.asked, RATE * SECONDS)
        self.assertGreaterEqual(told["slow"]["p50_s"], 0.02)
        self.assertEqual(told["quick"]["failed"], 0)
        self.assertEqual(told["slow"]["failed"], told["slow"]["requests"])

    def test_who_stands_still_is_not_spared(self) -> None:
        """Eight connections that take 200 ms each can answer 40 requests of the 50 that are due in
        a slice by its end: the others are late by what they waited for a connection."""
        told = self.told(stuck=self.server(GOOD, late_s=0.2))["stuck"]
        self.assertEqual(told["requests"], RATE * SECONDS)
        self.assertGreaterEqual(told["p99_s"], 0.4)

    def test_a_closed_connection(self) -> None:
        """It ends the measure: a figure of what is left would be none."""
        ended = self.load(closing=self.server(b""))
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("a connection was closed", ended.stderr)
