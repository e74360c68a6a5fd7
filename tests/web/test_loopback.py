"""The core over real sockets: large streams in bounded memory, broken ends, reused connections."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from pbcluster.web.headers import end_to_end
from pbcluster.web.interfaces import Attempt, Exchange, Forward, Outcome, ResponseHead
from pbcluster.web.libuv.transport import LibuvTransport
from pbcluster.web.limits import HIGH_WATER_BYTES, MIB, Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.streams import listen_alone, streams_of
from tests.web.corpus import get, post

LARGE = 50 * MIB
#: What the kernel's own socket buffers on a path of two connections may swallow.
KERNEL_BYTES = 24 * MIB
#: What uvloop reads at most at once. A send buffer just under its high water mark takes one more.
READ_BYTES = 256_000
BLOCK = bytes(range(256)) * 256
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Peer(Protocol):
    """One end of a connection under the test's control.

    :ivar seen: bytes that came (only their number and hash if ``counting``).
    """

    transport: Any

    def __init__(self) -> None:
        self.seen = b""
        self.counting = False
        self.count = 0
        self.hash = hashlib.sha256()
        self.ended: Deferred[Failure] = Deferred()
        self._wanted: Callable[[], bool] | None = None
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        if self.counting:
            self.count += len(data)
            self.hash.update(data)
        else:
            self.seen += data
        self.check()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.ended.callback(reason.value)

    def check(self) -> None:
        if self._waiting is not None and self._wanted is not None and self._wanted():
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def until(self, wanted: Callable[[], bool]) -> Deferred[None]:
        """Fires when ``wanted()`` is true after some bytes came."""
        self._wanted = wanted
        self._waiting = waiting = Deferred()
        self.check()
        return waiting

    def has(self, data: bytes) -> Deferred[None]:
        return self.until(lambda: data in self.seen)


@implementer(IPushProducer)
class Source:
    """Writes ``LARGE`` bytes as fast as its consumer takes them."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.sent = 0
        self.hash = hashlib.sha256()
        self.paused = False
        transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and self.sent < LARGE:
            self.sent += len(BLOCK)
            self.hash.update(BLOCK)
            self.transport.write(BLOCK)
        if self.sent >= LARGE:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.sent = LARGE


class Loopback(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.attempts: list[Attempt] = []
        self.plan: dict[str, Any] = {}
        self.upstreams: list[Peer] = []
        self.next_upstream: Deferred[Peer] = Deferred()
        factory = Factory()
        factory.buildProtocol = self.build_upstream  # type: ignore[method-assign]
        factory.noisy = False
        self.streams = streams_of(reactor)
        self.upstream_port: Any = listen_alone(self.streams, "127.0.0.1", 0, factory)
        self.pool = UpstreamPool(reactor, tcp_endpoints(reactor))
        self.factory = HTTPServerFactory(
            self.handle, Limits(max_body_bytes=2 * LARGE), reactor, pool=self.pool
        )
        self.port: Any = listen_alone(self.streams, "127.0.0.1", 0, self.factory)
        self.peers: list[Peer] = []

    async def tearDown(self) -> None:
        await self.port.stopListening()
        await self.upstream_port.stopListening()
        self.pool.close()
        await self.factory.drain(0.01)
        for peer in self.peers + self.upstreams:
            if not peer.ended.called:
                peer.transport.abortConnection()
                await peer.ended
        self.assertEqual(self.factory.replay.used_bytes, 0)

    def build_upstream(self, address: object) -> Peer:
        peer = Peer()
        self.upstreams.append(peer)
        waiting, self.next_upstream = self.next_upstream, Deferred()
        reactor.callLater(0, waiting.callback, peer)
        return peer

    def handle(self, exchange: Exchange) -> None:
        head = exchange.head
        plan = Forward(
            host="127.0.0.1",
            port=self.upstream_port.getHost().port,
            method=head.method,
            target=head.target,
            headers=end_to_end(head.headers),
            **self.plan,
        )
        exchange.forward(plan, self.attempts.append)

    async def client(self) -> Peer:
        endpoint = self.streams.endpoint("127.0.0.1", self.port.getHost().port, 5.0)
        peer: Any = await endpoint.connect(Factory.forProtocol(Peer))
        self.peers.append(peer)
        return peer

    async def forwarded(self, raw: bytes) -> tuple[Peer, Peer]:
        """(client, upstream) of a request whose head has reached the upstream."""
        waiting = self.next_upstream
        client = await self.client()
        client.transport.write(raw)
        upstream = await waiting
        await upstream.has(b"\r\n\r\n")
        return client, upstream

    def buffered(self) -> int:
        """Bytes waiting in our own send buffers."""
        held = 0
        for connection in self.factory._connections:
            transport = connection.transport
            if isinstance(transport, LibuvTransport):
                held += transport._stream.get_write_buffer_size()
            else:
                held += len(transport.dataBuffer) + transport._tempDataLen
        return held

    async def test_large_download_to_a_slow_reader(self) -> None:
        """50 MB come down unchanged; while the reader sleeps, its source is stopped early."""
        client, upstream = await self.forwarded(get())
        client.transport.pauseProducing()
        upstream.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        source = Source(upstream.transport)
        await self.settled(lambda: source.sent)
        self.assertTrue(source.paused)
        self.assertLess(source.sent, KERNEL_BYTES)
        self.assertLess(self.buffered(), HIGH_WATER_BYTES + READ_BYTES)
        client.transport.resumeProducing()
        await client.has(b"\r\n\r\n")
        start = client.seen.partition(b"\r\n\r\n")[2]
        client.count = len(start)
        client.hash.update(start)
        client.counting = True
        await client.until(lambda: client.count >= LARGE)
        self.assertEqual(client.count, LARGE)
        self.assertEqual(client.hash.digest(), source.hash.digest())
        self.assertEqual(self.attempts[0].outcome, Outcome.COMPLETED)
        self.assertEqual(self.attempts[0].response_bytes, LARGE)

    async def test_large_upload_to_a_slow_upstream(self) -> None:
        """50 MB go up unchanged; while the upstream sleeps, the client is stopped early."""
        client, upstream = await self.forwarded(post(b"Content-Length: %d" % LARGE))
        start = upstream.seen.partition(b"\r\n\r\n")[2]
        upstream.count = len(start)
        upstream.hash.update(start)
        upstream.counting = True
        upstream.transport.pauseProducing()
        source = Source(client.transport)
        await self.settled(lambda: source.sent)
        self.assertTrue(source.paused)
        self.assertLess(source.sent, KERNEL_BYTES)
        upstream.transport.resumeProducing()
        await upstream.until(lambda: upstream.count >= LARGE)
        self.assertEqual(upstream.hash.digest(), source.hash.digest())
        upstream.transport.write(OK)
        await client.has(b"hello")
        self.assertEqual(self.attempts[0].request_bytes, LARGE)

    async def settled(self, figure: Callable[[], int]) -> None:
        """Wait until ``figure`` has stood still for a fifth of a second."""
        before = -1
        while figure() != before:
            before = figure()
            waiting: Deferred[None] = Deferred()
            reactor.callLater(0.2, waiting.callback, None)
            await waiting

    async def test_events_arrive_before_the_end(self) -> None:
        """The first event of a stream is with the client while the stream goes on."""
        client, upstream = await self.forwarded(get(b"Accept: text/event-stream"))
        upstream.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
        )
        await client.has(b"data: 1\n\n")
        self.assertEqual(self.attempts, [])
        client.transport.abortConnection()
        error = await upstream.ended
        self.assertIsInstance(error, Exception)
        self.assertEqual(self.attempts[0].outcome, Outcome.CLIENT_GONE)

    async def test_upstream_dies_in_mid_body(self) -> None:
        """The client's connection ends by a reset, chunked or not, never cleanly."""
        for head in (b"Content-Length: 100", b"Transfer-Encoding: chunked"):
            client, upstream = await self.forwarded(get())
            upstream.transport.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n5\r\nhello\r\n")
            await client.has(b"hello")
            upstream.transport.loseConnection()
            error = await client.ended
            self.assertNotIsInstance(error, ConnectionDone)
            self.assertFalse(client.seen.endswith(b"0\r\n\r\n"))
            self.assertEqual(self.attempts.pop().outcome, Outcome.BROKEN)

    async def test_an_aborted_upload_never_looks_whole(self) -> None:
        """A client that goes in mid-upload cuts the upstream's connection."""
        client, upstream = await self.forwarded(post(b"Transfer-Encoding: chunked"))
        client.transport.write(b"5\r\nhello\r\n")
        await upstream.has(b"hello")
        client.transport.loseConnection()
        error = await upstream.ended
        self.assertNotIsInstance(error, ConnectionDone)
        self.assertNotIn(b"\r\n0\r\n", upstream.seen)

    async def test_a_gate_holds(self) -> None:
        """Nothing reaches the client before the gate opens."""
        gate: Deferred[ResponseHead] = Deferred()
        asked: Deferred[ResponseHead] = Deferred()

        def on_response(head: ResponseHead) -> Deferred[ResponseHead]:
            reactor.callLater(0, asked.callback, head)
            return gate

        self.plan = {"on_response": on_response}
        client, upstream = await self.forwarded(post(b"Content-Length: 1", body=b"x"))
        upstream.transport.write(OK)
        head = await asked
        self.assertEqual(client.seen, b"")
        gate.callback(head)
        await client.has(OK)

    async def test_one_upstream_connection_for_many_requests(self) -> None:
        """Requests of several clients, one after the other, share one upstream connection."""
        client, upstream = await self.forwarded(get())
        upstream.transport.write(OK)
        await client.has(OK)
        for _ in range(5):
            client = await self.client()
            client.transport.write(get())
            upstream.seen = b""
            await upstream.has(b"\r\n\r\n")
            upstream.transport.write(OK)
            await client.has(OK)
        self.assertEqual((self.pool.made, self.pool.reused), (1, 5))

    async def test_a_post_does_not_meet_a_stale_connection(self) -> None:
        """An idle connection whose end waits unread in the kernel is noticed before its use."""
        client, upstream = await self.forwarded(get())
        upstream.transport.write(OK)
        await client.has(OK)
        # Closed behind the reactor's back, in the same turn in which the pool is asked.
        with socket.socket(fileno=os.dup(upstream.transport.getHandle().fileno())) as handle:
            handle.shutdown(socket.SHUT_WR)
        key = ("127.0.0.1", self.upstream_port.getHost().port)
        self.assertEqual(self.pool.idle_count, 1)
        self.assertIsNone(self.pool.take(*key))
        waiting = self.next_upstream
        client.transport.write(post(b"Content-Length: 4", body=b"once"))
        fresh = await waiting
        await fresh.has(b"once")
        fresh.transport.write(OK)
        await client.until(lambda: client.seen.count(OK) == 2)
        self.assertNotIn(b"once", upstream.seen)
        self.assertEqual(fresh.seen.count(b"POST"), 1)

    async def test_refused_connection(self) -> None:
        """A port on which nobody listens gives NOT_SENT, soon."""
        self.plan = {}
        done: Deferred[Attempt] = Deferred()
        unused = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = unused.getHost().port
        await unused.stopListening()

        def handle(exchange: Exchange) -> None:
            plan = Forward(host="127.0.0.1", port=port, method=b"GET", target=b"/", headers=[])

            def over(attempt: Attempt) -> None:
                exchange.respond(503, b"{}")
                done.callback(attempt)

            exchange.forward(plan, over)

        self.factory.handler = handle
        client = await self.client()
        client.transport.write(get())
        attempt = await done
        self.assertEqual((attempt.outcome, attempt.repeatable), (Outcome.NOT_SENT, True))
        await client.has(b"HTTP/1.1 503 ")

    async def test_a_refusal_is_seen_by_a_client_that_still_sends(self) -> None:
        """413 arrives although the client goes on sending: its bytes are dropped, not reset."""
        self.factory.limits = Limits(max_body_bytes=1000)
        client = await self.client()
        client.transport.write(post(b"Content-Length: 8000000", body=b"x" * 4 * MIB))
        await client.has(b"HTTP/1.1 413 ")
        error = await client.ended
        self.assertIsInstance(error, ConnectionDone)
