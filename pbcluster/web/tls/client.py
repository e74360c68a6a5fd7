"""Connections to a server that must prove who it is: a gateway's, to nodes.

A connection counts as made only when the handshake is over and the server's certificate names the
one that was meant (verified by service-identity). So nothing is sent to anybody else, and whoever
asked for the connection knows that nothing was: the request may go elsewhere. All of it happens
within one timeout.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import service_identity
from OpenSSL import SSL
from service_identity.pyopenssl import verify_hostname
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, TimeoutError
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from pbcluster.web.pool import SecureEndpointMaker
from pbcluster.web.tls import contexts
from pbcluster.web.tls.mutual import MutualTLS


class NotVerified(ConnectError):
    """The server is not the one that was meant, or did not want us."""


class _ClientProtocol(TLSMemoryBIOProtocol):
    """TLS over a stream. Its handle is the stream's own: the pool looks there for the end of an
    idle connection."""

    def getHandle(self) -> Any:
        return self.transport.getHandle()  # type: ignore[union-attr]

    def verify(self, identity: str) -> None:
        """:raises service_identity.VerificationError, service_identity.CertificateError:"""
        verify_hostname(self._tlsConnection, identity)


class _ClientFactory(TLSMemoryBIOFactory):
    protocol = _ClientProtocol


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Stands where the real protocol will when the server is known."""

    transport: Any

    def __init__(self, identity: str, real: IProtocolFactory, address: Any) -> None:
        self.done: Deferred[Any] = Deferred(self._cancelled)
        self._identity = identity
        self._real = real
        self._address = address

    def handshakeCompleted(self) -> None:
        tls = self.transport
        try:
            tls.verify(self._identity)
        except (service_identity.VerificationError, service_identity.CertificateError):
            self._fail(NotVerified(string=f"the server is not {self._identity}"))
            return
        real = self._real.buildProtocol(self._address)
        if real is None:
            self._fail(ConnectError(string="nobody wants the connection"))
            return
        tls.wrappedProtocol = real
        real.makeConnection(tls)
        if not self.done.called:
            self.done.callback(real)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if isinstance(reason.value, SSL.Error):
            said = contexts.reason(reason.value)
            self._fail(NotVerified(string=f"TLS with {self._identity} failed: {said}"))
        else:
            self._fail(ConnectError(string=f"the handshake broke off: {reason.getErrorMessage()}"))

    def expired(self) -> None:
        """The time is over."""
        self._fail(TimeoutError(string="no handshake in time"))

    def _fail(self, error: Exception) -> None:
        if self.done.called:
            return
        if self.transport is not None:
            self.transport.abortConnection()
        self.done.errback(error)

    def _cancelled(self, _: Deferred[Any]) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


@implementer(IStreamClientEndpoint)
class VerifiedEndpoint:
    """Connects to a server by TLS and verifies its name. See the module."""

    def __init__(
        self,
        reactor: Any,
        stream: IStreamClientEndpoint,
        creator: IOpenSSLClientConnectionCreator,
        identity: str,
        timeout_s: float,
        failures: Counter[str],
    ) -> None:
        """
        :param stream: the way to the server. :param identity: the DNS name that it must prove.
        :param timeout_s: for the connection and the handshake together.
        :param failures: counts ``not_verified`` and ``timeout``.
        """
        self._reactor = reactor
        self._stream = stream
        self._creator = creator
        self._identity = identity
        self._timeout_s = timeout_s
        self._failures = failures

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See ``IStreamClientEndpoint``."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, real: IProtocolFactory) -> Any:
        until = self._reactor.seconds() + self._timeout_s
        waiting: list[_Handshake] = []

        def build(address: Any) -> _Handshake:
            waiting.append(_Handshake(self._identity, real, address))
            return waiting[-1]

        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = build  # type: ignore[method-assign,assignment]
        await self._stream.connect(_ClientFactory(self._creator, True, factory, self._reactor))
        (handshake,) = waiting
        done = handshake.done
        left = max(0.0, until - self._reactor.seconds())
        expired = self._reactor.callLater(left, handshake.expired)
        try:
            return await done
        except NotVerified:
            self._failures["not_verified"] += 1
            raise
        except TimeoutError:
            self._failures["timeout"] += 1
            raise
        finally:
            if expired.active():
                expired.cancel()


def verified_endpoints(
    reactor: Any, mutual: MutualTLS, failures: Counter[str]
) -> SecureEndpointMaker:
    """Endpoints over the reactor's own TCP transports, with a process's certificate.

    :param reactor: provides IReactorTCP and IReactorTime.
    """

    def make(identity: str, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        stream = kind(reactor, host, port, timeout=timeout_s)
        return VerifiedEndpoint(reactor, stream, mutual, identity, timeout_s, failures)

    return make
