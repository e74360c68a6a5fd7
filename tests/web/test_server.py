"""A client's connection: bad input, deadlines, pipelining, bodies without and with readers."""

from __future__ import annotations

import json

from twisted.internet.task import Clock

from pbcluster.web.interfaces import Exchange, Outcome
from pbcluster.web.limits import HIGH_WATER_BYTES, LINGER_BYTES, LINGER_S, Limits
from tests.web.corpus import BAD_BODIES, BAD_HEADS, get, post
from tests.web.memory import Side, Web
from tests.web.server_case import WebCase, status_of


def hello(exchange: Exchange) -> None:
    exchange.respond(200, exchange.head.target, content_type=b"text/plain")


class BadInput(WebCase):
    def refused(self, web: Web, client: Side, status: int, name: str) -> None:
        answer = client.got()
        self.assertEqual(status_of(answer), status, name)
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertEqual(answer.count(b"Connection: close"), 1, name)
        self.assertIn(b"Connection: close", head, name)
        self.assertEqual(json.loads(body)["status"], status, name)
        self.assertEqual(json.loads(body)["data"], {}, name)
        self.assertTrue(client.transport.half_closed, name)
        client.close()

    def test_bad_heads_never_reach_a_handler(self) -> None:
        """Each bad head gets its JSON error, then the end; the handler hears nothing of it."""
        web = self.web()
        for name, (raw, status) in BAD_HEADS.items():
            client = web.client()
            client.send(raw + b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n")
            self.refused(web, client, status, name)
        self.assertEqual(web.exchanges, [])
        self.assertEqual(sum(web.factory.rejected.values()), len(BAD_HEADS))

    def test_bad_bodies_send_nothing_upstream(self) -> None:
        """A bad chunk in the first read is answered before any upstream is chosen."""
        web = self.web()
        for name, (raw, status) in BAD_BODIES.items():
            client = web.client()
            client.send(raw)
            self.refused(web, client, status, name)
        self.assertEqual((web.exchanges, web.upstreams.connecting), ([], []))

    def test_bad_body_later_cuts_the_upstream(self) -> None:
        """A chunk that turns bad while it is forwarded cuts the upstream; the client gets 400."""
        web = self.web()
        for name, (raw, status) in BAD_BODIES.items():
            client = web.client()
            split = raw.index(b"\r\n\r\n") + 4
            client.send(raw[:split])
            upstream = web.upstreams.accept()
            client.send(raw[split:])
            self.refused(web, client, status, name)
            self.assertTrue(upstream.aborted, name)
            self.assertEqual(web.attempts.pop().outcome, Outcome.CLIENT_GONE)
            web.settle()

    def test_a_bad_second_request_does_not_harm_the_first(self) -> None:
        """The first of two pipelined requests is answered whole, then the second is refused."""
        web = self.web(handler=hello)
        client = web.client()
        client.send(get() + b"GET / HTTP/3.0\r\n\r\n")
        answer = client.got()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"\r\n\r\n/HTTP/1.1 505 ", answer)
        self.assertTrue(client.transport.half_closed)

    def test_lingering_is_bounded(self) -> None:
        """After a refusal what comes is dropped, and after a while the connection is cut."""
        web = self.web()
        client = web.client()
        client.send(b"GET\r\n\r\n")
        client.send(b"x" * 100_000)
        self.assertFalse(client.aborted)
        web.clock.advance(LINGER_S)
        self.assertTrue(client.aborted)

    def test_a_flood_after_a_refusal(self) -> None:
        """Who goes on sending without end is cut before that while is over."""
        web = self.web()
        client = web.client()
        client.send(b"GET\r\n\r\n")
        piece = b"x" * 65_536
        for _ in range(LINGER_BYTES // len(piece)):
            client.send(piece)
        self.assertFalse(client.aborted)
        client.send(piece)
        self.assertTrue(client.aborted)


class Deadlines(WebCase):
    def test_slow_head(self) -> None:
        """A head must be whole 10 s after its first byte, however steadily bytes come: 408."""
        web = self.web()
        client = web.client()
        for byte in get()[:9]:
            client.send(bytes([byte]))
            web.clock.advance(1)
        self.assertEqual(client.got(), b"")
        web.clock.advance(1)
        self.assertEqual(status_of(client.got()), 408)

    def test_slow_second_head(self) -> None:
        """The second head's deadline runs from its own first byte."""
        web = self.web(handler=hello)
        client = web.client()
        client.send(get())
        client.got()
        web.clock.advance(30)
        client.send(b"GE")
        web.clock.advance(9)
        client.send(b"T")
        self.assertEqual(client.got(), b"")
        web.clock.advance(1)
        self.assertEqual(status_of(client.got()), 408)

    def test_silence(self) -> None:
        """A connection without a byte is closed after 10 s, one between requests after 60 s."""
        web = self.web(handler=hello)
        silent, idle = web.client(), web.client()
        idle.send(get())
        idle.got()
        web.clock.advance(10)
        self.assertTrue(silent.transport.disconnecting)
        web.clock.advance(49)
        self.assertFalse(idle.transport.disconnecting)
        web.clock.advance(1)
        self.assertTrue(idle.transport.disconnecting)
        self.assertEqual((silent.got(), idle.got()), (b"", b""))

    def test_slow_body(self) -> None:
        """A body that trickles below the minimum rate gets 408; one above it goes on."""
        web = self.web()
        slow, fast = web.client(), web.client()
        for client in (slow, fast):
            client.send(post(b"Content-Length: 60000"))
            web.upstreams.accept()
        for _ in range(29):
            web.clock.advance(1)
            slow.send(b"x")
            fast.send(b"x" * 50)
        web.clock.advance(1)
        self.assertEqual(status_of(slow.got()), 408)
        self.assertEqual(fast.got(), b"")
        self.assertEqual(web.attempts[0].outcome, Outcome.CLIENT_GONE)

    def test_waiting_for_us_is_not_slow(self) -> None:
        """A body that nobody reads yet (a hold) does not time out."""
        web = self.web(handler=lambda exchange: None)
        client = web.client()
        client.send(post(b"Content-Length: 200000", body=b"x" * 70_000))
        self.assertTrue(client.paused)
        web.clock.advance(31)
        web.clock.advance(31)
        self.assertEqual(client.got(), b"")

    def test_stalled_reader(self) -> None:
        """A client that leaves its answers unread is cut off."""
        web = self.web(Limits(send_stall_s=100.0), handler=hello)
        client = web.client()
        client.send(get())
        client.protocol.pauseProducing()
        web.clock.advance(99)
        client.protocol.resumeProducing()
        client.protocol.pauseProducing()
        web.clock.advance(99)
        self.assertFalse(client.aborted)
        web.clock.advance(1)
        self.assertTrue(client.aborted)


class Sequence(WebCase):
    def test_pipelining_is_serial(self) -> None:
        """The second request is not begun before the first is answered; answers keep order."""
        web = self.web(handler=lambda exchange: None)
        client = web.client()
        one, two = (get().replace(b" / ", target) for target in (b" /1 ", b" /2 "))
        client.send(one + two[:10])
        client.send(two[10:])
        self.assertEqual(len(web.exchanges), 1)
        hello(web.exchanges[0])
        self.assertEqual(len(web.exchanges), 2)
        hello(web.exchanges[1])
        self.assertEqual(client.got().count(b"\r\n\r\n/1HTTP/1.1 200 OK"), 1)

    def test_early_bytes_are_bounded(self) -> None:
        """Bytes behind an unanswered request pause the client at 64 KiB; then all are served."""
        web = self.web(handler=lambda exchange: None)
        client = web.client()
        client.send(get())
        many = get() * (HIGH_WATER_BYTES // len(get()) + 1)
        client.send(many[:-1])
        self.assertTrue(client.paused)
        web.handler = hello
        hello(web.exchanges[0])
        self.assertFalse(client.paused)
        client.send(many[-1:])
        self.assertEqual(len(web.exchanges), 1 + many.count(b"GET"))

    def test_a_client_that_does_not_read_is_served_no_more(self) -> None:
        """Pipelined requests wait while the client's send buffer is full."""
        web = self.web(handler=hello)
        client = web.client()
        client.protocol.pauseProducing()
        client.send(get() * 3)
        self.assertEqual(len(web.exchanges), 0)
        client.protocol.resumeProducing()
        self.assertEqual(len(web.exchanges), 3)

    def test_many_answered_at_once(self) -> None:
        """Thousands of pipelined requests answered locally need no deep stack."""
        web = self.web(handler=hello)
        client = web.client()
        client.send(get() * 3000)
        self.assertEqual(client.got().count(b"HTTP/1.1 200"), 3000)

    def test_connection_close(self) -> None:
        """Connection: close and HTTP/1.0 end the connection, HTTP/1.0 keep-alive does not."""
        web = self.web(handler=hello)
        for raw, kept in (
            (get(b"Connection: close"), False),
            (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", False),
            (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
        ):
            client = web.client()
            client.send(raw)
            answer = client.got()
            self.assertIn(b"Connection: keep-alive" if kept else b"Connection: close", answer)
            self.assertEqual(client.transport.disconnecting, not kept)

    def test_head_and_204_have_no_body(self) -> None:
        """An answer to HEAD names the length and sends nothing; 204 names none."""
        web = self.web(handler=hello)
        client = web.client()
        client.send(get().replace(b"GET", b"HEAD"))
        answer = client.got()
        self.assertIn(b"Content-Length: 1\r\n", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"))
        web.handler = lambda exchange: exchange.respond(204, b"")
        client.send(get())
        self.assertNotIn(b"Content-Length", client.got())

    def test_too_many_connections(self) -> None:
        """Beyond the bound a connection is cut at once."""
        web = self.web(Limits(max_connections=1))
        web.client()
        self.assertTrue(web.client().aborted)
        self.assertEqual(web.factory.refused_connections, 1)

    def test_a_slow_client_gets_its_last_bytes(self) -> None:
        """A connection that ends after its answer is not cut while the answer is being sent."""
        web = self.web(handler=lambda exchange: exchange.client_gone)
        client = web.client()
        client.send(get(b"Connection: close"))
        client.protocol.pauseProducing()
        hello(web.exchanges[0])
        self.assertIsNone(client.transport.producer)
        client.transport.clock = Clock()  # the transport waits for its send buffer
        web.clock.advance(60)
        self.assertFalse(client.aborted)
        client.close()

    def test_a_handler_that_fails(self) -> None:
        """A handler's exception is a logged 500 that ends the connection."""
        web = self.web(handler=lambda exchange: 1 / 0)
        client = web.client()
        client.send(get())
        self.assertEqual(status_of(client.got()), 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Bodies(WebCase):
    def test_too_large_by_length(self) -> None:
        """A Content-Length over the limit gets 413 before the handler is asked."""
        web = self.web(Limits(max_body_bytes=10))
        client = web.client()
        client.send(post(b"Content-Length: 11"))
        self.assertEqual(status_of(client.got()), 413)
        self.assertEqual(web.exchanges, [])

    def test_too_large_by_count(self) -> None:
        """A chunked body is counted: over the limit the upstream is cut, the client gets 413."""
        web = self.web(Limits(max_body_bytes=10))
        client = web.client()
        client.send(post(b"Transfer-Encoding: chunked", body=b"a\r\n0123456789\r\n"))
        upstream = web.upstreams.accept()
        client.send(b"1\r\nx\r\n")
        self.assertEqual(status_of(client.got()), 413)
        self.assertTrue(upstream.aborted)
        self.assertEqual(web.attempts[0].error, "the request body is larger than 10 bytes")

    def test_own_limit_of_a_request(self) -> None:
        """A handler's lower limit holds for lengths and for counted bytes."""
        web = self.web(handler=lambda exchange: self.assertFalse(exchange.limit_body(3)))
        client = web.client()
        client.send(post(b"Content-Length: 4"))
        self.assertEqual(status_of(client.got()), 413)
        self.assertTrue(web.exchanges[0].client_gone)
        web.handler = lambda exchange: self.assertTrue(exchange.limit_body(3))
        client = web.client()
        client.send(post(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))
        self.assertEqual(client.got(), b"")
        client.send(b"1\r\nd\r\n")
        self.assertEqual(status_of(client.got()), 413)

    def test_small_unread_body_is_discarded(self) -> None:
        """Answered before its small body came, the connection goes on with the next request."""
        web = self.web(handler=hello)
        client = web.client()
        client.send(post(b"Content-Length: 5", body=b"ab"))
        self.assertNotIn(b"close", client.got())
        client.send(b"cde" + get())
        self.assertEqual(status_of(client.got()), 200)
        self.assertEqual(len(web.exchanges), 2)

    def test_large_unread_body_ends_the_connection(self) -> None:
        """An upload refused early gets its status, then the end; its bytes are dropped."""
        web = self.web(handler=hello)
        for lines in ((b"Content-Length: 9000000",), (b"Transfer-Encoding: chunked",)):
            client = web.client()
            client.send(post(*lines))
            self.assertIn(b"Connection: close", client.got())
            client.send(b"x" * 50_000)
            self.assertFalse(client.aborted)
            self.assertTrue(client.transport.half_closed)

    def test_unanswered_expectation_ends_the_connection(self) -> None:
        """Without a 100 the client may send its body or not: no next request is safe."""
        web = self.web(handler=hello)
        client = web.client()
        client.send(post(b"Content-Length: 5", b"Expect: 100-continue"))
        answer = client.got()
        self.assertEqual(status_of(answer), 200)
        self.assertIn(b"Connection: close", answer)

    def test_the_client_goes_during_a_hold(self) -> None:
        """when_gone tells a waiting handler; nothing it does afterwards has an effect."""
        web = self.web(handler=lambda exchange: None)
        client = web.client()
        client.send(get())
        exchange = web.exchanges[0]
        told: list[int] = []
        exchange.when_gone(lambda: told.append(1))
        client.close()
        self.assertEqual(told, [1])
        self.assertTrue(exchange.client_gone)
        hello(exchange)
        web.forward(exchange)
        self.assertEqual(web.attempts[0].outcome, Outcome.CLIENT_GONE)
        self.assertEqual(web.upstreams.connecting, [])

    def test_abort(self) -> None:
        """abort() cuts the client's connection and the attempt under way."""
        web = self.web()
        client = web.client()
        client.send(get())
        upstream = web.upstreams.accept()
        web.exchanges[0].abort()
        self.assertTrue(client.aborted and upstream.aborted)
        self.assertEqual(web.attempts[0].outcome, Outcome.CLIENT_GONE)


class Draining(WebCase):
    def test_drain(self) -> None:
        """Idle connections end now, busy ones after their answer, the rest at the time limit."""
        web = self.web(handler=lambda exchange: None)
        idle, busy, stuck = web.client(), web.client(), web.client()
        busy.send(get())
        stuck.send(get())
        done = web.factory.drain(30.0)
        web.settle()
        self.assertTrue(idle.transport.gone)
        hello(web.exchanges[0])
        self.assertIn(b"Connection: close", busy.got())
        web.settle()
        self.assertTrue(busy.transport.gone)
        self.assertNoResult(done)
        web.clock.advance(30)
        web.settle()
        self.assertTrue(stuck.transport.gone)
        self.assertIsNone(self.successResultOf(done))
