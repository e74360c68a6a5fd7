"""Edges of the core that attackers try, in memory: time, memory, races between requests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.http_memory import OK, Core, answers_of
from pbcluster.testing.http_wire import Far
from pbcluster.web.interfaces import Outcome
from tests.web.corpus import chunked, get, post
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


class CrossingTests(SynchronousTestCase):
    """The upstream closes an idle connection in the moment in which it is used again."""

    def crossed(self, raw: bytes, *, unseen: bool) -> tuple[Core, Far]:
        """A request on a connection that served one already and ends without a further byte.

        :param unseen: the end is in the kernel, but not told yet, when the request is written.
        """
        core = Core(upstream=Far)
        self.addCleanup(lambda: self.assertEqual(core.nothing_left(), []))
        client = core.client()
        client.send(get())
        core.wire.run()
        (upstream,) = core.upstreams
        upstream.send(OK)
        core.wire.run()
        if not unseen:
            upstream.close()
        client.send(raw)
        if unseen:
            core.wire.later(upstream.close)
        core.wire.run()
        return core, client

    def test_seen_in_time(self) -> None:
        """If the end was told before, GET and POST go to a new connection."""
        for raw in (get(), post(b"Content-Length: 2", body=b"hi")):
            core, client = self.crossed(raw, unseen=False)
            self.assertEqual(len(core.upstreams), 2)
            core.upstreams[1].send(OK)
            core.wire.run()
            self.assertEqual(len(answers_of(client.received, [], ended=False)), 2)

    def test_a_get_that_crosses(self) -> None:
        """A GET is sent again, and the client sees nothing of it."""
        core, client = self.crossed(get(), unseen=True)
        self.assertEqual(len(core.upstreams), 2)
        core.upstreams[1].send(OK)
        core.wire.run()
        statuses = [each.status for each in answers_of(client.received, [], ended=False)]
        self.assertEqual(statuses, [200, 200])

    def test_a_post_that_crosses(self) -> None:
        """A POST may have been carried out: it is sent once, and its client is told so."""
        core, client = self.crossed(post(b"Content-Length: 2", body=b"hi"), unseen=True)
        self.assertEqual(len(core.upstreams), 1)
        self.assertEqual(core.upstreams[0].received.count(b"POST"), 1)
        statuses = [each.status for each in answers_of(client.received, [], ended=False)]
        self.assertEqual(statuses, [200, 502])
        self.assertIs(core.attempts[-1].outcome, Outcome.NO_RESPONSE)
