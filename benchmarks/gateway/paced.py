"""A load generator with a rate: requests begin by the clock, whatever became of earlier ones.
Systems that are compared take turns, half a second each.

``python -m benchmarks.gateway.paced JOB`` prints one line of JSON. A request's latency counts from
the moment at which it was due, so that a server that stands still is not spared the requests that
would have come meanwhile, until the kernel had the end of its answer (``SO_TIMESTAMPNS``, see
socket(7)). So answers need nobody to wake up for them: this process shares a core with what it
measures, and sleeps until the next request is due. The clock is a timer of the kernel with one tick
a request.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs

from benchmarks.figures import percentile

_NANOSECONDS = 1_000_000_000
#: Answers of the load's last requests are waited for so long.
_LINGER_S = 5.0
#: Systems take turns after so long: what else happens on the machine meets them all.
SLICE_S = 0.5
#: socket(7); Python has no name for it. Of the wall clock, as a struct timespec.
SO_TIMESTAMPNS = 35
_libc = ctypes.CDLL(None, use_errno=True)


class _Timerspec(ctypes.Structure):
    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    ]


def timer() -> int:
    """A timerfd_create(2) descriptor that does not tick yet."""
    fd = int(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "no timer")
    return fd


def tick(fd: int, interval_s: float) -> None:
    """Let a timer begin to tick every ``interval_s`` seconds, from now."""
    every = divmod(round(interval_s * _NANOSECONDS), _NANOSECONDS)
    if _libc.timerfd_settime(fd, 0, ctypes.byref(_Timerspec(*every, *every)), None):
        raise OSError(ctypes.get_errno(), "the timer cannot be set")


def arrived_s(ancillary: Sequence[tuple[int, int, bytes]]) -> float:
    """When the kernel got what it gives with this, on the wall clock."""
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@ll", content)
            return float(seconds + nanoseconds / _NANOSECONDS)
    raise SystemExit("the kernel does not tell when an answer came")


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


class Target:
    """One system under load.

    :param port: of the loopback. :param request: what it is asked, again and again.
    """

    def __init__(self, port: int, request: bytes, connections: int) -> None:
        self.request = request
        self.connections: dict[int, Connection] = {}
        for _ in range(connections):
            made = socket.create_connection(("127.0.0.1", port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.connections[made.fileno()] = Connection(made)
        self.free = deque(self.connections.values())
        self.latencies: list[float] = []
        self.failed = 0

    def under_way(self) -> int:
        return len(self.connections) - len(self.free)

    def receive(self, fd: int) -> None:
        """:raises SystemExit: it was closed, or is one of a system whose turn it is not."""
        connection = self.connections.get(fd)
        if connection is None:
            raise SystemExit("a connection was closed")
        more, ancillary, _, _ = connection.socket.recvmsg(1 << 16, 64)
        if not more:
            raise SystemExit("a connection was closed")
        connection.received += more
        if connection.whole():
            self.latencies.append(arrived_s(ancillary) - connection.due)
            self.failed += not connection.received.startswith(b"HTTP/1.1 200 ")
            connection.received = b""
            self.free.append(connection)

    def send(self, due: deque[float]) -> None:
        while due and self.free:
            connection = self.free.popleft()
            connection.due = due.popleft()
            connection.socket.sendall(self.request)

    def told(self) -> dict[str, float]:
        return {
            "requests": len(self.latencies),
            "failed": self.failed,
            "p50_s": percentile(self.latencies, 0.5),
            "p99_s": percentile(self.latencies, 0.99),
        }


def slices(names: Sequence[str], seconds: float) -> list[str]:
    """Whose turn it is, slice after slice; nobody always follows the same one."""
    return [
        names[(first + turn) % len(names)]
        for turn in range(max(1, round(seconds / SLICE_S)))
        for first in range(len(names))
    ]


class Load:
    """:param job: ``targets`` (name → ``port`` and ``path``), ``host``, ``rate`` a second,
    ``seconds`` and ``connections`` for each target."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._interval_s, self._seconds = 1 / job["rate"], job["seconds"]
        self._poll, self._targets = select.epoll(), dict[str, Target]()
        self._timer = timer()
        for name, each in job["targets"].items():
            head = f"GET {each['path']} HTTP/1.1\r\nHost: {job['host']}\r\n"
            request = f"{head}Accept: application/json\r\n\r\n".encode()
            self._targets[name] = Target(each["port"], request, job["connections"])
            for fd in self._targets[name].connections:
                self._poll.register(fd, select.EPOLLIN)

    def run(self) -> dict[str, dict[str, float]]:
        """All of it. :returns: name → ``requests``, ``failed``, ``p50_s``, ``p99_s``."""
        for name in slices(tuple(self._targets), self._seconds):
            tick(self._timer, self._interval_s)
            self._slice(self._targets[name])
        return {name: target.told() for name, target in self._targets.items()}

    def _slice(self, target: Target) -> None:
        """Load for :data:`SLICE_S`, and all its answers.

        :raises SystemExit: one did not come.
        """
        due, ticks, all_ticks = deque[float](), 0, round(SLICE_S / self._interval_s)
        began = time.time()
        while ticks < all_ticks or due or target.under_way():
            if time.time() > began + SLICE_S + _LINGER_S:
                raise SystemExit(f"{len(due) + target.under_way()} answers are missing")
            for _ in range(int.from_bytes(os.read(self._timer, 8), sys.byteorder)):
                ticks += 1
                if ticks <= all_ticks:
                    due.append(began + ticks * self._interval_s)
            for fd, _ in self._poll.poll(0):
                target.receive(fd)
            target.send(due)


if __name__ == "__main__":
    print(json.dumps(Load(json.loads(sys.argv[1])).run()))
