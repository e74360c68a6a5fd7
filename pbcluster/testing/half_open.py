"""Opens many connections, sends half a request on each, and waits until the server ends them all.

    python -m pbcluster.testing.half_open --port 8080 --count 10000

It prints a line of JSON when all are open and one when all have ended: how many got 408, how many
ended without an answer, how many were refused. The connections come from several addresses of the
loopback network, since one has only some 28,000 ports. It never reads more than it must.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time
from collections import Counter

import click

from pbcluster.testing.http_server import raise_descriptor_limit

HEAD = b"GET / HTTP/1.1\r\nHost: a.localhost\r\nX-Half: "
#: Connections from one address, and attempts under way at once.
PER_ADDRESS, AT_ONCE = 2500, 500


def _begin(number: int, port: int) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.bind((f"127.0.0.{2 + number // PER_ADDRESS}", 0))
    status = client.connect_ex(("127.0.0.1", port))
    if status not in (0, errno.EINPROGRESS):
        raise OSError(status, "cannot connect")
    return client


def _ended(client: socket.socket) -> str | None:
    """How the server ended a connection; None: not yet."""
    try:
        answer = client.recv(4096)
    except BlockingIOError:
        return None
    except OSError:
        return "reset"
    if not answer:
        return "closed"
    return "408" if answer.startswith(b"HTTP/1.1 408 ") else "other"


class HalfOpen:
    """See the module."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._poll = select.epoll(count)
        self._open: dict[int, socket.socket] = {}
        self._connecting: set[int] = set()
        self.ends: Counter[str] = Counter()

    def open(self, until: float) -> int:
        """Open all; gives how many are."""
        begun = 0
        while (begun < self._count or self._connecting) and time.monotonic() < until:
            while begun < self._count and len(self._connecting) < AT_ONCE:
                client = _begin(begun, self._port)
                self._open[client.fileno()] = client
                self._connecting.add(client.fileno())
                self._poll.register(client, select.EPOLLOUT | select.EPOLLIN)
                begun += 1
            self._look(0.1)
        return len(self._open) - len(self._connecting)

    def wait(self, until: float) -> None:
        """Until the server has ended all."""
        while self._open and time.monotonic() < until:
            self._look(0.5)

    def _look(self, timeout_s: float) -> None:
        for number, _ in self._poll.poll(timeout_s):
            client = self._open[number]
            if number in self._connecting:
                self._connecting.discard(number)
                client.send(HEAD)
                self._poll.modify(number, select.EPOLLIN)
            elif (end := _ended(client)) is not None:
                self.ends[end] += 1
                self._poll.unregister(number)
                del self._open[number]
                client.close()


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--port", required=True, type=int)
@click.option("--count", default=10_000, show_default=True)
@click.option("--within-s", default=60.0, show_default=True, help="Longest time of each part.")
def main(port: int, count: int, within_s: float) -> None:
    """The command."""
    raise_descriptor_limit()
    half = HalfOpen(port, count)
    print(json.dumps({"open": half.open(time.monotonic() + within_s)}), flush=True)
    half.wait(time.monotonic() + within_s)
    print(json.dumps(half.ends), flush=True)


if __name__ == "__main__":
    sys.exit(main())
