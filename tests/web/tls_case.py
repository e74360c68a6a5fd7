"""A TLS listener on a real socket, and clients of the ``ssl`` module in threads."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pbcluster.web.interfaces import Exchange, RequestHead
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.tls.directory import CertificateDirectory
from pbcluster.web.tls.server import ByName, TLSServerFactory
from pbcluster.web.tls.watch import in_threads_of
from tests.web.pki import client_context

reactor: Any = _reactor
TIMEOUT_S = 20.0


@attrs.frozen
class Answer:
    """One response."""

    status: int
    head: bytes
    body: bytes


class Client:
    """One TLS connection that blocks: use it in a thread."""

    def __init__(
        self, port: int, server_name: str | None, context: ssl.SSLContext | None = None, **more: Any
    ) -> None:
        """:raises ssl.SSLError, OSError: as the handshake fails."""
        if context is None:
            context = client_context()
        if server_name is None:
            context.check_hostname = False
        raw = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        try:
            self.tls = context.wrap_socket(raw, server_hostname=server_name, **more)
        except BaseException:
            raw.close()
            raise

    def ask(self, host: str, line: str = "GET / HTTP/1.1", more: bytes = b"") -> Answer:
        self.tls.sendall(f"{line}\r\nHost: {host}\r\n".encode() + (more or b"\r\n"))
        return self.answer()

    def answer(self) -> Answer:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.tls.recv(65536)
            if not piece:
                raise EOFError(data)
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for row in head.lower().split(b"\r\n"):
            if row.startswith(b"content-length:"):
                length = int(row.partition(b":")[2])
        while len(body) < length:
            body += self.tls.recv(65536)
        return Answer(int(head.split(b" ")[1]), head, body)

    def at_end(self) -> bool:
        """Whether the server ended the connection in order."""
        return self.tls.recv(1) == b""

    @property
    def names(self) -> set[str]:
        """Names of the certificate that was shown."""
        shown: Any = self.tls.getpeercert()
        return {name for _, name in shown["subjectAltName"]}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.tls.close()


def until(happened: Callable[[], bool]) -> Deferred[None]:
    """Fires once ``happened()``; the test's own timeout bounds it."""

    async def wait() -> None:
        while not happened():
            await deferLater(reactor, 0.005)

    return Deferred.fromCoroutine(wait())


class ListenerCase(TestCase):
    """``self.path`` is the directory of certificates; :meth:`listen` begins."""

    timeout = 60
    limits = Limits()

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.heads: list[RequestHead] = []
        self.clients: list[Client] = []

    def handle(self, exchange: Exchange) -> None:
        self.heads.append(exchange.head)
        exchange.respond(200, b"hello")

    def listen(self) -> None:
        self.directory = CertificateDirectory(
            self.path, lambda: datetime.now(UTC), in_threads_of(reactor)
        )
        self.directory.load()
        self.pool = UpstreamPool(reactor, tcp_endpoints(reactor))
        self.http = HTTPServerFactory(self.handle, self.limits, reactor, pool=self.pool)
        self.creator = ByName(self.directory, reactor)
        self.tls = TLSServerFactory(self.creator, self.http, reactor, by_host=True)
        self.port: IListeningPort = reactor.listenTCP(0, self.tls, interface="127.0.0.1")
        self.addCleanup(self.end)

    async def end(self) -> None:
        for client in self.clients:
            client.close()
        await maybeDeferred(self.port.stopListening)
        self.http.abort_all()
        await self.http.drain(1.0)
        await until(lambda: self.tls.under_way == 0)
        self.assertEqual(self.http.connection_count, 0)

    @property
    def number(self) -> int:
        host: Any = self.port.getHost()
        return int(host.port)

    def client(self, server_name: str | None, *args: Any, **more: Any) -> Deferred[Client]:
        def connect() -> Client:
            self.clients.append(Client(self.number, server_name, *args, **more))
            return self.clients[-1]

        return deferToThread(connect)

    def raw(self) -> socket.socket:
        """A connection without TLS."""
        made = socket.create_connection(("127.0.0.1", self.number), TIMEOUT_S)
        self.addCleanup(made.close)
        return made

    async def get(self, server_name: str | None, host: str, **more: Any) -> Answer:
        client = await self.client(server_name, **more)
        return await deferToThread(client.ask, host)
