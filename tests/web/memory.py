"""A server, its clients and its upstreams in memory, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from pbcluster.web.headers import end_to_end
from pbcluster.web.interfaces import Attempt, Exchange, Forward
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool
from pbcluster.web.replay import ReplayBudget
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.server_connection import HTTPServerConnection


class MemoryTransport(StringTransport):
    """Tells its protocol of the connection's end a moment later, as real transports do."""

    def __init__(self, clock: Clock, protocol: Any) -> None:
        super().__init__(lenient=True)
        self.clock = clock
        self.protocol = protocol
        self.aborted = False
        self.half_closed = False
        self.gone = False

    def take(self) -> bytes:
        """What was written since the last time."""
        value = self.value()
        self.clear()
        return value

    def write(self, data: bytes) -> None:
        if not self.gone and not self.aborted:
            super().write(data)

    def loseConnection(self) -> None:
        super().loseConnection()
        self.clock.callLater(0, self.end, ConnectionDone())

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.clock.callLater(0, self.end, ConnectionAborted())

    def end(self, error: Exception) -> None:
        """The connection is over for the protocol."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(error))


class Side:
    """The far end of a connection."""

    def __init__(self, clock: Clock, protocol: Any) -> None:
        self.protocol = protocol
        self.transport = MemoryTransport(clock, protocol)

    def send(self, data: bytes) -> None:
        if not self.transport.gone and not self.transport.aborted:
            self.protocol.dataReceived(data)

    def got(self) -> bytes:
        return self.transport.take()

    def close(self) -> None:
        self.transport.end(ConnectionDone())

    def reset(self) -> None:
        self.transport.end(ConnectionLost())

    @property
    def paused(self) -> bool:
        return self.transport.producerState == "paused"

    @property
    def aborted(self) -> bool:
        return self.transport.aborted


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, upstreams: Upstreams, key: tuple[str, int]) -> None:
        self.upstreams = upstreams
        self.key = key

    def connect(self, factory: Any) -> Deferred[Any]:
        self.cancelled = False

        def cancel(_: object) -> None:
            self.cancelled = True

        self.factory = factory
        self.connected: Deferred[Any] = Deferred(cancel)
        self.upstreams.connecting.append(self)
        return self.connected


class Upstreams:
    """Where the pool's connections go: the test accepts or refuses each."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.connecting: list[_Endpoint] = []

    def __call__(self, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
        return _Endpoint(self, (host, port))

    def accept(self) -> Side:
        """Let the oldest connection come about."""
        endpoint = self.connecting.pop(0)
        protocol = endpoint.factory.buildProtocol(None)
        side = Side(self.clock, protocol)
        protocol.makeConnection(side.transport)
        endpoint.connected.callback(protocol)
        return side

    def refuse(self, error: Exception) -> None:
        self.connecting.pop(0).connected.errback(error)


class Web:
    """The whole: ``handler`` gets each exchange; by default it forwards.

    :ivar exchanges: all that the handler got. :ivar attempts: results of all forwards.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        handler: Callable[[Exchange], None] | None = None,
        budget: ReplayBudget | None = None,
        **plan: Any,
    ) -> None:
        self.clock = Clock()
        self.upstreams = Upstreams(self.clock)
        self.pool = UpstreamPool(self.clock, self.upstreams)
        self.plan = plan
        self.exchanges: list[Exchange] = []
        self.attempts: list[Attempt] = []
        self.handler = handler or self.forward
        self.factory = HTTPServerFactory(
            self._handle, limits or Limits(), self.clock, pool=self.pool, replay=budget
        )

    def _handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.handler(exchange)

    def forward(self, exchange: Exchange) -> None:
        exchange.forward(self.plan_of(exchange), self.attempts.append)

    def plan_of(self, exchange: Exchange) -> Forward:
        head = exchange.head
        return Forward(
            host="192.0.2.7",
            port=80,
            method=head.method,
            target=head.target,
            headers=end_to_end(head.headers),
            **self.plan,
        )

    def client(self) -> Side:
        protocol: HTTPServerConnection = self.factory.buildProtocol(None)
        side = Side(self.clock, protocol)
        protocol.makeConnection(side.transport)
        return side

    def settle(self) -> None:
        """Let connections that were closed be gone."""
        self.clock.advance(0)

    def assert_nothing_left(self, test: Any) -> None:
        """Close everything: no timer, connection or kept byte may remain."""
        self.pool.close()
        self.factory.abort_all()
        self.clock.advance(0)
        self.clock.advance(0)
        test.assertEqual(self.factory.connection_count, 0)
        test.assertEqual(self.pool.idle_count, 0)
        test.assertEqual(self.factory.replay.used_bytes, 0)
        test.assertEqual([str(call) for call in self.clock.getDelayedCalls()], [])
