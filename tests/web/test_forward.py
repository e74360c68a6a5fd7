"""Forwarding: bytes pass unchanged and unbuffered, gates hold, failures are told apart."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError

from pbcluster.errors import LocalProtocolError
from pbcluster.web.interfaces import Attempt, Exchange, Forward, Outcome, ResponseHead
from pbcluster.web.limits import Limits
from pbcluster.web.replay import ReplayBudget
from tests.web.corpus import get, post
from tests.web.memory import Side
from tests.web.server_case import CHUNKED, OK, ForwardCase, status_of


class Plain(ForwardCase):
    def test_there_and_back(self) -> None:
        """A request goes up without hop-by-hop fields, its answer comes back, both go on."""
        web, client, upstream = self.forwarded(get(b"Connection: x-drop", b"X-Drop: 1", b"A: b"))
        self.assertEqual(upstream.got(), b"GET / HTTP/1.1\r\nHost: a.localhost\r\nA: b\r\n\r\n")
        upstream.send(OK)
        self.assertEqual(client.got(), OK)
        (attempt,) = web.attempts
        self.assertEqual(attempt.outcome, Outcome.COMPLETED)
        self.assertEqual(attempt.head, ResponseHead(200, b"OK", [(b"Content-Length", b"5")]))
        self.assertEqual((attempt.request_bytes, attempt.response_bytes), (0, 5))
        self.assertFalse(attempt.repeatable or attempt.reused or attempt.junk or attempt.error)
        client.send(get())
        self.assertEqual(web.upstreams.connecting, [])
        upstream.send(OK)
        self.assertEqual(client.got(), OK)
        self.assertTrue(web.attempts[1].reused)

    def test_however_the_response_is_split(self) -> None:
        """A response in two reads, cut anywhere, reaches the client the same."""
        for raw in (OK, CHUNKED + b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n"):
            for cut in range(1, len(raw)):
                web, client, upstream = self.forwarded()
                upstream.send(raw[:cut])
                upstream.send(raw[cut:])
                answer = client.got()
                self.assertEqual(status_of(answer), 200, cut)
                self.assertEqual(web.attempts[0].outcome, Outcome.COMPLETED, cut)
                self.assertEqual(web.attempts[0].response_bytes, 5)
                if raw is OK:
                    self.assertEqual(answer, OK)
                else:
                    self.assertTrue(answer.endswith(b"0\r\n\r\n"))
                    self.assertNotIn(b"T: 1", answer)

    def test_body_by_length(self) -> None:
        """A body goes up as it comes, in the write of the head if it was there already."""
        _, client, upstream = self.forwarded(post(b"Content-Length: 5", body=b"he"))
        self.assertEqual(
            upstream.got(),
            b"POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 5\r\n\r\nhe",
        )
        client.send(b"llo")
        self.assertEqual(upstream.got(), b"llo")
        upstream.send(OK)
        self.assertEqual(client.got(), OK)

    def test_body_in_chunks(self) -> None:
        """A chunked body is chunked again, trailers dropped, its end sent with its last bytes."""
        raw = post(b"Transfer-Encoding: chunked", body=b"2;x=y\r\nhe\r\n")
        _, client, upstream = self.forwarded(raw)
        self.assertTrue(upstream.got().endswith(b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"))
        client.send(b"3\r\nllo\r\n0\r\nX-Tenant-ID: b\r\n\r\n")
        self.assertEqual(upstream.got(), b"3\r\nllo\r\n0\r\n\r\n")

    def test_stream_is_not_buffered(self) -> None:
        """Each event of a stream is passed on in the read in which it came."""
        web, client, upstream = self.forwarded()
        upstream.send(CHUNKED)
        self.assertIn(b"Transfer-Encoding: chunked", client.got())
        for event in (b"data: 1\n\n", b"data: 22\n\n"):
            chunk = b"%x\r\n%b\r\n" % (len(event), event)
            upstream.send(chunk)
            self.assertEqual(client.got(), chunk)
        self.assertEqual(web.attempts, [])
        upstream.send(b"0\r\n\r\n")
        self.assertEqual(client.got(), b"0\r\n\r\n")
        self.assertEqual(web.attempts[0].outcome, Outcome.COMPLETED)

    def test_until_close(self) -> None:
        """A response without length is chunked for the client, and ends with a clean close."""
        web, client, upstream = self.forwarded()
        upstream.send(b"HTTP/1.0 200 OK\r\n\r\nhello")
        self.assertTrue(client.got().endswith(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
        upstream.close()
        self.assertEqual(client.got(), b"0\r\n\r\n")
        self.assertEqual(web.attempts[0].outcome, Outcome.COMPLETED)

    def test_until_close_broken_off(self) -> None:
        """The same ended by a reset is torn: the client is cut."""
        web, client, upstream = self.forwarded()
        upstream.send(b"HTTP/1.0 200 OK\r\n\r\nhello")
        upstream.reset()
        self.assertTrue(client.aborted)
        self.assertEqual(web.attempts[0].outcome, Outcome.BROKEN)

    def test_http_10_client(self) -> None:
        """An HTTP/1.0 client gets a stream without chunks, ended by the connection."""
        _, client, upstream = self.forwarded(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        self.assertTrue(upstream.got().startswith(b"GET / HTTP/1.1\r\n"))
        upstream.send(CHUNKED + b"5\r\nhello\r\n")
        answer = client.got()
        self.assertTrue(answer.endswith(b"\r\n\r\nhello"))
        self.assertIn(b"Connection: close", answer)
        self.assertNotIn(b"Transfer-Encoding", answer)
        upstream.send(b"0\r\n\r\n")
        self.assertEqual(client.got(), b"")
        self.assertTrue(client.transport.disconnecting)

    def test_bodyless_answers(self) -> None:
        """HEAD and 304 pass their Content-Length on and end at once."""
        for raw, answer in (
            (get().replace(b"GET", b"HEAD"), OK[:-5]),
            (get(), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
            (get(), b"HTTP/1.1 204 No Content\r\n\r\n"),
        ):
            web, client, upstream = self.forwarded(raw)
            upstream.send(answer)
            self.assertEqual(client.got(), answer)
            self.assertEqual(web.pool.idle_count, 1)

    def test_body_where_none_may_be(self) -> None:
        """A HEAD's answer with a body passes without it, and its connection is not used again."""
        web, client, upstream = self.forwarded(get().replace(b"GET", b"HEAD"))
        upstream.send(OK)
        self.assertEqual(client.got(), OK[:-5])
        self.assertTrue(upstream.aborted)
        self.assertEqual(web.pool.idle_count, 0)

    def test_bytes_after_the_end(self) -> None:
        """Bytes behind a response are dropped with their connection: no second response."""
        _, client, upstream = self.forwarded()
        upstream.send(OK + OK)
        self.assertEqual(client.got(), OK)
        self.assertTrue(upstream.aborted)

    def test_interim_responses(self) -> None:
        """100 goes to a client that waits for it; other interim answers are dropped."""
        raw = post(b"Content-Length: 5", b"Expect: 100-continue")
        _, client, upstream = self.forwarded(raw)
        self.assertIn(b"Expect: 100-continue\r\n", upstream.got())
        self.assertEqual(client.got(), b"")
        upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(client.got(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hello")
        self.assertEqual(upstream.got(), b"hello")
        upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        self.assertEqual(client.got(), OK)

    def test_early_answer_to_an_upload(self) -> None:
        """An answer before a large upload is over passes, then both connections end."""
        web, client, upstream = self.forwarded(post(b"Content-Length: 9000000", body=b"x" * 100))
        upstream.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        answer = client.got()
        self.assertEqual(status_of(answer), 413)
        self.assertIn(b"Connection: close", answer)
        self.assertTrue(upstream.aborted)
        self.assertTrue(client.transport.half_closed)
        self.assertEqual(web.attempts[0].outcome, Outcome.COMPLETED)

    def test_ours_and_theirs(self) -> None:
        """A plan with a line break in a field or target is refused before anything is sent."""
        web = self.web(handler=lambda exchange: None)
        web.client().send(get())
        for changes in ({"headers": [(b"A", b"b\r\nC: d")]}, {"target": b"/ HTTP/1.1\r\n"}):
            plan = {"host": "192.0.2.7", "port": 80, "method": b"GET", "target": b"/"}
            with self.assertRaises(LocalProtocolError):
                web.exchanges[0].forward(
                    Forward(**{"headers": [], **plan, **changes}), web.attempts.append
                )
        self.assertEqual(web.upstreams.connecting, [])


class Failures(ForwardCase):
    def test_no_connection(self) -> None:
        """A refused connection is NOT_SENT and repeatable for any method; then it can succeed."""
        web = self.web()
        client = web.client()
        client.send(post(b"Content-Length: 5", body=b"hello"))
        web.upstreams.refuse(ConnectionRefusedError())
        self.assertEqual(web.attempts[0].outcome, Outcome.NOT_SENT)
        self.assertTrue(web.attempts[0].repeatable)
        web.forward(web.exchanges[0])
        upstream = web.upstreams.accept()
        self.assertTrue(upstream.got().endswith(b"\r\n\r\nhello"))
        upstream.send(OK)
        self.assertEqual(client.got(), OK)

    def test_no_response(self) -> None:
        """An upstream that closes without a byte is NO_RESPONSE; a small body is replayed."""
        web, client, upstream = self.forwarded(post(b"Content-Length: 6", body=b"hel"))
        client.send(b"lo")
        upstream.close()
        self.assertEqual(web.attempts[0].outcome, Outcome.NO_RESPONSE)
        self.assertTrue(web.attempts[0].repeatable)
        web.forward(web.exchanges[0])
        upstream = web.upstreams.accept()
        self.assertTrue(upstream.got().endswith(b"\r\n\r\nhello"))
        client.send(b"!")
        self.assertEqual(upstream.got(), b"!")
        upstream.send(OK)
        self.assertEqual(client.got(), OK)

    def test_timeout(self) -> None:
        """No head within the first-byte timeout is TIMEOUT, the upstream cut, the client kept."""
        web, client, upstream = self.forwarded(first_byte_timeout_s=5.0)
        web.clock.advance(4.9)
        self.assertEqual(web.attempts, [])
        web.clock.advance(0.1)
        self.assertEqual(web.attempts[0].outcome, Outcome.TIMEOUT)
        self.assertTrue(upstream.aborted)
        web.exchanges[0].respond(504, b"{}")
        self.assertEqual(status_of(client.got()), 504)

    def test_given_up(self) -> None:
        """An attempt that is given up ends as if its connection were lost: before the answer the
        exchange goes on, within it the client is cut off."""
        web = self.web()
        web.client().send(post(b"Content-Length: 5", body=b"hello"))
        web.exchanges[0].give_up("overtaken")
        self.assertEqual(web.attempts[0].outcome, Outcome.NOT_SENT)

        web, client, upstream = self.forwarded(post(b"Content-Length: 5", body=b"hello"))
        web.exchanges[0].give_up("overtaken")
        self.assertEqual(web.attempts[0].outcome, Outcome.NO_RESPONSE)
        self.assertTrue(web.attempts[0].repeatable)
        self.assertTrue(upstream.aborted)
        web.forward(web.exchanges[0])
        web.upstreams.accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal")
        web.exchanges[0].give_up("overtaken")
        self.assertEqual(web.attempts[1].outcome, Outcome.BROKEN)
        self.assertTrue(client.transport.aborted)
        web.exchanges[0].give_up("overtaken")
        self.assertEqual(len(web.attempts), 2)

    def test_an_upload_is_no_timeout(self) -> None:
        """The first-byte timeout runs from the upload's last progress."""
        web, client, _ = self.forwarded(post(b"Content-Length: 90000"), first_byte_timeout_s=5.0)
        for _ in range(5):
            web.clock.advance(4)
            client.send(b"x" * 1000)
        self.assertEqual(web.attempts, [])
        web.clock.advance(5)
        self.assertEqual(web.attempts[0].outcome, Outcome.TIMEOUT)

    def test_bad_responses(self) -> None:
        """A response that is not beyond doubt is no response; nothing of it is passed on."""
        for raw in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20,
            b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
        ):
            web, client, upstream = self.forwarded()
            upstream.send(raw)
            self.assertEqual(web.attempts[0].outcome, Outcome.NO_RESPONSE, raw[:60])
            self.assertIn("bad response", web.attempts[0].error)
            self.assertTrue(web.attempts[0].repeatable)
            self.assertTrue(upstream.aborted)
            self.assertEqual(client.got(), b"")

    def test_broken_off(self) -> None:
        """An upstream that dies in mid-body, or sends a bad chunk, cuts the client's connection."""
        for raw, end in (
            (OK[:-1], Side.close),
            (OK[:-1], Side.reset),
            (CHUNKED + b"5\r\nhello\r\n", Side.close),
            (CHUNKED + b"5\r\nhello\r\n", lambda side: side.send(b"x\r\n")),
        ):
            web, client, upstream = self.forwarded()
            upstream.send(raw)
            self.assertEqual(status_of(client.got()), 200)
            end(upstream)
            self.assertTrue(client.aborted)
            self.assertEqual(client.got(), b"")
            self.assertEqual(web.attempts[0].outcome, Outcome.BROKEN)
            self.assertFalse(web.attempts[0].repeatable)

    def test_stands_still(self) -> None:
        """A response that stands still for longer than the plan allows is broken off."""
        web, client, upstream = self.forwarded(idle_timeout_s=20.0)
        upstream.send(OK[:-1])
        web.clock.advance(20)
        self.assertEqual(web.attempts[0].outcome, Outcome.BROKEN)
        self.assertTrue(client.aborted and upstream.aborted)

    def test_client_goes(self) -> None:
        """A client that goes cuts the upstream at once: connecting, uploading or streaming."""
        for stage in range(3):
            web = self.web()
            client = web.client()
            client.send(post(b"Content-Length: 10", body=b"x"))
            upstream = None
            if stage:
                upstream = web.upstreams.accept()
            if stage == 2:
                assert upstream is not None
                upstream.send(OK[:-1])
            client.close()
            self.assertEqual(web.attempts[0].outcome, Outcome.CLIENT_GONE)
            self.assertFalse(web.attempts[0].repeatable)
            if upstream is None:
                self.assertTrue(web.upstreams.connecting[0].cancelled)
            else:
                self.assertTrue(upstream.aborted)

    def test_answered_while_forwarding(self) -> None:
        """respond() ends an attempt that passed nothing yet, and is refused after that."""
        web, client, upstream = self.forwarded()
        web.exchanges[0].respond(504, b"{}")
        self.assertEqual(status_of(client.got()), 504)
        self.assertTrue(upstream.aborted)
        self.assertEqual(web.attempts[0].outcome, Outcome.REFUSED)
        client.send(get())
        upstream = web.upstreams.accept()
        upstream.send(OK[:-1])
        with self.assertRaises(LocalProtocolError):
            web.exchanges[1].respond(504, b"{}")

    def test_callbacks_that_fail(self) -> None:
        """A failing done is a logged 500, a failing when_gone is logged; nobody hangs."""

        def handler(exchange: Exchange) -> None:
            exchange.forward(web.plan_of(exchange), lambda attempt: 1 / 0)
            exchange.when_gone(lambda: 1 / 0)

        web = self.web(handler=handler)
        client, other = web.client(), web.client()
        client.send(get())
        web.upstreams.refuse(ConnectionRefusedError())
        self.assertEqual(status_of(client.got()), 500)
        other.send(get())
        other.close()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)


class Replay(ForwardCase):
    def test_limit(self) -> None:
        """Up to 64 KiB of body can be sent again, a byte more cannot."""
        for size, repeatable in ((65536, True), (65537, False)):
            web, client, upstream = self.forwarded(post(b"Content-Length: 90000"))
            client.send(b"x" * (size - 1))
            client.send(b"x")
            upstream.close()
            self.assertEqual(web.attempts[0].repeatable, repeatable)
            if repeatable:
                web.forward(web.exchanges[0])
                self.assertTrue(web.upstreams.accept().got().endswith(b"x" * size))
            else:
                with self.assertRaises(LocalProtocolError):
                    web.forward(web.exchanges[0])
            client.close()

    def test_budget(self) -> None:
        """Beyond the memory of all requests together a body is forwarded, but not kept."""
        budget = ReplayBudget(100)
        web = self.web(budget=budget)
        _, one, _ = self.forwarded(post(b"Content-Length: 99"), web)
        one.send(b"x" * 80)
        _, two, upstream = self.forwarded(post(b"Content-Length: 99"), web)
        upstream.got()
        two.send(b"y" * 30)
        self.assertEqual(upstream.got(), b"y" * 30)
        self.assertEqual(budget.used_bytes, 80)
        upstream.close()
        self.assertFalse(web.attempts[0].repeatable)

    def test_budget_during_a_hold(self) -> None:
        """An unread body that finds no room pauses its client instead of growing."""
        web = self.web(budget=ReplayBudget(100), handler=lambda exchange: None)
        client = web.client()
        client.send(post(b"Content-Length: 300", body=b"x" * 101))
        self.assertTrue(client.paused)
        web.forward(web.exchanges[0])
        upstream = web.upstreams.accept()
        self.assertFalse(client.paused)
        self.assertTrue(upstream.got().endswith(b"x" * 101))
        upstream.close()
        self.assertFalse(web.attempts[0].repeatable)

    def test_no_longer_than_needed(self) -> None:
        """What is kept is given back as soon as response bytes reach the client."""
        web, _, upstream = self.forwarded(post(b"Content-Length: 9", body=b"x" * 8))
        self.assertEqual(web.factory.replay.used_bytes, 8)
        upstream.send(OK[:-1])
        self.assertEqual(web.factory.replay.used_bytes, 0)


class Retrying(ForwardCase):
    def test_a_second_attempt_from_done(self) -> None:
        """done may forward again at once; the client sees one answer."""
        web = self.web()

        def handler(exchange: Exchange) -> None:
            def done(attempt: Attempt) -> None:
                web.attempts.append(attempt)
                if attempt.outcome is Outcome.NOT_SENT:
                    web.forward(exchange)

            plan = web.plan_of(exchange)
            exchange.forward(plan, done)

        web.handler = handler
        client = web.client()
        client.send(get())
        web.upstreams.refuse(ConnectionRefusedError())
        web.upstreams.accept().send(OK)
        self.assertEqual(client.got(), OK)
        self.assertEqual(len(web.attempts), 2)


class Limited(ForwardCase):
    def test_no_interference_of_deadlines(self) -> None:
        """A response that takes longer than all of the client's deadlines is not disturbed."""
        web = self.web(Limits(keep_alive_s=5.0, header_timeout_s=5.0, body_idle_s=5.0))
        _, client, upstream = self.forwarded(post(b"Content-Length: 1", body=b"x"), web)
        for _ in range(10):
            web.clock.advance(10)
        upstream.send(OK)
        self.assertEqual(client.got(), OK)
