"""Litestream's control socket: HTTP/1.1 and JSON over a UNIX socket, on kept connections.

A call that takes too long fails here but is not cut off: Litestream goes on with it, and only its
answer is dropped. So the number of calls under way is bounded, by number and by database.
"""

from __future__ import annotations

import contextlib
from io import BytesIO
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import (
    URI,
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    _HTTP11ClientFactory,
    readBody,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pbcluster.errors import S3Unavailable

#: Kept open when idle: about as many as syncs run at once on a busy node.
MAX_IDLE_CONNECTIONS = 32
#: Calls under way; each holds a connection. Twice the tenants a node has by default.
MAX_CALLS = 512
#: Connecting to a UNIX socket is immediate or the daemon hangs.
CONNECT_TIMEOUT_S = 2.0
_HEADERS = Headers({"Content-Type": ["application/json"]})


@attrs.frozen
class Answer:
    """:ivar status: of HTTP. :ivar body: the JSON object."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """What it says went wrong."""
        return str(self.body.get("error", f"status {self.status}"))


class _QuietFactory(_HTTP11ClientFactory):
    """Without two log lines for each connection."""

    noisy = False


@implementer(IAgentEndpointFactory)
class _OneSocket:
    """Whatever the URL says, the same socket."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See ``IAgentEndpointFactory``."""
        return UNIXClientEndpoint(self._reactor, self._path, timeout=CONNECT_TIMEOUT_S)


class LitestreamClient:
    """Talks to one daemon; make a new one for a new daemon."""

    def __init__(self, reactor: Any, socket_path: str) -> None:
        """
        :param reactor: ``IReactorUNIX`` and ``IReactorTime``.
        """
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = MAX_IDLE_CONNECTIONS
        # A POST must never be sent twice by itself.
        self._pool.retryAutomatically = False
        self._pool._factory = _QuietFactory
        self._agent = Agent.usingEndpointFactory(
            reactor, _OneSocket(reactor, socket_path), self._pool
        )
        self._calls = 0

    @property
    def calls(self) -> int:
        """Calls under way, those whose caller gave up included."""
        return self._calls

    async def close(self) -> None:
        """Close the kept connections."""
        with contextlib.suppress(Exception):
            await self._pool.closeCachedConnections()

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
        method = b"GET" if body is None else b"POST"
        content = msgspec.json.encode(body) if body is not None else None
        producer = FileBodyProducer(BytesIO(content)) if content is not None else None
        url = f"http://litestream{path}".encode()
        try:
            response = await self._agent.request(method, url, _HEADERS, producer)
            text = await readBody(response)
        except Exception as error:
            raise S3Unavailable(
                f"Litestream does not answer {path}: {type(error).__name__}"
            ) from None
        try:
            answer = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            answer = {"error": text[:200].decode("utf-8", "replace")}
        return Answer(response.code, answer)
