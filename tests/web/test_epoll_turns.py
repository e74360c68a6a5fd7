"""What is written while connections of ``web.epoll`` are served."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import deferLater

from tests.web.epoll_case import (
    LARGE,
    Case,
)
from tests.web.pki import site


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
