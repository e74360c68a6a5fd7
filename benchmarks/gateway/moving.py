"""Moves one gigabyte through a proxy; ``python -m benchmarks.gateway.moving JOB`` prints seconds.

The job: ``port``, ``host``, ``kind`` (``up`` or ``down``).
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

from benchmarks.gateway.far_end import GIGABYTE

_BLOCK = bytes(1 << 20)


def up(connection: socket.socket, host: str) -> None:
    head = f"POST /up HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
    connection.sendall(f"{head}Content-Length: {GIGABYTE}\r\n\r\n".encode())
    left = GIGABYTE
    while left:
        left -= connection.send(_BLOCK[: min(left, len(_BLOCK))])
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = connection.recv(1 << 16)
        if not more:
            raise SystemExit(f"closed after {answer!r}")
        answer += more
    _check(answer)


def down(connection: socket.socket, host: str) -> None:
    connection.sendall(f"GET /down HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    buffer, answer = bytearray(1 << 20), b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1 << 16)
    _check(answer)
    left = GIGABYTE - len(answer.partition(b"\r\n\r\n")[2])
    while left:
        count = connection.recv_into(buffer)
        if not count:
            raise SystemExit(f"closed with {left} bytes to come")
        left -= count


def _check(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"got {answer[:300]!r}")


def run(job: dict[str, Any]) -> float:
    with socket.create_connection(("127.0.0.1", job["port"]), 60.0) as connection:
        began = time.monotonic()
        (up if job["kind"] == "up" else down)(connection, job["host"])
        return time.monotonic() - began


if __name__ == "__main__":
    print(run(json.loads(sys.argv[1])))
