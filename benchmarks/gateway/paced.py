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

from benchmarks.gateway.figures import percentile

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


def run(job: dict[str, Any]) -> dict[str, float]:
    """:param job: ``port``, ``path``, ``host``, ``rate`` a second, ``seconds``, ``connections``."""
    text = f"GET {job['path']} HTTP/1.1\r\nHost: {job['host']}\r\nAccept: application/json\r\n\r\n"
    request, interval_s = text.encode(), 1 / job["rate"]
    poll = select.epoll()
    connections: dict[int, Connection] = {}
    for _ in range(job["connections"]):
        made = socket.create_connection(("127.0.0.1", job["port"]))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[made.fileno()] = Connection(made)
        poll.register(made, select.EPOLLIN)
    free, due = deque(connections.values()), deque[float]()
    timer = ticking(interval_s)
    poll.register(timer, select.EPOLLIN)
    began = time.monotonic()
    ticks, failed, latencies = 0, 0, []
    until = began + job["seconds"]
    while (now := time.monotonic()) < until or len(free) < len(connections):
        if now > until + _LINGER_S:
            failed += len(connections) - len(free)
            break
        for fd, _ in poll.poll(0.05):
            if fd == timer:
                for _ in range(int.from_bytes(os.read(timer, 8), sys.byteorder)):
                    ticks += 1
                    if now < until:
                        due.append(began + ticks * interval_s)
                continue
            connection = connections[fd]
            connection.received += connection.socket.recv(1 << 16)
            if connection.whole():
                latencies.append(time.monotonic() - connection.due)
                failed += not connection.received.startswith(b"HTTP/1.1 200 ")
                connection.received = b""
                free.append(connection)
        while due and free:
            connection = free.popleft()
            connection.due = due.popleft()
            connection.socket.sendall(request)
    return {
        "requests": len(latencies),
        "failed": failed + len(due),
        "p50_s": percentile(latencies, 0.5),
        "p99_s": percentile(latencies, 0.99),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
