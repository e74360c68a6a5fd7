"""Gates and back-pressure: what is held, for how long, and who is paused meanwhile."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from pbcluster.web.interfaces import Outcome, Refuse, ResponseHead
from pbcluster.web.limits import HIGH_WATER_BYTES
from tests.web.corpus import get, post
from tests.web.server_case import CHUNKED, OK, ForwardCase, status_of


def created(head: ResponseHead) -> ResponseHead:
    return ResponseHead(201, head.reason, head.headers)


class Gates(ForwardCase):
    def test_a_head_is_held_and_changed(self) -> None:
        """While on_response waits nothing is passed on; then its changed head is."""
        gate: Deferred[ResponseHead] = Deferred()
        web, client, upstream = self.forwarded(on_response=lambda head: gate)
        upstream.send(OK)
        self.assertEqual(client.got(), b"")
        self.assertEqual(web.attempts, [])
        gate.callback(ResponseHead(202, b"Fine", [(b"X", b"y")]))
        self.assertEqual(
            client.got(), b"HTTP/1.1 202 Fine\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"
        )

    def test_kinds_of_gates(self) -> None:
        """A gate may give a head at once, be a coroutine, or any awaitable."""

        async def coroutine(head: ResponseHead) -> ResponseHead:
            return created(head)

        class Wait:
            def __init__(self, head: ResponseHead) -> None:
                self.head = head

            def __await__(self) -> Any:
                return coroutine(self.head).__await__()

        for gate in (created, coroutine, Wait):
            _, client, upstream = self.forwarded(on_response=gate)
            upstream.send(OK)
            self.assertEqual(status_of(client.got()), 201)

    def test_holding_is_bounded(self) -> None:
        """A held response pauses its upstream at 64 KiB and loses nothing."""
        gate: Deferred[ResponseHead] = Deferred()
        _, client, upstream = self.forwarded(on_response=lambda head: gate)
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        upstream.send(b"x" * (HIGH_WATER_BYTES - 1))
        self.assertFalse(upstream.paused)
        upstream.send(b"x")
        self.assertTrue(upstream.paused)
        gate.callback(ResponseHead(200, b"OK", []))
        self.assertFalse(upstream.paused)
        upstream.send(b"x" * (100_000 - HIGH_WATER_BYTES))
        self.assertEqual(client.got().count(b"x"), 100_000)

    def test_refusal(self) -> None:
        """Refuse drops the response: REFUSED with its head, repeatable, nothing to the client."""
        for late in (False, True):
            gate: Deferred[ResponseHead] = Deferred()

            def refuse(head: ResponseHead, late: bool = late, gate: Any = gate) -> Any:
                if late:
                    return gate
                raise Refuse("moved")

            web, client, upstream = self.forwarded(on_response=refuse)
            upstream.send(b"HTTP/1.1 421 Misdirected\r\nContent-Length: 0\r\n\r\n")
            if late:
                gate.errback(Refuse("moved"))
            attempt = web.attempts[0]
            self.assertEqual((attempt.outcome, attempt.error), (Outcome.REFUSED, "moved"))
            self.assertTrue(attempt.repeatable)
            assert attempt.head is not None
            self.assertEqual(attempt.head.status, 421)
            self.assertTrue(upstream.aborted)
            web.plan = {}
            web.forward(web.exchanges[0])
            web.upstreams.accept().send(OK)
            self.assertEqual(client.got(), OK)

    def test_a_gate_that_fails(self) -> None:
        """Another exception of a gate is logged and refuses the response."""
        web, client, upstream = self.forwarded(on_response=lambda head: 1 / 0)
        upstream.send(OK)
        self.assertEqual(web.attempts[0].outcome, Outcome.REFUSED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(client.got(), b"")

    def test_upstream_dies_behind_a_gate(self) -> None:
        """Torn while held: nothing was passed on, so the client can still get an answer."""
        gate: Deferred[ResponseHead] = Deferred()
        web, client, upstream = self.forwarded(on_response=lambda head: gate)
        upstream.send(OK[:-1])
        upstream.reset()
        self.assertEqual(web.attempts[0].outcome, Outcome.NO_RESPONSE)
        gate.callback(ResponseHead(200, b"OK", []))
        self.assertEqual(client.got(), b"")
        web.exchanges[0].respond(502, b"{}")
        self.assertEqual(status_of(client.got()), 502)

    def test_upstream_closes_behind_a_gate(self) -> None:
        """Complete before its upstream closed, a held response is passed on."""
        gate: Deferred[ResponseHead] = Deferred()
        web, client, upstream = self.forwarded(on_response=lambda head: gate)
        upstream.send(OK)
        upstream.close()
        gate.callback(ResponseHead(200, b"OK", []))
        self.assertEqual(client.got(), OK)
        self.assertEqual(web.attempts[0].outcome, Outcome.COMPLETED)
        self.assertEqual(web.pool.idle_count, 0)

    def test_client_goes_behind_a_gate(self) -> None:
        """The attempt ends at once; the gate's late answer is without effect."""
        gate: Deferred[ResponseHead] = Deferred()
        web, client, upstream = self.forwarded(on_response=lambda head: gate)
        upstream.send(OK)
        client.close()
        self.assertEqual(web.attempts[0].outcome, Outcome.CLIENT_GONE)
        gate.callback(ResponseHead(200, b"OK", []))
        self.assertEqual(len(web.attempts), 1)

    def test_the_end_is_held(self) -> None:
        """on_end holds the last bytes: of a stream its end, of a small answer all of it."""
        for raw, before, after in (
            (CHUNKED + b"5\r\nhello\r\n|0\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"),
            (b"|" + OK, b"", OK),
            (OK[:-2] + b"|" + OK[-2:], OK[:-2], OK[-2:]),
        ):
            gate: Deferred[None] = Deferred()
            web, client, upstream = self.forwarded(on_end=lambda gate=gate: gate)
            for piece in raw.split(b"|"):
                if piece:
                    upstream.send(piece)
            self.assertTrue(client.got().endswith(before))
            self.assertEqual(web.attempts, [])
            client.send(get())
            gate.callback(None)
            self.assertEqual(client.got(), after)
            self.assertEqual(web.attempts[0].outcome, Outcome.COMPLETED)
            self.assertEqual(len(web.exchanges), 2)

    def test_the_end_is_refused(self) -> None:
        """Refuse by on_end cuts the client: the response never looks whole."""
        gate: Deferred[None] = Deferred()
        web, client, upstream = self.forwarded(on_end=lambda: gate)
        upstream.send(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
        gate.errback(Refuse("not durable"))
        self.assertTrue(client.aborted)
        self.assertEqual(client.got(), b"")
        self.assertEqual(web.attempts[0].outcome, Outcome.BROKEN)
        self.assertTrue(upstream.aborted)

    def test_both_gates(self) -> None:
        """A response that came whole passes both gates in turn before a byte of it goes out."""
        first: Deferred[ResponseHead] = Deferred()
        last: Deferred[None] = Deferred()
        _, client, upstream = self.forwarded(on_response=lambda head: first, on_end=lambda: last)
        upstream.send(OK)
        first.callback(ResponseHead(200, b"OK", []))
        self.assertEqual(client.got(), b"")
        last.callback(None)
        self.assertEqual(client.got(), OK)

    def test_each_part_is_held(self) -> None:
        """on_data holds a part and all that comes after it; what came meanwhile is asked about
        anew, the end included. A part that need not wait goes at once."""
        gates: list[Deferred[None] | None] = [None]
        asked: list[Deferred[None] | None] = []

        def gate() -> Deferred[None] | None:
            asked.append(gates.pop(0))
            return asked[-1]

        web, client, upstream = self.forwarded(on_data=gate)
        upstream.send(CHUNKED)
        self.assertTrue(client.got().endswith(b"\r\n\r\n"))
        first, second = Deferred[None](), Deferred[None]()
        gates += [first, second]
        upstream.send(b"3\r\none\r\n")
        upstream.send(b"3\r\ntwo\r\n")
        upstream.send(b"0\r\n\r\n")
        self.assertEqual(client.got(), b"")
        first.callback(None)
        self.assertEqual(client.got(), b"3\r\none\r\n")
        self.assertEqual(web.attempts, [])
        second.callback(None)
        self.assertEqual(client.got(), b"3\r\ntwo\r\n0\r\n\r\n")
        self.assertEqual(web.attempts[0].outcome, Outcome.COMPLETED)
        self.assertEqual(len(asked), 3)

    def test_a_part_is_refused(self) -> None:
        """Refuse by on_data cuts the client; nothing of the part was seen."""
        gates: list[Deferred[None] | None] = [None]
        web, client, upstream = self.forwarded(on_data=lambda: gates.pop(0))
        upstream.send(CHUNKED)
        client.got()
        held: Deferred[None] = Deferred()
        gates.append(held)
        upstream.send(b"3\r\none\r\n")
        held.errback(Refuse("not durable"))
        self.assertEqual(client.got(), b"")
        self.assertTrue(client.aborted)
        self.assertEqual(web.attempts[0].outcome, Outcome.BROKEN)


class BackPressure(ForwardCase):
    def test_slow_client(self) -> None:
        """A full send buffer of the client pauses the upstream until it is empty."""
        _, client, upstream = self.forwarded()
        upstream.send(CHUNKED)
        client.protocol.pauseProducing()
        self.assertTrue(upstream.paused)
        client.protocol.resumeProducing()
        self.assertFalse(upstream.paused)

    def test_slow_client_is_not_the_upstreams_fault(self) -> None:
        """The response's idle timeout does not run while the client is slow."""
        web, client, upstream = self.forwarded(idle_timeout_s=20.0)
        upstream.send(CHUNKED)
        client.protocol.pauseProducing()
        web.clock.advance(25)
        self.assertEqual(web.attempts, [])
        client.protocol.resumeProducing()
        web.clock.advance(20)
        self.assertEqual(web.attempts[0].outcome, Outcome.BROKEN)

    def test_slow_upstream(self) -> None:
        """A full send buffer of the upstream pauses the client's upload until it is empty."""
        _, client, upstream = self.forwarded(post(b"Content-Length: 900000"))
        upstream.protocol.pauseProducing()
        self.assertTrue(client.paused)
        upstream.protocol.resumeProducing()
        self.assertFalse(client.paused)

    def test_a_gate_opens_for_a_slow_client(self) -> None:
        """Opening a gate does not resume the upstream of a client that is slow."""
        gate: Deferred[ResponseHead] = Deferred()
        _, client, upstream = self.forwarded(on_response=lambda head: gate)
        upstream.send(CHUNKED)
        client.protocol.pauseProducing()
        gate.callback(ResponseHead(200, b"OK", []))
        self.assertTrue(upstream.paused)
        client.protocol.resumeProducing()
        self.assertFalse(upstream.paused)
