"""The same streams as over TCP, by TLS: bounded memory, whole bodies, broken ends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pbcluster.web.tls.directory import CertificateDirectory
from pbcluster.web.tls.server import tls_factory
from pbcluster.web.tls.watch import in_threads_of
from tests.web import test_loopback
from tests.web.pki import put, site
from tests.web.test_loopback import Peer

reactor: Any = _reactor
#: As ``corpus.get`` and ``post`` have it.
HOST = "a.localhost"


@implementer(IOpenSSLClientConnectionCreator)
class Named:
    """A client that names the host and trusts anybody."""

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        connection.set_tlsext_host_name(HOST.encode())
        return connection


class TLSLoopback(test_loopback.Loopback):
    """Every test of the plain case, with TLS between client and server."""

    def setUp(self) -> None:
        super().setUp()
        path = Path(self.mktemp())
        path.mkdir()
        put(path, "shop", site(HOST))
        directory = CertificateDirectory(path, lambda: datetime.now(UTC), in_threads_of(reactor))
        directory.load()
        plain = self.port
        self.addCleanup(lambda: maybeDeferred(plain.stopListening))
        wrapped = tls_factory(directory, self.factory, reactor)
        self.port = reactor.listenTCP(0, wrapped, interface="127.0.0.1")

    async def client(self) -> Peer:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        inner = Factory.forProtocol(Peer)
        tls: Any = await endpoint.connect(TLSMemoryBIOFactory(Named(), True, inner, reactor))
        peer: Peer = tls.wrappedProtocol
        self.peers.append(peer)
        return peer


del test_loopback
