"""Opens many connections, has one answer on each, and keeps them until its standard input ends.
Then it prints how many are still open.

``python -m benchmarks.gateway.holding JOB``; the job: ``port``, ``host``, ``path``, ``count``, and
``until``, the bytes with which what is read of an answer ends. Connections come from several
addresses of the loopback, so that their ports do not run out.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from benchmarks.gateway.processes import raise_limit

#: Ports of one address: fewer than the kernel has for outgoing connections.
PER_ADDRESS = 5_000
#: ip(7); Python has no name for it before 3.12.
IP_BIND_ADDRESS_NO_PORT = 24
WITHIN_S = 30.0


def connected(port: int, source: str) -> socket.socket:
    """A connection from the address ``source``.

    Its port is chosen when it connects: one that is chosen before is taken from every address, and
    the proxy would find none to connect to its upstream.
    """
    made = socket.socket()
    made.settimeout(WITHIN_S)
    made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    made.bind((source, 0))
    made.connect(("127.0.0.1", port))
    return made


def opened(job: dict[str, Any]) -> list[socket.socket]:
    request = f"GET {job['path']} HTTP/1.1\r\nHost: {job['host']}\r\n\r\n".encode()
    until, found = job["until"].encode(), []
    for number in range(job["count"]):
        made = connected(job["port"], f"127.0.0.{2 + number // PER_ADDRESS}")
        made.sendall(request)
        received = b""
        while not received.endswith(until):
            more = made.recv(1 << 16)
            if not more:
                raise SystemExit(f"connection {number} was closed after {received!r}")
            received += more
        if not received.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"connection {number} got {received[:200]!r}")
        found.append(made)
    return found


def still_open(connection: socket.socket) -> bool:
    """Whether the other side has neither ended it nor sent more."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


if __name__ == "__main__":
    raise_limit()
    kept = opened(json.loads(sys.argv[1]))
    print(len(kept), flush=True)
    sys.stdin.read()
    print(sum(map(still_open, kept)), flush=True)
