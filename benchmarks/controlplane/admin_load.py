"""Closed loops of keep-alive requests at one member's admin API. No more of HTTP than it needs, so
that the client takes little of the cores that it shares with what it measures."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import attrs

from benchmarks.figures import percentile

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


async def _content(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """A body of a known length, or in chunks."""
    length = _LENGTH.search(head)
    if length is not None:
        return await reader.readexactly(int(length[1]))
    if b"transfer-encoding: chunked" not in head.lower():
        return b""
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


@attrs.frozen
class Answered:
    """:ivar took_s: of each request. :ivar statuses: status → how many.
    :ivar refusals: status of 400 or more → the beginning of one such answer."""

    took_s: list[float]
    statuses: dict[int, int]
    seconds: float
    refusals: dict[int, bytes]

    def rate(self, status: int) -> float:
        """Answers with this status in a second."""
        return self.statuses.get(status, 0) / self.seconds

    def percentile_ms(self, share: float) -> float:
        return percentile(self.took_s, share) * 1000


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """:returns: status and body. :raises OSError, EOFError: the connection ended."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} /api/cp{path} HTTP/1.1\r\n{self._head}"
        if data:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        writer.write(head.encode() + b"\r\n" + data)
        got = await reader.readuntil(b"\r\n\r\n")
        return int(got[9:12]), await _content(reader, got)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def loops(
    port: int,
    token: str,
    request: Callable[[int], tuple[str, str, Any]],
    *,
    in_flight: int,
    seconds: float = 60.0,
    most: int = 1_000_000,
) -> Answered:
    """So many loops, until ``seconds`` are over or ``most`` requests were made.

    :param request: number → method, path below /api/cp, body.
    """
    took: list[float] = []
    statuses: dict[int, int] = {}
    refusals: dict[int, bytes] = {}
    began, number = time.perf_counter(), 0

    async def loop() -> None:
        nonlocal number
        connection = Connection(port, token)
        while number < most and time.perf_counter() - began < seconds:
            own, number = number, number + 1
            at = time.perf_counter()
            status, content = await connection.ask(*request(own))
            if status >= 400:
                refusals[status] = content[:300]
            took.append(time.perf_counter() - at)
            statuses[status] = statuses.get(status, 0) + 1
        connection.close()

    await asyncio.gather(*(loop() for _ in range(in_flight)))
    return Answered(took, statuses, time.perf_counter() - began, refusals)
