"""The server's side of TLS connections: one transport between a stream and the HTTP core.

The HTTP core is told of a connection at its very start, so that its bound of connections and the
deadline of the first request's head cover the handshake too: who is silent in it is cut off in that
time. Handshakes under way have a bound of their own beside that. What does not become a handshake
(another protocol, an old version, no certificate in common) is counted by its kind and logged
nowhere: anybody on the network can send it.

**Which host a connection is for** (RFC 9110, section 15.5.20): who named a host (SNI) may ask for
this host only, who named none for the hosts of the default certificate. All else is answered 421 by
the HTTP core, before any handler sees it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from pbcluster.web.tls import contexts, names
from pbcluster.web.tls.directory import CertificateDirectory, Entry

#: Handshakes under way on one listener; each costs some 50 KiB. Further clients are closed at once.
MAX_HANDSHAKES = 4096
#: Tickets are good for a day at most: then their keys are forgotten.
TICKET_KEYS_S = 86_400.0

#: Words in OpenSSL's reason → kind of failure, the first that fits.
_KINDS = (
    ("http request", "plain_http"),
    ("https proxy request", "plain_http"),
    ("no application protocol", "alpn"),
    ("unsupported protocol", "version"),
    ("version", "version"),
    ("shared cipher", "no_certificate"),
    ("suitable signature", "no_certificate"),
    ("certificate", "certificate"),
    ("unknown ca", "certificate"),
)
#: All kinds, for metrics: ``timeout`` is cut off by us, ``gone`` left by itself, ``refused`` was
#: one too many.
FAILURES = (
    *dict.fromkeys(kind for _, kind in _KINDS),
    "timeout",
    "gone",
    "refused",
    "other",
)


class TLSServerProtocol(TLSMemoryBIOProtocol):
    """A connection of a :class:`TLSServerFactory`.

    :ivar server_name: the host that the client named, in its normal form; None: none.
    :ivar entry: the certificate that was chosen for it.
    """

    factory: TLSServerFactory
    server_name: str | None = None
    entry: Entry | None = None
    _under_way = False

    def makeConnection(self, transport: ITransport) -> None:
        """The stream is there; the handshake begins."""
        self._under_way = True
        self.factory.under_way += 1
        super().makeConnection(transport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ``ITCPTransport``; the stream below may be another one, a UNIX socket say."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(enabled)

    def handshake_over(self) -> Callable[[bytes], bool] | None:
        """The wrapped protocol says that the handshake is complete.

        :return: says whether a request for a host does not belong on this connection; None: all do.
        """
        self._over()
        self.factory.completed += 1
        return self._misdirected if self.factory.by_host else None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The stream is gone."""
        if self._under_way:
            self._over()
            self.factory.failures[self._kind(self._reason or reason)] += 1
        super().connectionLost(reason)

    def _over(self) -> None:
        if self._under_way:
            self._under_way = False
            self.factory.under_way -= 1

    def _kind(self, reason: Failure) -> str:
        if isinstance(reason.value, SSL.Error):
            text = contexts.reason(reason.value).lower()
            return next((kind for words, kind in _KINDS if words in text), "other")
        return "timeout" if reason.check(ConnectionAborted) else "gone"

    def _misdirected(self, host: bytes) -> bool:
        asked = host.decode("latin-1")
        if self.server_name is not None:
            return asked != self.server_name
        certificate = self.entry.certificate if self.entry is not None else None
        return certificate is None or not names.covers(certificate.names, asked)


class TLSServerFactory(TLSMemoryBIOFactory):
    """Puts TLS before the protocols of another factory.

    :ivar under_way: handshakes now. :ivar completed: since the start.
    :ivar failures: handshakes that came to nothing, by kind (:data:`FAILURES`).
    """

    protocol = TLSServerProtocol

    def __init__(
        self,
        creator: IOpenSSLServerConnectionCreator,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
        *,
        by_host: bool,
        max_handshakes: int = MAX_HANDSHAKES,
    ) -> None:
        """
        :param creator: makes OpenSSL's side of each connection.
        :param wrapped: of the HTTP core.
        :param by_host: whether a connection is for the host that its client named.
        """
        super().__init__(creator, False, wrapped, clock)
        self.by_host = by_host
        self.under_way = 0
        self.completed = 0
        self.failures: Counter[str] = Counter()
        self._max_handshakes = max_handshakes

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection; None, which closes it, if too many are in their handshake."""
        if self.under_way >= self._max_handshakes:
            self.failures["refused"] += 1
            return None
        return super().buildProtocol(addr)


@implementer(IOpenSSLServerConnectionCreator)
class ByName:
    """OpenSSL's side of connections whose certificate is chosen by the client's SNI."""

    def __init__(self, directory: CertificateDirectory, clock: IReactorTime) -> None:
        self._directory = directory
        self._clock = clock
        self._context: SSL.Context | None = None
        self._until = 0.0

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See ``IOpenSSLServerConnectionCreator``."""
        now = self._clock.seconds()
        if self._context is None or now >= self._until:
            self._context = contexts.listener(self._choose)
            self._until = now + TICKET_KEYS_S
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        return connection

    def _choose(self, connection: SSL.Connection) -> None:
        protocol: TLSServerProtocol = connection.get_app_data()
        named = connection.get_servername()
        if named is not None:
            protocol.server_name = names.normal(named.decode("latin-1"))
        entry = protocol.entry = self._directory.choose(protocol.server_name)
        if entry is not None and entry.context is not None:
            connection.set_context(entry.context)


def tls_factory(
    directory: CertificateDirectory, wrapped: IProtocolFactory, clock: IReactorTime
) -> TLSServerFactory:
    """TLS with the certificates of a directory before ``wrapped``."""
    return TLSServerFactory(ByName(directory, clock), wrapped, clock, by_host=True)
