"""Twisted's transports over an epoll of their own: the short way, the long one, and the change
between them. What holds for all streams is in ``test_streams``."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import weakref
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from pbcluster.web.epoll.shortcut import READ_BYTES, Shortcut
from pbcluster.web.epoll.transports import EpollTCP
from pbcluster.web.epoll.waiting import AT_ONCE, EpollSet
from pbcluster.web.limits import HIGH_WATER_BYTES
from pbcluster.web.stream_protocol import StreamProtocol
from pbcluster.web.streams import TwistedStreams, listen_alone, streams_of
from tests.web.pki import site
from tests.web.test_streams import Side

LARGE = b"x" * (64 * HIGH_WATER_BYTES)


class Raises(Side):
    """Cannot read what comes."""

    def dataReceived(self, data: bytes) -> None:
        raise ValueError(data.decode())


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
        await maybeDeferred(self.port.stopListening)
        for side in self.sides:
            if side.made.called and not side.lost.called:
                side.transport.abortConnection()
                await side.lost

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
        """A producer that is asked for each piece is asked until it has no more."""
        client, server = await self.pair()
        pieces = [b"%d," % n for n in range(100)]
        wanted = b"".join(pieces) + b"end"
        client.transport.registerProducer(Pulled(client, pieces), False)
        await server.has(len(wanted))
        self.assertEqual(server.seen, wanted)

    async def test_pull_producer_that_takes_its_time(self) -> None:
        """... also if its pieces come later than they are asked for."""
        client, server = await self.pair()
        pieces = [b"%d," % n for n in range(10)]
        wanted = b"".join(pieces) + b"end"
        client.transport.registerProducer(SlowlyPulled(client, pieces), False)
        await server.has(len(wanted))
        self.assertEqual(server.seen, wanted)

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


class Word(bytes):
    """Bytes of another kind."""


def has_come(side: Any) -> bool:
    """Whether something waits in its socket."""
    try:
        return bool(side.transport.getHandle().recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


class TurnTests(Case):
    """What is written while connections are served."""

    async def answered(self, then: Callable[[Any], None]) -> tuple[Any, Any]:
        """A pair whose server does that when something comes, and something that comes."""
        client, server = await self.pair()
        server.then = lambda data: then(server)
        client.transport.write(b"?")
        return client, server

    async def test_at_its_end(self) -> None:
        """It is sent when all that are ready were served: not before, and not in another turn."""
        seen: list[tuple[bool, bool]] = []

        def then(own: Any) -> None:
            own.transport.write(b"an answer")
            came_within = has_come(pair[0])
            cast(Any, reactor).callLater(0, lambda: seen.append((came_within, has_come(pair[0]))))

        pair = await self.pair()
        pair[1].then = lambda data: then(pair[1])
        pair[0].transport.pauseProducing()
        pair[0].transport.write(b"?")
        while not seen:
            await deferLater(reactor, 0)
        self.assertEqual(seen, [(False, True)])

    async def test_in_order(self) -> None:
        """Several pieces come in their order, and what does not fit waits as ever."""

        def then(own: Any) -> None:
            for piece in (b"a", b"b", b"c", LARGE, b"d"):
                own.transport.write(piece)
            own.transport.writeSequence([b"e", b"f"])

        client, _ = await self.answered(then)
        await client.has(len(LARGE) + 6)
        self.assertEqual(client.seen, b"abc" + LARGE + b"def")

    async def test_the_producer_is_paused(self) -> None:
        """Too much for the kernel pauses the producer within the call, as by Twisted's transports:
        an end that follows knows that its client is slow."""
        within: list[str] = []

        def then(own: Any) -> None:
            own.transport.registerProducer(own, True)
            own.transport.write(4 * LARGE)
            within.extend(own.producing)

        client, server = await self.answered(then)
        await client.has(4 * len(LARGE))
        while "resume" not in server.producing:
            await deferLater(reactor, 0)
        self.assertEqual(within, ["pause"])
        self.assertEqual(server.producing, ["pause", "resume"])

    async def test_last_words(self) -> None:
        """What was written before an end in the same turn comes, whichever end it is."""

        def lose(own: Any) -> None:
            own.transport.write(b"last")
            own.transport.loseConnection()

        def lose_write(own: Any) -> None:
            own.transport.write(b"last")
            own.transport.loseWriteConnection()

        for end in (lose, lose_write):
            client, server = await self.answered(end)
            self.assertIsInstance(await client.lost, ConnectionDone)
            self.assertEqual(client.seen, b"last")
            await server.lost

    async def test_words_after_the_last(self) -> None:
        """What is written after an end was asked for, before it came, comes: as Twisted has it."""
        other = await self.pair()
        client, server = await self.pair()
        other[1].then = lambda data: client.transport.write(b"late")
        other[0].transport.write(b"?")  # is ready before the following is
        client.transport.loseConnection()
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(server.seen, b"late")

    async def test_abort(self) -> None:
        """What was written before an abort in the same turn does not come."""

        def then(own: Any) -> None:
            own.transport.write(b"torn")
            own.transport.abortConnection()
            own.transport.write(b"torn")

        client, server = await self.answered(then)
        self.assertNotIsInstance(await client.lost, ConnectionDone)
        self.assertEqual(client.seen, b"")
        await server.lost

    async def test_start_tls(self) -> None:
        """What was written before a change to TLS in the same turn comes in the clear."""
        made = site("tls.test")
        own = PrivateCertificate.loadPEM(made.key + made.certificate)

        def then(side: Any) -> None:
            if not side.transport.TLS:
                side.transport.write(b"go ahead")
                side.transport.startTLS(own.options())

        client, server = await self.answered(then)
        await client.has(8)
        self.assertEqual(client.seen, b"go ahead")
        client.transport.startTLS(CertificateOptions())
        client.transport.write(b"secret")
        await server.has(7)
        self.assertEqual(server.seen, b"?secret")

    async def test_what_cannot_be_sent(self) -> None:
        """Who broke its own socket ends alone: others that were written to are sent theirs, and
        the reactor goes on to watch."""

        def then(own: Any) -> None:
            os.close(own.transport.getHandle().detach())
            own.transport.write(b"nowhere")
            other[1].transport.write(b"mine")

        other = await self.pair()
        client, server = await self.answered(then)
        await other[0].has(4)
        other[0].transport.write(b"and back")
        await other[1].has(8)
        await client.lost
        self.assertNotIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    async def test_no_bytes(self) -> None:
        """Whoever writes anything but bytes is told, at once, in a turn and outside of one."""
        told: list[type] = []

        def then(own: Any) -> None:
            for wrong in ("text", bytearray(b"may change"), None, 7):
                own.transport.write(b"<")
                with self.assertRaises(TypeError):
                    own.transport.write(wrong)
                told.append(type(wrong))
            own.transport.write(Word(b"a word"))

        client, server = await self.answered(then)
        await client.has(10)
        server.seen = b""
        then(server)
        await client.has(20)
        self.assertEqual(client.seen, 2 * b"<<<<a word")
        self.assertEqual(len(told), 8)


class WaitingTests(Case):
    async def test_a_protocol_that_fails(self) -> None:
        """What a protocol raises ends its connection, for that reason, and no other."""
        good, other = await self.pair()
        self.kind = Raises
        client, server = await self.pair()
        client.transport.write(b"a word")
        reason = await server.lost
        self.assertIsInstance(reason, ValueError)
        self.assertEqual(str(reason), "a word")
        await client.lost
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        good.transport.write(b"still")
        await other.has(5)

    async def test_a_protocol_that_fails_at_its_end(self) -> None:
        """... also if it raises when it hears of its end: all others are served on."""
        good, other = await self.pair()
        client, server = await self.pair()

        def fails(reason: Any) -> None:
            server.lost.callback(reason.value)
            raise ValueError("too late")

        server.connectionLost = fails
        client.transport.loseConnection()
        await server.lost
        await client.lost
        await deferLater(reactor, 0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        good.transport.write(b"still")
        await other.has(5)

    def test_one_for_a_reactor(self) -> None:
        """Whoever asks for a reactor's gets the same, as long as it is in use."""
        one = EpollTCP.of(reactor)
        self.assertIs(EpollTCP.of(reactor), one)
        self.assertIsNot(EpollTCP.of(object()), one)
        gone = weakref.ref(EpollTCP.of(object()))
        self.assertIsNone(gone())

    async def test_a_protocol_that_ends_when_half_is_closed(self) -> None:
        """... or ends its connection when it hears that its sending side is closed."""
        self.kind = EndsWhenHalfClosed
        client, server = await self.pair()
        server.transport.loseWriteConnection()
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertIsInstance(await client.lost, ConnectionDone)

    async def test_the_reactor_ends(self) -> None:
        """Then all connections and ports are told, as a reactor tells what it watches."""
        client, server = await self.pair()
        self.watching.connectionLost(Failure(ConnectionLost()))
        self.assertIsInstance(await client.lost, ConnectionLost)
        self.assertIsInstance(await server.lost, ConnectionLost)
        self.assertTrue(self.port.disconnected)
        self.assertEqual(self.watching.getReaders(), [])

    async def test_taken_out_of_the_reactor(self) -> None:
        """Where somebody took all out of the reactor, the next connection is watched all the
        same."""
        await self.pair()
        cast(Any, reactor).removeReader(self.watching)
        client, server = await self.pair()
        client.transport.write(b"a")
        await server.has(1)

    async def test_a_port_that_was_shut_down(self) -> None:
        """A listening socket that somebody else shut down is lost, once."""
        self.port.socket.shutdown(socket.SHUT_RDWR)
        while self.port in self.watching.getReaders():
            await deferLater(reactor, 0)
        self.assertTrue(self.port.disconnected)

    async def test_many_at_once(self) -> None:
        """More than one turn takes are all served."""
        pairs = [await self.pair() for _ in range(AT_ONCE // 2 + 20)]
        for client, server in pairs:
            client.transport.write(b"to")
            server.transport.write(b"fro")
        for client, server in pairs:
            await server.has(2)
            await client.has(3)

    async def test_watched_while_there_is_something(self) -> None:
        """The reactor watches one descriptor, whatever the number of connections, and none when the
        last is gone."""

        def watched() -> list[Any]:
            both = [*reactor.getReaders(), *reactor.getWriters()]  # type: ignore[attr-defined]
            return [each for each in both if isinstance(each, EpollSet)]

        client, server = await self.pair()
        await self.pair()
        self.assertEqual(watched(), [self.watching])
        self.assertIn(client.transport, self.watching.getReaders())
        await maybeDeferred(self.port.stopListening)
        for side in self.sides:
            side.transport.abortConnection()
            await side.lost
        self.assertEqual(watched(), [])
        self.assertEqual(self.watching.getReaders(), [])
        self.assertTrue(server.lost.called)

    async def test_paused_and_reset(self) -> None:
        """The end of a connection that is not read is found when it is read again."""
        client, server = await self.pair()
        client.transport.pauseProducing()
        server.transport.abortConnection()
        await server.lost
        await deferLater(reactor, 0.05)
        self.assertFalse(client.lost.called)
        client.transport.resumeProducing()
        self.assertIsInstance(await client.lost, ConnectionLost)

    async def test_remove_all(self) -> None:
        """All that is watched can be taken out, as tests' reactors do at their end."""
        client, server = await self.pair()
        owners = self.watching.removeAll()
        self.assertEqual(set(owners), {client.transport, server.transport, self.port})
        self.assertEqual(self.watching.getReaders(), [])
        for owner in owners:
            owner.startReading()
        client.transport.write(b"again")
        await server.has(5)

    def test_what_tests_use_for_a_reactor(self) -> None:
        """What is no real reactor is used as it is."""
        for stand_in in (object(), MemoryReactorClock()):
            self.assertIs(streams_of(stand_in)._reactor, stand_in)  # type: ignore[attr-defined]


class Owner:
    """One end of a socket pair, which does when it is ready what it was told.

    :ivar did: what it was asked for, and what came of it.
    """

    def __init__(self, watching: EpollSet, then: Callable[[Owner], None]) -> None:
        self.own, self.far = socket.socketpair()
        self.own.setblocking(False)
        self.watching = watching
        self.did: list[bytes | str] = []
        self._then = then
        watching.addReader(self)

    def fileno(self) -> int:
        return self.own.fileno()

    def doRead(self) -> None:
        try:
            self.did.append(self.own.recv(10))
        except BlockingIOError:
            self.did.append("in vain")
        else:
            self._then(self)

    def doWrite(self) -> None:
        self.did.append("write")

    def connectionLost(self, reason: Any) -> None:
        self.did.append(str(reason.value))

    readConnectionLost = connectionLost

    def end(self) -> None:
        """Be watched no more, and closed."""
        self.watching.removeReader(self)
        self.watching.removeWriter(self)
        self.own.close()
        self.far.close()

    def begin_anew(self) -> None:
        """Be another connection of the same number."""
        number = self.own.fileno()
        self.end()
        self.own, self.far = socket.socketpair()
        self.own.setblocking(False)
        if self.own.fileno() != number:
            os.dup2(self.own.fileno(), number)
            self.own.close()
            self.own = socket.socket(fileno=number)
        self.watching.addReader(self)


class DescriptorTests(TestCase):
    def setUp(self) -> None:
        self.watching = EpollSet(reactor)

    def both_ready(
        self, then: Callable[[Owner], None], first: Callable[[Owner], None] | None = None
    ) -> list[bytes | str]:
        """Whichever of two is served first does something to the other; what was done in all.

        :param first: done to each before; else its end is told with its data.
        """
        owners: list[Owner] = []

        def other(than: Owner) -> None:
            then(owners[1] if than is owners[0] else owners[0])

        owners += [Owner(self.watching, other), Owner(self.watching, other)]
        for each in owners:
            self.addCleanup(each.end)
            each.far.send(b"data")
            if first is not None:
                first(each)
            else:
                each.far.shutdown(socket.SHUT_RDWR)  # not data alone: its end is told, too
        self.watching.doRead()
        return sorted(owners[0].did + owners[1].did, key=str)

    def test_a_number_that_is_another_connection_by_now(self) -> None:
        """What was told of a descriptor's former connection does no harm to its next one."""
        self.assertEqual(self.both_ready(Owner.begin_anew), [b"data", "in vain"])

    def test_one_that_ended_meanwhile(self) -> None:
        """Who was ended by another in the same turn is asked for nothing."""
        self.assertEqual(self.both_ready(Owner.end), [b"data"])

    def test_one_that_ended_itself(self) -> None:
        """Who ended while it read is not asked to write."""
        owner = Owner(self.watching, Owner.end)
        self.watching.addWriter(owner)
        owner.far.send(b"data")
        self.watching.doRead()
        self.assertEqual(owner.did, [b"data"])

    def test_one_that_was_paused_meanwhile(self) -> None:
        """Who was paused by another in the same turn is not asked to read, nor to write when there
        is no room."""

        def pause(other: Owner) -> None:
            self.watching.removeReader(other)

        def fill(owner: Owner) -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    owner.own.send(b"x" * 65536)
            self.watching.addWriter(owner)

        self.assertEqual(self.both_ready(pause, fill), [b"data"])

    def test_an_end_for_who_only_writes(self) -> None:
        """Who only wants to write, and cannot any more, hears of it all the same."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        self.addCleanup(os.close, write_end)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * 65536)
        owner = Owner(self.watching, Owner.end)
        owner.end()
        owner.fileno = lambda: write_end  # type: ignore[method-assign]
        self.watching.addWriter(owner)
        self.watching.doRead()
        self.assertEqual(owner.did, [])
        os.close(read_end)
        self.watching.doRead()
        (told,) = owner.did
        self.assertIn("non-clean", cast(str, told))
        self.assertEqual(self.watching.getWriters(), [])

    def test_a_number_that_was_closed_unasked(self) -> None:
        """Whose descriptor somebody closed does not take the next connection with it that has the
        same number."""
        first = Owner(self.watching, lambda owner: None)
        number = first.own.fileno()
        os.close(first.own.detach())
        second = Owner(self.watching, lambda owner: None)
        self.addCleanup(second.end)
        self.assertEqual(second.own.fileno(), number)
        self.watching.removeReader(first)
        first.far.close()
        second.far.send(b"data")
        self.watching.doRead()
        self.assertEqual(second.did, [b"data"])


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
