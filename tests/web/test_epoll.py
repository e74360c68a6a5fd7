"""Twisted's transports over an epoll of their own: the short way, the long one, and the change
between them. What holds for all streams is in ``test_streams``."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pbcluster.web.epoll.shortcut import READ_BYTES, Shortcut
from pbcluster.web.stream_protocol import StreamProtocol
from pbcluster.web.streams import listen_alone
from tests.web.epoll_case import (
    LARGE,
    Case,
    HalfCloseable,
    Pulled,
    SlowlyPulled,
)
from tests.web.pki import site


class ShortWayTests(Case):
    async def test_at_once(self) -> None:
        """What the kernel takes is sent when it is written: the peer has it in the same turn."""
        client, server = await self.pair()
        client.transport.write(b"now")
        self.assertFalse(self.writing(client))
        handle = server.transport.getHandle()
        self.assertEqual(handle.recv(10, socket.MSG_PEEK), b"now")

    async def test_order(self) -> None:
        """What does not fit waits, and whatever is written meanwhile comes behind it."""
        client, server = await self.pair()
        server.transport.pauseProducing()
        sent = LARGE
        client.transport.write(LARGE)
        self.assertTrue(self.writing(client))
        for n in range(50):
            client.transport.write(b"<%d>" % n)
            client.transport.writeSequence([b"[", b"%d" % n, b"]"])
            sent += b"<%d>[%d]" % (n, n)
        server.transport.resumeProducing()
        await server.has(len(sent))
        self.assertEqual(server.seen, sent)

    async def test_order_while_it_drains(self) -> None:
        """The same when the kernel takes some of what waited, and would take more."""
        client, server = await self.pair()
        server.transport.pauseProducing()
        client.transport.write(4 * LARGE)
        handle, read = server.transport.getHandle(), b""
        while len(read) < client.transport.SEND_LIMIT * 2:
            with contextlib.suppress(BlockingIOError):
                read += handle.recv(READ_BYTES)
        client.transport.doWrite()
        client.transport.write(b"last")
        server.transport.resumeProducing()
        await server.has(4 * len(LARGE) + 4 - len(read))
        self.assertEqual(read + server.seen, 4 * LARGE + b"last")

    async def test_order_of_sequences(self) -> None:
        """Pieces that are sent together are sent at once, too."""
        client, server = await self.pair()
        client.transport.writeSequence([b"a", b"b"])
        client.transport.write(b"c")
        await server.has(3)
        self.assertEqual(server.seen, b"abc")

    async def test_short_again(self) -> None:
        """When all that waited is sent, the short way is open again."""
        client, server = await self.pair()
        client.transport.write(LARGE)
        self.assertTrue(self.writing(client))
        await server.has(len(LARGE))
        while self.writing(client):
            await deferLater(reactor, 0)
        client.transport.write(b"now")
        self.assertFalse(self.writing(client))
        await server.has(len(LARGE) + 3)

    async def test_more_than_one_read(self) -> None:
        """What is more than one read gives comes whole, in several."""
        client, server = await self.pair()
        client.transport.write(b"y" * (2 * READ_BYTES + 1))
        await server.has(2 * READ_BYTES + 1)

    async def test_pull_producer(self) -> None:
        """A producer that is asked for each piece is asked until it has no more, also if its
        pieces come later than they are asked for."""
        for kind in (Pulled, SlowlyPulled):
            client, server = await self.pair()
            pieces = [b"%d," % n for n in range(20)]
            wanted = b"".join(pieces) + b"end"
            client.transport.registerProducer(kind(client, pieces), False)
            await server.has(len(wanted))
            self.assertEqual(server.seen, wanted, kind)

    async def test_half_closed(self) -> None:
        """A protocol that can go on when its peer has sent all does."""
        self.kind = HalfCloseable
        client, server = await self.pair()
        client.transport.loseWriteConnection()
        await server.read_lost
        server.transport.write(b"an answer")
        await deferLater(reactor, 0)
        self.assertFalse(server.lost.called)
        server.transport.loseConnection()
        await server.lost

    async def test_let_go(self) -> None:
        """A protocol whose connection is over waits for no garbage collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        held: list[weakref.ref[Any]] = []

        class Brief(StreamProtocol):
            """Ends when something comes."""

            def connectionMade(self) -> None:
                held.append(weakref.ref(self))
                self._send(b"a")

            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()

        port: Any = listen_alone(self.streams, "127.0.0.1", 0, Factory.forProtocol(Brief))
        endpoint = self.streams.endpoint("127.0.0.1", port.getHost().port, 5.0)
        await endpoint.connect(Factory.forProtocol(Brief))
        while len(held) < 2 or any(each() for each in held):
            await deferLater(reactor, 0.001)
        await port.stopListening()

    async def test_last_words(self) -> None:
        """What is written while an earlier end is on its way, as Twisted allows, comes too."""
        client, server = await self.pair()
        client.transport.write(LARGE)
        client.transport.loseConnection()
        client.transport.write(b"last")
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(server.seen, LARGE + b"last")

    async def test_nothing_after_half_an_end(self) -> None:
        """What is written after the sending side was closed goes nowhere, and raises nothing."""
        client, server = await self.pair()
        client.transport.write(b"all")
        client.transport.loseWriteConnection()
        self.assertIsInstance(await server.lost, ConnectionDone)
        client.transport.write(b"more")
        self.assertEqual(server.seen, b"all")
        await client.lost

    async def test_nothing_after_the_end(self) -> None:
        """A protocol that writes to a connection that it lost is not told off, by whichever way."""
        client, server = await self.pair()
        write = client.transport.write
        client.transport.abortConnection()
        write(b"nothing")
        await client.lost
        write(b"nothing")
        client.transport.write(b"nothing")
        self.assertNotIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(server.seen, b"")

    async def test_peer_is_gone(self) -> None:
        """Writing to a peer that reset the connection ends it, not inside the call."""
        client, server = await self.pair()
        client.transport.pauseProducing()
        server.transport.abortConnection()
        await server.lost
        client.inside = True
        client.transport.write(b"a")
        client.transport.write(b"b")
        client.inside = False
        self.assertIsInstance(await client.lost, ConnectionLost)

    async def test_start_tls(self) -> None:
        """A connection that changes to TLS on its way gives everything to it."""
        client, server = await self.pair()
        made = site("tls.test")
        own = PrivateCertificate.loadPEM(made.key + made.certificate)
        server.transport.startTLS(own.options())
        client.transport.startTLS(CertificateOptions())
        client.transport.write(b"secret")
        server.transport.write(b"told")
        await server.has(6)
        await client.has(4)
        self.assertEqual((server.seen, client.seen), (b"secret", b"told"))


class ShortcutTests(TestCase):
    def test_nothing_to_read(self) -> None:
        """A socket that is not ready after all is no end."""
        own, far = socket.socketpair()
        self.addCleanup(own.close)
        self.addCleanup(far.close)
        own.setblocking(False)
        received: list[bytes] = []
        short = Shortcut(None)
        short.open(own, received.append)
        self.assertIsNone(short.read())
        far.send(b"data")
        self.assertIsNone(short.read())
        self.assertEqual(received, [b"data"])
        far.close()
        self.assertIs(short.read(), CONNECTION_DONE)
        own.close()
        self.assertIs(short.read(), CONNECTION_LOST)
