"""``benchmarks.gateway.paced`` against servers that answer late, wrongly or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.gateway import paced
from benchmarks.gateway.ours import HERE

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LOWER = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length:2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Left: 10\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
BAD = b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}"
RATE, SECONDS = 100, 1.0


class Server:
    """Answers each request in two pieces with a while between them.

    :param late_s: that while. :param first: bytes of the first piece.
    :ivar asked: requests that came.
    """

    def __init__(self, answer: bytes, late_s: float, first: int) -> None:
        self.asked = 0
        self._answer, self._late_s, self._first = answer, late_s, first
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
        with connection, contextlib.suppress(ConnectionError):
            while connection.recv(1 << 16):
                self.asked += 1
                if not self._answer:
                    return
                connection.sendall(self._answer[: self._first])
                time.sleep(self._late_s)
                connection.sendall(self._answer[self._first :])


class PacedTests(SynchronousTestCase):
    if shutil.which("gcc") is None:
        skip = "the load is compiled: apt-get install gcc libc6-dev"

    def server(self, answer: bytes, late_s: float = 0.0, first: int = 10) -> Server:
        made = Server(answer, late_s, first)
        self.addCleanup(made.close)
        return made

    def job(self, servers: Mapping[str, Server], seconds: float) -> dict[str, Any]:
        return {
            "targets": {name: {"port": each.port, "path": "/x"} for name, each in servers.items()},
            "host": "a.localhost",
            "rate": RATE,
            "seconds": seconds,
            "connections": 8,
        }

    def load(
        self, servers: Mapping[str, Server], seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        job = json.dumps(self.job(servers, seconds))
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.gateway.paced", job],
            check=False,
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def told(self, **servers: Server) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(self.load(servers).stdout)
        return found

    def runs(self, pid: int) -> bool:
        """Whether it is there, and not only waits to be asked how it ended."""
        try:
            return b"/paced-" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            return False

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

    def test_answers_are_whole_by_length_or_last_chunk(self) -> None:
        """The last byte counts, wherever an answer is cut."""
        servers = {
            f"{number} {first}": self.server(answer, late_s=0.01, first=first)
            for number, answer in enumerate((GOOD, LOWER, CHUNKED))
            for first in (answer.index(b"\r\n\r\n") + 3, answer.index(b"\r\n\r\n") + 4, -1)
        }
        told = json.loads(self.load(servers, 0.5).stdout)
        for name in servers:
            self.assertEqual((told[name]["requests"], told[name]["failed"]), (RATE / 2, 0), name)
            self.assertGreaterEqual(told[name]["p50_s"], 0.01, name)

    def test_who_stands_still_is_not_spared(self) -> None:
        """Eight connections that take 200 ms each can answer 40 requests of the 50 that are due in
        a slice by its end: the others are late by what they waited for a connection."""
        told = self.told(stuck=self.server(GOOD, late_s=0.2))["stuck"]
        self.assertEqual(told["requests"], RATE * SECONDS)
        self.assertGreaterEqual(told["p99_s"], 0.4)

    def test_a_closed_connection(self) -> None:
        """It ends the measure: a figure of what is left would be none."""
        ended = self.load({"closing": self.server(b"")})
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("a connection was closed", ended.stderr)

    def test_more_than_the_answer(self) -> None:
        """Bytes that nobody asked for end it, too."""
        ended = self.load({"more": self.server(GOOD + b"x", first=len(GOOD))})
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("bytes", ended.stderr)

    def test_who_started_it_is_killed(self) -> None:
        """Then it ends, too: nobody loads what is measured next."""
        job = self.job({"late": self.server(GOOD, late_s=0.01)}, 20.0)
        command = (sys.executable, "-m", "benchmarks.gateway.paced", json.dumps(job))
        with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE) as parent:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
            load = 0
            while not load:
                self.assertIsNone(parent.poll())
                time.sleep(0.05)
                found = map(int, children.read_text().split())
                load = next((pid for pid in found if self.runs(pid)), 0)
            parent.kill()
        for _ in range(100):
            if not self.runs(load):
                break
            time.sleep(0.05)
        self.assertFalse(self.runs(load))

    def test_who_started_it_was_killed_before(self) -> None:
        """Before it could ask to be told of that: it ends at once."""
        command = paced.command(self.job({"one": self.server(GOOD)}, 20.0))
        at = command.index(str(os.getpid()))
        command[at] = "1"
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("whoever started this has ended", ended.stderr)

    def test_an_answer_that_does_not_come(self) -> None:
        """It is waited for, and then ends the measure."""
        self.patch(paced, "LINGER_S", 0)
        job = self.job({"late": self.server(GOOD, late_s=5.0)}, 0.5)
        ended = subprocess.run(
            paced.command(job), check=False, capture_output=True, text=True, timeout=60
        )
        self.assertNotEqual(ended.returncode, 0)
        self.assertEqual(ended.stderr, "50 answers are missing\n")
