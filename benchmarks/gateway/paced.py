"""A load generator with a rate: requests begin by the clock, whatever became of earlier ones.

``python -m benchmarks.gateway.paced JOB`` prints one line of JSON. A request's latency counts from
the moment at which it was due, so that a server that stands still is not spared the requests that
would have come meanwhile. The clock is a timer of the kernel with one tick a request, in one epoll
with all connections.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import socket
import sys
import time
from collections import deque
from typing import Any

import attrs

from benchmarks.figures import percentile

_NANOSECONDS = 1_000_000_000
#: Answers of the load's last requests are waited for so long.
_LINGER_S = 5.0


class _Timerspec(ctypes.Structure):
    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    ]


def ticking(interval_s: float) -> int:
    """A timerfd_create(2) descriptor that ticks every ``interval_s`` seconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    every = divmod(round(interval_s * _NANOSECONDS), _NANOSECONDS)
    if fd < 0 or libc.timerfd_settime(fd, 0, ctypes.byref(_Timerspec(*every, *every)), None):
        raise OSError(ctypes.get_errno(), "no timer")
    return fd


@attrs.define
class Connection:
    socket: socket.socket
    due: float = 0.0
    received: bytes = b""

    def whole(self) -> bool:
        """Whether the answer is there to its end."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return False
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


class Load:
    """:param job: ``port``, ``path``, ``host``, ``rate`` a second, ``seconds``, ``connections``."""

    def __init__(self, job: dict[str, Any]) -> None:
        head = f"GET {job['path']} HTTP/1.1\r\nHost: {job['host']}\r\n"
        self._request = f"{head}Accept: application/json\r\n\r\n".encode()
        self._interval_s, self._seconds = 1 / job["rate"], job["seconds"]
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        for _ in range(job["connections"]):
            made = socket.create_connection(("127.0.0.1", job["port"]))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[made.fileno()] = Connection(made)
            self._poll.register(made, select.EPOLLIN)
        self._free = deque(self._connections.values())
        self._due = deque[float]()
        self._latencies: list[float] = []
        self._failed = 0

    def run(self) -> dict[str, float]:
        timer = ticking(self._interval_s)
        self._poll.register(timer, select.EPOLLIN)
        began, ticks = time.monotonic(), 0
        until = began + self._seconds
        while (now := time.monotonic()) < until or self._under_way():
            if now > until + _LINGER_S:
                break
            for fd, _ in self._poll.poll(0.05):
                if fd != timer:
                    self._receive(self._connections[fd])
                    continue
                for _ in range(int.from_bytes(os.read(timer, 8), sys.byteorder)):
                    ticks += 1
                    if now < until:
                        self._due.append(began + ticks * self._interval_s)
            self._send()
        return {
            "requests": len(self._latencies),
            "failed": self._failed + self._under_way(),
            "p50_s": percentile(self._latencies, 0.5),
            "p99_s": percentile(self._latencies, 0.99),
        }

    def _under_way(self) -> int:
        return len(self._due) + len(self._connections) - len(self._free)

    def _receive(self, connection: Connection) -> None:
        more = connection.socket.recv(1 << 16)
        if not more:
            raise SystemExit("a connection was closed")
        connection.received += more
        if connection.whole():
            self._latencies.append(time.monotonic() - connection.due)
            self._failed += not connection.received.startswith(b"HTTP/1.1 200 ")
            connection.received = b""
            self._free.append(connection)

    def _send(self) -> None:
        while self._due and self._free:
            connection = self._free.popleft()
            connection.due = self._due.popleft()
            connection.socket.sendall(self._request)


if __name__ == "__main__":
    print(json.dumps(Load(json.loads(sys.argv[1])).run()))
