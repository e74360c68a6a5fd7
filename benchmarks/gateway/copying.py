"""A proxy that copies bytes and knows nothing of HTTP: what the streams alone cost.

``python -m benchmarks.gateway.copying PORT UPSTREAM_PORT``: two callbacks on the event loop that
the gateway has, one connection to the upstream for each client's. What the gateway takes more than
this is its own work, and no gateway on these streams takes less.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class Side(asyncio.Protocol):
    """One connection; what comes goes to ``other``, at once or when that is there."""

    def __init__(self, upstream_port: int = 0) -> None:
        """
        :param upstream_port: of a client's connection: where its other side is made.
        """
        self._upstream_port = upstream_port
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._upstream_port:
            self._making = asyncio.ensure_future(self._make_other())

    async def _make_other(self) -> None:
        other = Side()
        other.other = self
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: other, "127.0.0.1", self._upstream_port)
        self.other = other
        for data in self._early:
            other.write(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.write(data)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.other is not None and self.other._transport is not None:
            self.other._transport.close()


async def serve(port: int, upstream_port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Side(upstream_port), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
