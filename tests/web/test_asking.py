"""A process's own small requests: one question, one answer, and nothing done twice by itself."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.web.asking import Asker, NoReply, Reply
from pbcluster.web.pool import UpstreamPool
from tests.web.memory import Upstreams

OK = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 2\r\n\r\nhi'


class Asking(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.upstreams = Upstreams(self.clock)
        self.pool = UpstreamPool(self.clock, self.upstreams)
        self.asker = Asker(self.pool, "192.0.2.1", 80)

    def ask(self, method: bytes = b"GET", body: bytes = b"", limit: int = 100) -> Deferred[Reply]:
        headers = [(b"Host", b"there")]
        return Deferred.fromCoroutine(
            self.asker.ask(method, b"/x", headers, body, timeout_s=5.0, max_body_bytes=limit)
        )

    def kept(self) -> Any:
        """The far end of a connection that waits in the pool after one good answer."""
        asked = self.ask()
        far = self.upstreams.accept()
        far.got()
        far.send(OK)
        self.successResultOf(asked)
        self.assertEqual(self.pool.idle_count, 1)
        return far

    def test_question_and_answer(self) -> None:
        """The request is sent whole, and the answer comes with its status, fields and body."""
        asked = self.ask(b"POST", b"{}")
        far = self.upstreams.accept()
        self.assertEqual(
            far.got(), b"POST /x HTTP/1.1\r\nHost: there\r\nContent-Length: 2\r\n\r\n{}"
        )
        far.send(OK[:20])
        self.assertNoResult(asked)
        far.send(OK[20:])
        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.body), (200, b"hi"))
        self.assertEqual((reply.header(b"etag"), reply.header(b"x-none")), (b'"e"', b""))

    def test_the_connection_is_kept(self) -> None:
        """A second question goes over the same connection."""
        far = self.kept()
        asked = self.ask()
        self.assertIn(b"GET /x", far.got())
        far.send(OK)
        self.successResultOf(asked)
        self.assertEqual((self.pool.made, self.pool.reused), (1, 1))

    def test_a_get_that_met_a_dying_connection_is_repeated(self) -> None:
        """A GET whose kept connection ends before a byte came is asked again on a new one, once."""
        far = self.kept()
        asked = self.ask()
        far.close()
        again = self.upstreams.accept()
        self.assertIn(b"GET /x", again.got())
        again.close()
        self.failureResultOf(asked, NoReply)
        self.assertEqual(self.upstreams.connecting, [])

    def test_a_post_is_never_repeated(self) -> None:
        """Whoever got a POST may have done it."""
        far = self.kept()
        asked = self.ask(b"POST")
        far.close()
        self.failureResultOf(asked, NoReply)
        self.assertEqual(self.upstreams.connecting, [])

    def test_half_an_answer_is_none(self) -> None:
        """A GET whose answer broke off in the middle is not repeated, and has no answer."""
        far = self.kept()
        asked = self.ask()
        far.send(OK[:-1])
        far.close()
        self.failureResultOf(asked, NoReply)
        self.assertEqual(self.upstreams.connecting, [])

    def test_silence_ends_in_time(self) -> None:
        """Without an answer it fails after its time, saying that it waited, and is not repeated."""
        far = self.kept()
        asked = self.ask()
        self.clock.advance(5.1)
        self.assertTrue(self.failureResultOf(asked, NoReply).value.timed_out)
        self.assertTrue(far.aborted)
        self.assertEqual(self.upstreams.connecting, [])

    def test_nobody_there(self) -> None:
        """A refused connection is an answer at once."""
        asked = self.ask()
        self.upstreams.refuse(ConnectionRefusedError())
        self.failureResultOf(asked, NoReply)

    def test_too_long_an_answer(self) -> None:
        """An answer above the bound is cut, not gathered."""
        asked = self.ask(limit=1)
        far = self.upstreams.accept()
        far.send(OK)
        self.failureResultOf(asked, NoReply)
        self.assertTrue(far.aborted)

    def test_giving_up(self) -> None:
        """Cancelling the question cuts its connection."""
        asked = self.ask()
        far = self.upstreams.accept()
        asked.addErrback(lambda _: None)
        asked.cancel()
        self.assertTrue(far.aborted)
