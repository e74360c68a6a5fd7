"""Asking a node for its health: ``GET /healthz`` at its front door, unsigned, 200 is well.

A connection of its own each time: that one can be made is half of the answer. Bounded by its
timeout and by what is read of the answer. A node that speaks TLS must prove here, too, who it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pbcluster.errors import Unavailable
from pbcluster.gateway.forwarding import NodeTLS, node_at
from pbcluster.web.pool import SecureEndpointMaker
from pbcluster.web.streams import EndpointMaker

_WELL = b"HTTP/1.1 200 "


class _Question(Protocol):
    """Sends the question; :attr:`answer` fires with whether the node is well."""

    def __init__(self, host: bytes) -> None:
        self.answer: Deferred[bool] = Deferred()
        self._host = host
        self._received = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(
            b"GET /healthz HTTP/1.1\r\nHost: " + self._host + b"\r\nConnection: close\r\n\r\n"
        )

    def dataReceived(self, data: bytes) -> None:
        self._received += data[: len(_WELL)]
        if len(self._received) >= len(_WELL):
            self._end(self._received.startswith(_WELL))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(False)

    def _end(self, well: bool) -> None:
        if not self.answer.called:
            self.answer.callback(well)


def ask_health(
    clock: IReactorTime,
    endpoints: EndpointMaker,
    secure: SecureEndpointMaker | None = None,
    node_tls: NodeTLS = NodeTLS.OFF,
) -> Callable[[str, str, float], Awaitable[bool]]:
    """The ``HealthQuestion`` over real connections."""

    async def ask(node_id: str, address: str, timeout_s: float) -> bool:
        try:
            host, port, identity = node_at(address, node_id, node_tls)
        except Unavailable:
            return False
        question = _Question(host.encode("ascii", "replace"))
        factory = Factory.forProtocol(lambda: question)
        factory.noisy = False
        if identity and secure is not None:
            endpoint = secure(identity, host, port, timeout_s)
        else:
            endpoint = endpoints(host, port, timeout_s)
        connecting = endpoint.connect(factory)
        connecting.addErrback(lambda failure: question.connectionLost())
        expired = clock.callLater(timeout_s, question.connectionLost)
        well = await question.answer
        if expired.active():
            expired.cancel()
        connecting.cancel()
        if question.transport is not None:
            question.transport.abortConnection()  # type: ignore[attr-defined]
        return well

    return ask
