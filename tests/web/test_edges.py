"""Edges of the core that attackers try, in memory: time, memory, races between requests."""

from __future__ import annotations

from tests.web.corpus import chunked, get
from tests.web.server_case import WebCase


class TimeTests(WebCase):
    def test_an_empty_line_buys_no_time(self) -> None:
        """The empty line that is forgiven before a request leaves the deadline where it was."""
        for line in ((b"\r\n",), (b"\r", b"\n")):
            web = self.web()
            client = web.client()
            web.clock.advance(9)
            for piece in line:
                client.send(piece)
            web.clock.advance(9.9 if len(line) == 2 else 0.9)
            self.assertFalse(client.transport.disconnecting)
            web.clock.advance(0.2)
            self.assertTrue(client.transport.disconnecting)

    def test_an_empty_line_between_requests(self) -> None:
        """Behind a request it neither ends nor lengthens the silence that is allowed."""
        web = self.web(handler=lambda exchange: exchange.respond(200, b""))
        client = web.client()
        client.send(get())
        web.clock.advance(30)
        client.send(b"\r\n")
        web.clock.advance(29.9)
        self.assertFalse(client.transport.disconnecting)
        web.clock.advance(0.2)
        self.assertTrue(client.transport.disconnecting)


class HeadTests(WebCase):
    def test_a_refused_head(self) -> None:
        """A HEAD whose body turns out bad gets the refusal's fields without its content."""
        web = self.web()
        client = web.client()
        client.send(chunked(b"zz\r\n").replace(b"POST", b"HEAD"))
        answer = client.got()
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))
        self.assertTrue(answer.endswith(b"\r\n\r\n"))
