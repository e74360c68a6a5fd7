"""What the HTTP core expects of its streams; holds for all of them alike.

Each reactor's own are tested, and beside them those that work on any: Twisted's as they are, and
Twisted's over an epoll of their own. The suite runs with the reactor of the services, which has
libuv's, and with Twisted's default one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pbcluster.errors import LocalProtocolError
from pbcluster.web.epoll.transports import EpollTCP
from pbcluster.web.limits import HIGH_WATER_BYTES
from pbcluster.web.listening import bind_alone
from pbcluster.web.stream_protocol import StreamProtocol
from pbcluster.web.streams import Streams, TwistedStreams, listen_alone, streams_of

LARGE = b"x" * (64 * HIGH_WATER_BYTES)


class Side(Protocol):
    """One side of a connection; what happens to it is kept in order."""

    transport: Any

    def __init__(self) -> None:
        self.made: Deferred[Side] = Deferred()
        self.lost: Deferred[Exception] = Deferred()
        self.seen = b""
        self.inside = False
        self.producing: list[str] = []
        #: Called with what comes.
        self.then: Callable[[bytes], None] = lambda data: None
        self._wanted = 0
        self._waiting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.seen += data
        if data:
            self.then(data)
        if self._waiting is not None and len(self.seen) >= self._wanted:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        assert not self.inside, "told inside a call of our own"
        self.lost.callback(reason.value)

    def pauseProducing(self) -> None:
        self.producing.append("pause")

    def resumeProducing(self) -> None:
        self.producing.append("resume")

    def stopProducing(self) -> None: ...

    def has(self, size: int) -> Deferred[None]:
        """Fires when so many bytes came."""
        self._wanted = size
        self._waiting = waiting = Deferred()
        self.dataReceived(b"")
        return waiting


async def end(port: Any, sides: list[Side]) -> None:
    """Listen no more, and end all connections."""
    await maybeDeferred(port.stopListening)
    for side in sides:
        if side.made.called and not side.lost.called:
            side.transport.abortConnection()
            await side.lost


class StreamTests(TestCase):
    """On those that the services use with this reactor."""

    timeout = 30

    def make_streams(self) -> Streams:
        return streams_of(reactor)

    def setUp(self) -> None:
        self.streams = self.make_streams()
        self.accepted = Side()
        factory = Factory.forProtocol(lambda: self.accepted)
        self.port: Any = listen_alone(self.streams, "127.0.0.1", 0, factory)
        self.sides: list[Side] = [self.accepted]

    async def tearDown(self) -> None:
        await end(self.port, self.sides)

    async def pair(self) -> tuple[Side, Side]:
        """(who connected, who was connected to)."""
        endpoint = self.streams.endpoint("127.0.0.1", self.port.getHost().port, 5.0)
        client: Any = await endpoint.connect(Factory.forProtocol(Side))
        self.sides.append(client)
        return client, await self.accepted.made

    async def test_bytes_both_ways(self) -> None:
        """What is written on one side comes to the other, whole and in order."""
        client, server = await self.pair()
        client.transport.write(b"a")
        client.transport.writeSequence([b"b", b"c"])
        server.transport.write(LARGE)
        await server.has(3)
        await client.has(len(LARGE))
        self.assertEqual((server.seen, client.seen), (b"abc", LARGE))
        self.assertEqual(client.transport.getPeer().port, self.port.getHost().port)
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())

    async def test_lose_connection_sends_first(self) -> None:
        """What was written before the end arrives; both sides see an orderly end, from outside."""
        client, server = await self.pair()
        server.inside = True
        server.transport.write(LARGE)
        server.transport.loseConnection()
        server.inside = False
        self.assertIsInstance(await client.lost, ConnectionDone)
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(client.seen, LARGE)

    async def test_abort_is_a_reset(self) -> None:
        """The other side cannot take an abort for an orderly end; neither can we."""
        client, server = await self.pair()
        server.inside = True
        server.transport.write(b"torn")
        server.transport.abortConnection()
        server.transport.abortConnection()
        server.transport.write(b"nothing")
        server.inside = False
        self.assertNotIsInstance(await client.lost, ConnectionDone)
        self.assertNotIsInstance(await server.lost, ConnectionDone)

    async def test_lose_write_connection(self) -> None:
        """The sending side alone is closed: what the other sends still comes."""
        client, server = await self.pair()
        server.transport.write(b"last")
        server.transport.loseWriteConnection()
        self.assertIsInstance(await client.lost, ConnectionDone)
        self.assertEqual(client.seen, b"last")
        await server.lost

    async def test_slow_reader(self) -> None:
        """A producer is paused while its peer does not read, and resumed when it does."""
        client, server = await self.pair()
        server.transport.registerProducer(server, True)
        client.transport.pauseProducing()
        while "pause" not in server.producing:
            server.transport.write(LARGE)
            await deferLater(reactor, 0)
        self.assertEqual(server.producing, ["pause"])
        client.transport.resumeProducing()
        while "resume" not in server.producing:
            await deferLater(reactor, 0.001)
        self.assertEqual(server.producing, ["pause", "resume"])
        server.transport.unregisterProducer()

    async def test_paused_within_the_call(self) -> None:
        """Who writes too much knows it when the call is over, also in the middle of reading."""
        client, server = await self.pair()
        within: list[str] = []

        def received(data: bytes) -> None:
            server.transport.registerProducer(server, True)
            server.transport.write(4 * LARGE)
            within.extend(server.producing)

        server.then = received
        client.transport.write(b"?")
        await client.has(4 * len(LARGE))
        self.assertEqual(within, ["pause"])

    async def test_paused(self) -> None:
        """Nothing comes while reading is paused, all of it afterwards."""
        client, server = await self.pair()
        server.transport.pauseProducing()
        client.transport.write(b"later")
        await deferLater(reactor, 0.05)
        self.assertEqual(server.seen, b"")
        server.transport.resumeProducing()
        await server.has(5)

    async def test_socket_options(self) -> None:
        """The socket takes options."""
        client, _ = await self.pair()
        handle = client.transport.getHandle()
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)

    async def test_refused(self) -> None:
        """Nobody listens there."""
        free = bind_alone("127.0.0.1", 0)
        port = free.getsockname()[1]
        free.close()
        connecting = self.streams.endpoint("127.0.0.1", port, 5.0).connect(
            Factory.forProtocol(Side)
        )
        await self.assertFailure(connecting, ConnectError)

    async def test_no_answer_in_time(self) -> None:
        """A connection that does not come in time fails with TimeoutError."""
        full = bind_alone("127.0.0.1", 0, backlog=0)
        self.addCleanup(full.close)
        others = []
        for _ in range(8):  # a queue that is full answers nobody
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(full.getsockname())
            others.append(other)
            self.addCleanup(other.close)
        connecting = self.streams.endpoint("127.0.0.1", full.getsockname()[1], 0.2).connect(
            Factory.forProtocol(Side)
        )
        await self.assertFailure(connecting, ConnectTimeoutError)

    async def test_cancelled(self) -> None:
        """A connection that is not wanted any more is not made."""
        endpoint = self.streams.endpoint("127.0.0.1", self.port.getHost().port, 5.0)
        connecting = endpoint.connect(Factory.forProtocol(Side))
        connecting.cancel()
        await self.assertFailure(connecting, CancelledError, ConnectingCancelledError)

    async def test_stop_listening(self) -> None:
        """After it stopped nobody is let in; connections that are there stay; twice is once."""
        client, server = await self.pair()
        address = self.port.getHost()
        await self.port.stopListening()
        await maybeDeferred(self.port.stopListening)
        with socket.socket() as late:
            self.assertNotEqual(late.connect_ex((address.host, address.port)), 0)
        client.transport.write(b"still")
        await server.has(5)

    async def test_stopped_before_it_began(self) -> None:
        """A port that is stopped in the turn in which it began lets go of its socket."""
        port: Any = listen_alone(self.streams, "127.0.0.1", 0, Factory.forProtocol(Side))
        where = port.getHost().port
        await port.stopListening()
        bind_alone("127.0.0.1", where).close()

    def test_port_in_use(self) -> None:
        """An address that cannot be had is told at once."""
        with self.assertRaises(CannotListenError):
            bind_alone("127.0.0.1", self.port.getHost().port)

    async def test_factory_without_a_protocol(self) -> None:
        """A factory may refuse a connection: it is closed."""
        factory = Factory()
        factory.buildProtocol = lambda addr: None  # type: ignore[method-assign,assignment]
        port: Any = listen_alone(self.streams, "127.0.0.1", 0, factory)
        endpoint = self.streams.endpoint("127.0.0.1", port.getHost().port, 5.0)
        client: Any = await endpoint.connect(Factory.forProtocol(Side))
        self.assertIsInstance(await client.lost, (ConnectionLost, ConnectionDone))
        await port.stopListening()


class TwistedStreamTests(StreamTests):
    """On Twisted's as they are."""

    def make_streams(self) -> Streams:
        return TwistedStreams(reactor)


class EpollStreamTests(StreamTests):
    """On Twisted's over an epoll of their own."""

    def make_streams(self) -> Streams:
        return TwistedStreams(EpollTCP(reactor))


class UnconnectedTests(TestCase):
    def test_nothing_is_written_into_the_void(self) -> None:
        """Bytes for a connection that does not stand yet are an error, not lost."""
        self.assertRaises(LocalProtocolError, StreamProtocol()._send, b"x")
