"""Which connections of ``web.epoll`` are ready, and that none harms another."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pbcluster.web.epoll.transports import EpollTCP
from pbcluster.web.epoll.waiting import AT_ONCE, EpollSet
from pbcluster.web.streams import streams_of
from tests.web.epoll_case import (
    Case,
    EndsWhenHalfClosed,
)
from tests.web.test_streams import Side


class Raises(Side):
    """Cannot read what comes."""

    def dataReceived(self, data: bytes) -> None:
        raise ValueError(data.decode())


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
