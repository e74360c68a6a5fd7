"""Pairs of connections of Twisted's transports over an epoll of their own."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from pbcluster.web.epoll.transports import EpollTCP
from pbcluster.web.limits import HIGH_WATER_BYTES
from pbcluster.web.streams import TwistedStreams, listen_alone
from tests.web.test_streams import Side, end

LARGE = b"x" * (64 * HIGH_WATER_BYTES)


class Pulled:
    """A producer that is asked for each piece."""

    def __init__(self, side: Side, pieces: list[bytes]) -> None:
        self._side = side
        self._pieces = pieces

    def resumeProducing(self) -> None:
        if self._pieces:
            self._side.transport.write(self._pieces.pop(0))
        else:
            self._side.transport.unregisterProducer()
            self._side.transport.write(b"end")

    def stopProducing(self) -> None: ...


class SlowlyPulled(Pulled):
    """Its pieces come later."""

    def resumeProducing(self) -> None:
        cast(Any, reactor).callLater(0.001, super().resumeProducing)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Side):
    """Goes on when its peer has sent all."""

    def __init__(self) -> None:
        super().__init__()
        self.read_lost: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.read_lost.callback(None)

    def writeConnectionLost(self) -> None: ...


class EndsWhenHalfClosed(HalfCloseable):
    """Ends when its sending side is closed."""

    def writeConnectionLost(self) -> None:
        self.transport.loseConnection()


class Case(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.watching = EpollTCP(reactor)
        self.streams = TwistedStreams(self.watching)
        self.sides: list[Any] = []
        self.kind: type[Side] = Side
        self.port: Any = listen_alone(
            self.streams, "127.0.0.1", 0, Factory.forProtocol(self.accept)
        )
        self.accepting: list[Deferred[Side]] = []

    async def tearDown(self) -> None:
        await end(self.port, self.sides)

    def accept(self) -> Side:
        side = self.kind()
        self.sides.append(side)
        self.accepting.pop(0).callback(side)
        return side

    async def pair(self) -> tuple[Any, Any]:
        """(who connected, who was connected to)."""
        accepted: Deferred[Side] = Deferred()
        self.accepting.append(accepted)
        endpoint = self.streams.endpoint("127.0.0.1", self.port.getHost().port, 5.0)
        client: Any = await endpoint.connect(Factory.forProtocol(Side))
        self.sides.append(client)
        server = await accepted
        await server.made
        await deferLater(reactor, 0)  # not in the turn in which it was made
        return client, server

    def writing(self, side: Any) -> bool:
        """Whether its descriptor is watched for room to write: the long way."""
        return side.transport in self.watching.getWriters()
