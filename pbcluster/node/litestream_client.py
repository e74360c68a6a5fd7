"""Litestream's control socket: HTTP/1.1 and JSON over a UNIX socket, on kept connections.

A call that takes too long fails here but is not cut off: Litestream goes on with it, and only its
answer is dropped. So the number of calls under way is bounded, by number and by database.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint

from pbcluster.errors import S3Unavailable
from pbcluster.web.asking import Asker, NoReply
from pbcluster.web.pool import UpstreamPool

#: Kept open when idle: about as many as syncs run at once on a busy node.
MAX_IDLE_CONNECTIONS = 32
#: Calls under way; each holds a connection. Twice the tenants a node has by default.
MAX_CALLS = 512
#: Connecting to a UNIX socket is immediate or the daemon hangs.
CONNECT_TIMEOUT_S = 2.0
#: A connection must not end under a call that Litestream works on: it would take its read
#: transaction back. So there is no limit here but one that a call never reaches; callers give up
#: long before.
NEVER_CUT_S = 86_400.0
#: ``/list`` of a thousand databases has some hundred KB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_HEADERS = ((b"Host", b"litestream"), (b"Content-Type", b"application/json"))


@attrs.frozen
class Answer:
    """:ivar status: of HTTP. :ivar body: the JSON object."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """What it says went wrong."""
        return str(self.body.get("error", f"status {self.status}"))


class LitestreamClient:
    """Talks to one daemon; make a new one for a new daemon."""

    def __init__(self, reactor: Any, socket_path: str) -> None:
        """
        :param reactor: ``IReactorUNIX`` and ``IReactorTime``.
        """
        self._reactor = reactor
        endpoint = UNIXClientEndpoint(reactor, socket_path, timeout=CONNECT_TIMEOUT_S)
        pool = UpstreamPool(
            reactor, lambda *_: endpoint, max_idle_per_upstream=MAX_IDLE_CONNECTIONS
        )
        self._asker = Asker(pool, "litestream", 0)
        self._calls = 0

    @property
    def calls(self) -> int:
        """Calls under way, those whose caller gave up included."""
        return self._calls

    async def close(self) -> None:
        """Close the kept connections."""
        self._asker.close()

    async def ask(
        self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float
    ) -> Answer:
        """GET, or POST if there is a body.

        :raises S3Unavailable: no answer within ``timeout_s``; it may be done all the same.
        """
        if self._calls >= MAX_CALLS:
            raise S3Unavailable(f"Litestream is slow: {MAX_CALLS} calls are under way")
        self._calls += 1
        waiting: Deferred[Answer] = Deferred()

        def give_up() -> None:
            waiting.errback(
                S3Unavailable(f"Litestream did not answer {path} within {timeout_s:g} s")
            )

        def over(result: Any) -> None:
            self._calls -= 1
            if timer.active():
                timer.cancel()
                waiting.callback(result)  # a Failure makes it an errback

        timer = self._reactor.callLater(timeout_s, give_up)
        Deferred.fromCoroutine(self._exchange(path, body)).addBoth(over)
        return await waiting

    async def _exchange(self, path: str, body: dict[str, Any] | None) -> Answer:
        method, content = b"GET", b""
        if body is not None:
            method, content = b"POST", msgspec.json.encode(body)
        try:
            reply = await self._asker.ask(
                method,
                path.encode(),
                _HEADERS,
                content,
                timeout_s=NEVER_CUT_S,
                max_body_bytes=MAX_ANSWER_BYTES,
            )
        except NoReply as error:
            raise S3Unavailable(f"Litestream does not answer {path}: {error}") from None
        try:
            answer = msgspec.json.decode(reply.body, type=dict[str, Any])
        except msgspec.DecodeError:
            answer = {"error": reply.body[:200].decode("utf-8", "replace")}
        return Answer(reply.status, answer)
