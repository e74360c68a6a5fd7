"""Opens many connections, has one answer on each, and keeps them until its standard input ends.

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


def opened(job: dict[str, Any]) -> list[socket.socket]:
    request = f"GET {job['path']} HTTP/1.1\r\nHost: {job['host']}\r\n\r\n".encode()
    until, found = job["until"].encode(), []
    for number in range(job["count"]):
        source = (f"127.0.0.{2 + number // PER_ADDRESS}", 0)
        made = socket.create_connection(("127.0.0.1", job["port"]), 30.0, source)
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


if __name__ == "__main__":
    raise_limit()
    kept = opened(json.loads(sys.argv[1]))
    print(len(kept), flush=True)
    sys.stdin.read()
