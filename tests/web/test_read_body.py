"""A body that the handler itself takes."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from pbcluster.web.interfaces import Exchange
from tests.web.server_case import WebCase, status_of

HEAD = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n"


class ReadBodyTests(WebCase):
    def setUp(self) -> None:
        self.bodies: list[Deferred[bytes]] = []

    def take(self, exchange: Exchange) -> None:
        """Read up to 100,000 bytes and answer with how many came."""
        body: Deferred[bytes] = exchange.read_body(100_000)  # type: ignore[assignment]
        self.bodies.append(body)
        body.addCallback(lambda data: exchange.respond(200, b"%d" % len(data)))

    def test_whole(self) -> None:
        """A body of any size up to the bound comes whole, in however many pieces; none is empty."""
        for size in (0, 1, 5000, 100_000):
            client = self.web(handler=self.take).client()
            client.send(HEAD % size)
            for at in range(0, size, 3000):
                client.send(b"x" * min(3000, size - at))
            self.assertTrue(client.got().endswith(b"\r\n\r\n%d" % size))
            client.close()

    def test_too_large(self) -> None:
        """One over the bound is refused, known beforehand or not, and never given away."""
        chunked = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"4e20\r\n" + b"x" * 20_000 + b"\r\n"
        for raw in (HEAD % 100_001, chunked + 6 * chunk):
            client = self.web(handler=self.take).client()
            client.send(raw)
            self.assertEqual(status_of(client.got()), 413)
            self.failureResultOf(self.bodies[-1], CancelledError)
            client.close()

    def test_client_goes_away(self) -> None:
        """A client that goes away in the middle ends the waiting."""
        client = self.web(handler=self.take).client()
        client.send(HEAD % 10 + b"x")
        client.close()
        self.failureResultOf(self.bodies[-1], CancelledError)
