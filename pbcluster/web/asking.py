"""Small requests of a process's own, over kept connections: one question, one answer in memory.

For calls so frequent that a general client's cost would show: Litestream's syncs and the owner
object behind each group of writes. It repeats nothing but a GET or HEAD that met a kept connection
in the moment of its end, before a byte of an answer; redirects and cookies are not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError

from pbcluster.errors import Unavailable
from pbcluster.web.client import ResponseListener, UpstreamConnection
from pbcluster.web.interfaces import Headers
from pbcluster.web.pool import UpstreamPool
from pbcluster.web.response_head import ParsedResponse

#: A reachable peer of a cluster answers a connection attempt at once.
CONNECT_TIMEOUT_S = 2.0
_REPEATABLE = (b"GET", b"HEAD")


class Reply(NamedTuple):
    """A whole answer. :ivar headers: as they came."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes:
        """The first field of that name (lower case), empty if there is none."""
        return next((value for field, value in self.headers if field.lower() == name), b"")


class NoReply(Unavailable):
    """No whole answer came; what was asked may have been done.

    :ivar timed_out: it was waited for in vain, as opposed to a connection that ended.
    """

    code = "no_reply"

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class _Answer(ResponseListener):
    """Gathers one answer (``client.ResponseListener``)."""

    def __init__(self, connection: UpstreamConnection, pool: UpstreamPool, limit: int) -> None:
        self._connection = connection
        self._pool = pool
        self._limit = limit
        self._head: ParsedResponse | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self.reply: Deferred[Reply] = Deferred(lambda _: connection.abort())

    def interim_response(self, status: int) -> None:
        """Nobody waits for one."""

    def response_received(self, head: ParsedResponse | None, data: bytes, done: bool) -> None:
        """See ``client.ResponseListener``."""
        self._head = head or self._head
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._connection.abort()
            self.reply.errback(NoReply(f"the answer has more than {self._limit} bytes"))
        elif done:
            assert self._head is not None
            self._pool.give_back(self._connection)
            parsed = self._head.head
            self.reply.callback(Reply(parsed.status, parsed.headers, b"".join(self._parts)))

    def upstream_failed(self, error: str, timed_out: bool) -> None:
        """See ``client.ResponseListener``."""
        self.reply.errback(NoReply(error, timed_out=timed_out))

    def upload_paused(self) -> None:
        """The request is in the transport's buffer already."""

    def upload_resumed(self) -> None:
        """As before."""


class Asker:
    """Asks one host over a pool of its own."""

    def __init__(self, pool: UpstreamPool, host: str, port: int, identity: str = "") -> None:
        """
        :param host, port, identity: as ``UpstreamPool.connect`` takes them.
        """
        self._pool = pool
        self._where = (host, port, identity)

    def close(self) -> None:
        """Close the kept connections and keep none from now on."""
        self._pool.close()

    async def ask(
        self,
        method: bytes,
        target: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes = b"",
        *,
        timeout_s: float,
        max_body_bytes: int,
    ) -> Reply:
        """Ask once.

        :param headers: with Host; Content-Length is added where there is a body.
        :param timeout_s: for the answer's head, and for each silence in its body.
        :raises NoReply: no whole answer came.
        """
        lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % each for each in headers)]
        if body or method not in _REPEATABLE:
            lines.append(b"Content-Length: %d" % len(body))
        request = b"\r\n".join(lines) + b"\r\n\r\n" + body
        host, port, identity = self._where
        kept = self._pool.take(host, port, identity)
        if kept is not None:
            try:
                return await self._on(kept, method, request, timeout_s, max_body_bytes)
            except NoReply as error:
                if kept.responded or error.timed_out or method not in _REPEATABLE:
                    raise
        try:
            made = await self._pool.connect(host, port, min(CONNECT_TIMEOUT_S, timeout_s), identity)
        except (ConnectError, OSError) as error:
            raise NoReply(f"cannot connect: {type(error).__name__}") from None
        return await self._on(made, method, request, timeout_s, max_body_bytes)

    def _on(
        self,
        connection: UpstreamConnection,
        method: bytes,
        request: bytes,
        timeout_s: float,
        limit: int,
    ) -> Deferred[Reply]:
        answer = _Answer(connection, self._pool, limit)
        connection.begin(answer, method == b"HEAD", timeout_s, timeout_s)
        connection.write(request)
        return answer.reply
