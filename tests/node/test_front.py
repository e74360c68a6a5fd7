"""The front door, with a fake exchange: who gets in, what gets out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import signing
from pbcluster.node.durability import ASYNC_LOSS_BOUND_S
from pbcluster.node.front import Front
from pbcluster.node.heads import upstream_lines
from pbcluster.node.streams import Streams
from pbcluster.records import Durability
from pbcluster.signing import SIGNED, Signed, sign
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.web.interfaces import (
    Attempt,
    Exchange,
    Forward,
    Headers,
    Outcome,
    Refuse,
    RequestHead,
    ResponseHead,
)
from tests.node.harness import HOST, NodeHarness, T, assignment

KEY = b"gateway key"
NOW_MS = 1_700_000_000_000
OK = ResponseHead(200, b"OK", [(b"Content-Length", b"2")])


ID = "0123456789abcdef0123456789abcdef"


class FakeExchange(Exchange):
    """One whose upstream is the test."""

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.client_gone = False
        self.plan: Forward | None = None
        self.plans: list[Forward] = []
        self.done: Callable[[Attempt], None] | None = None
        self.status = 0
        self.body: Any = None
        self.headers: dict[bytes, bytes] = {}
        self.aborted = False
        self.gone: list[Callable[[], None]] = []
        self.passed: ResponseHead | None = None

    def forward(self, plan: Forward, done: Callable[[Attempt], None]) -> None:
        self.plan, self.done = plan, done
        self.plans.append(plan)

    def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: Headers = (),
        close: bool = False,
    ) -> None:
        assert not self.status, "answered twice"
        self.status, self.body, self.headers = status, json.loads(body), dict(headers)

    def abort(self) -> None:
        self.aborted = True
        if self.done is not None:
            self.end(Outcome.BROKEN)

    def give_up(self, error: str) -> None:
        self.end(Outcome.NO_RESPONSE)

    def when_gone(self, callback: Callable[[], None]) -> None:
        self.gone.append(callback)

    def go(self) -> None:
        """The client goes away."""
        self.client_gone = True
        for callback in self.gone:
            callback()

    def end(self, outcome: Outcome, *, repeatable: bool = False) -> None:
        done, self.done = self.done, None
        assert done is not None
        done(Attempt(outcome, repeatable))

    def upstream_answers(self, head: ResponseHead = OK) -> None:
        """PocketBase's head arrives; the whole response follows once it may."""
        assert self.plan is not None
        assert self.plan.on_response is not None
        result = self.plan.on_response(head)
        if not isinstance(result, Deferred):
            self.passed = result  # type: ignore[assignment]
            return

        def passed(changed: ResponseHead) -> None:
            self.passed = changed

        def refused(failure: Failure) -> None:
            failure.trap(Refuse)
            self.end(Outcome.REFUSED)

        result.addCallbacks(passed, refused)

    def last_chunk(self) -> Deferred[None] | None:
        assert self.plan is not None
        assert self.plan.on_end is not None
        result = self.plan.on_end()
        assert result is None or isinstance(result, Deferred)
        return result

    @property
    def mark(self) -> bytes | None:
        return self.headers.get(signing.NOT_PROCESSED)


class Base(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.s3 = FakeS3(self.clock)
        self.node = NodeHarness(self.clock, self.s3)
        self.streams = Streams(self.clock, self.clock.seconds, 2.0)
        self.answers: list[int] = []
        self.limited: list[str] = []
        self.front = Front(
            tenants=self.node.tenants,
            streams=self.streams,
            gateway_keys={"gateway_a": KEY},
            clock=self.clock,
            unix_ms=lambda: NOW_MS,
            answered=self.answers.append,
            limited=self.limited.append,
        )
        self.front.starting = False

    def serve(self) -> None:
        """The tenant is loaded, and a lease proves."""
        self.node.assign(assignment())
        self.node.load()
        self.node.lease()

    def request(
        self,
        method: bytes = b"GET",
        target: bytes = b"/api/x",
        *,
        epoch: int = 1,
        key: bytes = KEY,
        host: bytes = HOST.encode(),
        headers: Headers = (),
        signed: bool = True,
    ) -> FakeExchange:
        what = Signed("gateway_a", T, epoch, NOW_MS, "r1")
        fields = [(b"Host", host + b":8080"), *headers]
        fields += [(SIGNED, sign(key, method, target, what))] if signed else []
        head = RequestHead(method, target, host, fields, None, False, "127.0.0.1")
        exchange = FakeExchange(head)
        self.front.handle(exchange)
        return exchange


class GateTests(Base):
    def test_unsigned(self) -> None:
        """Nobody but a gateway gets in, and is told no more."""
        self.serve()
        for exchange in (self.request(signed=False), self.request(key=b"another")):
            self.assertEqual(exchange.status, 401)
            self.assertEqual(exchange.mark, b"unsigned")
            self.assertIsNone(exchange.plan)

    def test_healthz(self) -> None:
        """Health needs no signature; a signed one is the tenant's own page."""
        self.serve()
        self.assertEqual(self.request(target=b"/healthz", signed=False).status, 200)
        self.assertIsNotNone(self.request(target=b"/healthz").plan)

    def test_served(self) -> None:
        """A proven request goes to PocketBase's port, with the public Host and without marks."""
        self.serve()
        exchange = self.request(headers=[(b"X-Real-IP", b"1.2.3.4"), (b"Connection", b"x-y")])
        assert exchange.plan is not None
        workload = self.node.fake.workloads.running[T]
        self.assertEqual((exchange.plan.host, exchange.plan.port), (workload.host, workload.port))
        self.assertEqual(
            exchange.plan.lines.split(b"\r\n")[:2],
            [b"Host: " + HOST.encode() + b":8080", b"X-Real-IP: 1.2.3.4"],
        )

    def test_not_here(self) -> None:
        """A tenant that is not ours is answered 421 with the epoch known, not processed."""
        exchange = self.request()
        self.node.run(1.1)
        self.assertEqual((exchange.status, exchange.mark), (421, b"moved"))
        self.assertEqual(exchange.headers[signing.NODE_EPOCH], b"0")

    def test_given_away(self) -> None:
        """A tenant that was here is answered 421 at once, naming the next epoch."""
        self.serve()
        self.node.assign()
        exchange = self.request()
        self.assertEqual((exchange.status, exchange.mark), (421, b"moved"))
        self.assertEqual(exchange.headers[signing.NODE_EPOCH], b"2")

    def test_newer_epoch(self) -> None:
        """A node that is behind the gateway does not answer for the old epoch."""
        self.serve()
        exchange = self.request(epoch=2)
        self.node.run(1.1)
        self.assertEqual((exchange.status, exchange.mark), (503, b"loading"))

    def test_foreign_host(self) -> None:
        """A Host that is not the tenant's reaches no PocketBase."""
        self.serve()
        exchange = self.request(host=b"other.localhost")
        self.assertEqual((exchange.status, exchange.mark), (421, b"moved"))

    def test_waits_while_loading(self) -> None:
        """A request waits for its tenant, then is served; not longer than the limit."""
        self.node.fake.workloads.start_delay_s = 1.0
        self.node.assign(assignment())
        exchange = self.request(b"POST")
        self.assertIsNone(exchange.plan)
        self.node.lease()
        self.clock.advance(0.5)
        self.node.lease()
        self.clock.advance(0.6)
        self.assertIsNotNone(exchange.plan)

    def test_loading_too_long(self) -> None:
        """After 30 s a waiting request is answered 503 with Retry-After, not processed."""
        self.node.fake.workloads.start_delay_s = 100.0
        self.node.assign(assignment())
        exchange = self.request()
        self.node.run(30.2)
        self.assertEqual((exchange.status, exchange.mark), (503, b"loading"))
        self.assertIn(b"Retry-After", exchange.headers)

    def test_no_proof(self) -> None:
        """Without lease and S3 nothing is handed on."""
        self.serve()
        self.node.run(3.0)
        self.node.fake.s3.faults.down = True
        exchange = self.request()
        self.assertEqual((exchange.status, exchange.mark), (503, b"no-proof"))
        self.assertIsNone(exchange.plan)

    def test_head_proof(self) -> None:
        """Without a lease, a look at the owner object lets requests through."""
        self.serve()
        self.node.run(3.0)
        self.assertIsNotNone(self.request().plan)

    def test_client_gone_while_waiting(self) -> None:
        """Nothing is sent for a client that left."""
        self.node.fake.workloads.start_delay_s = 1.0
        self.node.assign(assignment())
        exchange = self.request()
        exchange.client_gone = True
        self.node.run(2.0)
        self.assertIsNone(exchange.plan)
        self.assertEqual(exchange.status, 0)

    def test_restore_in_place(self) -> None:
        """PocketBase's own restore of a backup is recognised however it is spelled, if a superuser
        asks for it: the tenant is held. What only looks like it is passed on."""
        self.serve()
        for target in (
            b"/api/backups/one.zip/restore",
            b"/api/backups/one.zip/restore/?x=1",
            b"/api//b%61ckups/a%2Fb.zip/%72estore",
        ):
            unknown = self.request(b"POST", target)
            self.assertEqual(len(unknown.plans), 1)
            unknown.end(Outcome.COMPLETED)
            self.assertIsNotNone(self.node.tenant().upstream(write=True))
            token = (b"Authorization", b"superuser")
            exchange = self.request(b"POST", target, headers=[token])
            self.assertEqual(len(exchange.plans), 1)
            self.assertIsNone(self.node.tenant().upstream(write=True))
            exchange.upstream_answers(ResponseHead(400, b"No", [(b"Content-Length", b"0")]))
            exchange.end(Outcome.COMPLETED)
            self.node.run(0.5)
            self.assertIsNotNone(self.node.tenant().upstream(write=True))
        for method, target in (
            (b"GET", b"/api/backups/one.zip/restore"),
            (b"POST", b"/api/backups/restore.zip"),
            (b"POST", b"/api/backups?x=/api/backups/one.zip/restore"),
        ):
            self.assertEqual(len(self.request(method, target).plans), 1, target)

    def test_who_is_gone_waits_no_longer(self) -> None:
        """A client that goes away while it waits frees its place at once, and the load goes on."""
        self.node.fake.workloads.start_delay_s = 2.0
        self.node.assign(assignment())
        gone = [self.request() for _ in range(20)]
        tenant = self.node.tenant()
        self.assertEqual(len(tenant.changes), 20)
        stays = self.request()
        for exchange in gone:
            exchange.go()
        self.assertEqual(len(tenant.changes), 1)
        self.node.run(4.0)
        self.assertEqual([exchange.status for exchange in gone], [0] * 20)
        self.assertEqual([exchange.plans for exchange in gone], [[]] * 20)
        self.assertEqual(len(stays.plans), 1)

    def test_starting(self) -> None:
        """A node that does not know yet what it owns sends nobody away."""
        self.front.starting = True
        exchange = self.request()
        self.assertEqual((exchange.status, exchange.mark), (503, b"loading"))

    def test_draining(self) -> None:
        """A node that ends takes nothing new."""
        self.serve()
        self.front.draining = True
        exchange = self.request()
        self.assertEqual((exchange.status, exchange.mark), (503, b"draining"))

    def test_connection_headers_are_dropped(self) -> None:
        """What belongs to the gateway's connection, or claims to be ours, is not passed on."""
        fields = [
            (b"Transfer-Encoding", b"chunked"),
            (b"Content-Length", b"3"),
            (b"Connection", b"close, X-Hop"),
            (b"X-Hop", b"1"),
            (b"x-pbcluster-anything", b"1"),
            (b"Accept", b"*/*"),
        ]
        head = RequestHead(b"GET", b"/", b"h", fields, None, False, "::1")
        made = b"traceparent: 00-" + ID.encode() + b"-" + ID[:16].encode() + b"-00"
        self.assertEqual(
            upstream_lines(head, ID).split(b"\r\n"),
            [b"Host: h", b"Accept: */*", b"X-Request-ID: " + ID.encode(), made, b""],
        )

    def test_trace_is_kept(self) -> None:
        """What the gateway let through as a valid trace reaches PocketBase."""
        trace = (b"traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")
        head = RequestHead(b"GET", b"/", b"h", [trace], None, False, "::1")
        lines = upstream_lines(head, ID)
        self.assertEqual(lines.count(b"traceparent"), 1)
        self.assertIn(b": ".join(trace), lines)


class WriteTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.serve()
        self.s3.requests.clear()

    def committed(self, row: str = "a") -> FakeExchange:
        exchange = self.request(b"POST")
        self.node.fake.workloads.running[T].write(row)
        return exchange

    def test_response_waits_until_durable(self) -> None:
        """A write's response is passed on only after the row is in S3."""
        self.node.fake.replication.sync_delay_s = 0.5
        exchange = self.committed()
        exchange.upstream_answers()
        self.assertIsNone(exchange.passed)
        self.node.run(0.6)
        passed = exchange.passed
        assert passed is not None
        self.assertEqual(list(passed.headers), [*OK.headers, (signing.DURABILITY, b"s3")])
        self.assertEqual(self.s3.rows(T, 1), ["a"])

    def test_async_waits_for_nothing(self) -> None:
        """A write of an ``async`` tenant is passed on in the same call, while its oldest unsynced
        one is not older than the bound; then it waits for S3."""
        self.node.tenant().assigned(assignment(durability=Durability.ASYNC))
        self.node.run(0.2)
        self.node.fake.s3.faults.down = True
        exchange = self.committed()
        exchange.upstream_answers()
        passed = exchange.passed
        assert passed is not None
        self.assertEqual(list(passed.headers), [*OK.headers, (signing.DURABILITY, b"async")])
        self.clock.advance(ASYNC_LOSS_BOUND_S + 0.1)
        self.node.lease()
        late = self.committed("b")
        late.upstream_answers()
        self.assertIsNone(late.passed)

    def test_reads_do_not_wait(self) -> None:
        """A read causes no sync."""
        for method in (b"GET", b"HEAD", b"OPTIONS"):
            exchange = self.request(method)
            exchange.upstream_answers()
            self.assertIsNotNone(exchange.passed)
        self.assertEqual(self.s3.requests, [])

    def test_unknown_methods_are_writes(self) -> None:
        """Every other method waits."""
        for method in (b"PUT", b"PATCH", b"DELETE", b"REPORT"):
            self.node.fake.s3.faults.down = True
            exchange = self.request(method)
            exchange.upstream_answers()
            self.assertIsNone(exchange.passed, method)

    def test_not_durable(self) -> None:
        """A failed sync gives 503 without the mark: it was carried out, nobody may repeat it."""
        exchange = self.committed()
        self.node.fake.s3.faults.down = True
        exchange.upstream_answers()
        self.assertEqual((exchange.status, exchange.mark), (503, None))
        self.assertEqual(exchange.body["data"]["code"], "not_durable")

    def test_successor_cuts_the_connection(self) -> None:
        """A write that a successor does not have gets no answer at all."""
        exchange = self.committed("late")
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=2))
        other.load()
        exchange.upstream_answers()
        self.assertTrue(exchange.aborted)
        self.assertEqual(exchange.status, 0)
        self.assertIsNone(exchange.passed)

    def test_last_chunk_waits_if_streamed(self) -> None:
        """A streamed response's end waits for a sync of its own; one with a length does not, nor
        one that has no body (every deletion)."""
        for head in (OK, ResponseHead(204, b"No Content", [])):
            exchange = self.committed()
            exchange.upstream_answers(head)
            self.assertIsNone(exchange.last_chunk())
        exchange = self.committed()
        exchange.upstream_answers(ResponseHead(200, b"OK", []))
        self.node.fake.workloads.running[T].write("while streaming")
        end = exchange.last_chunk()
        assert end is not None
        self.successResultOf(end)
        self.assertIn("while streaming", self.s3.rows(T, 1))
        self.node.fake.workloads.running[T].write("more")
        self.node.fake.s3.faults.down = True
        end = exchange.last_chunk()
        assert end is not None
        self.failureResultOf(end, Refuse)

    def test_marks_of_pocketbase_are_removed(self) -> None:
        """A hook cannot speak in the node's name."""
        for method in (b"GET", b"POST"):
            exchange = self.request(method)
            forged = (signing.NOT_PROCESSED, b"moved")
            exchange.upstream_answers(ResponseHead(503, b"x", [forged, (b"Content-Length", b"0")]))
            assert exchange.passed is not None
            ours = [] if method == b"GET" else [(signing.DURABILITY, b"s3")]
            self.assertEqual(list(exchange.passed.headers), [(b"Content-Length", b"0"), *ours])


class OutcomeTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.serve()

    def open_requests(self) -> int:
        return self.node.tenants.cache.open_requests(T)

    def test_requests_are_counted(self) -> None:
        """An open request is counted until it ended, however it ends."""
        for outcome in (Outcome.COMPLETED, Outcome.BROKEN, Outcome.CLIENT_GONE):
            exchange = self.request()
            self.assertEqual(self.open_requests(), 1)
            exchange.end(outcome)
            self.assertEqual(self.open_requests(), 0)
            self.assertEqual(exchange.status, 0)

    def test_pocketbase_is_not_there(self) -> None:
        """Nothing was sent: the gateway may try again."""
        exchange = self.request(b"POST")
        exchange.end(Outcome.NOT_SENT)
        self.assertEqual((exchange.status, exchange.mark), (503, b"loading"))

    def test_broken_off(self) -> None:
        """A write that PocketBase broke off is 502, without the mark, and sent once."""
        exchange = self.request(b"POST")
        exchange.end(Outcome.NO_RESPONSE, repeatable=True)
        self.assertEqual((exchange.status, exchange.mark), (502, None))
        self.assertEqual(len(exchange.plans), 1)

    def test_safe_request_is_repeated_once(self) -> None:
        """A read that met a dead pooled connection is sent again on a new one, once."""
        exchange = self.request()
        exchange.end(Outcome.NO_RESPONSE, repeatable=True)
        self.assertEqual([plan.reuse for plan in exchange.plans], [True, False])
        exchange.end(Outcome.NO_RESPONSE, repeatable=True)
        self.assertEqual(exchange.status, 502)
        self.assertEqual(self.open_requests(), 0)

    def test_timeout(self) -> None:
        """A PocketBase that does not answer is 504, and the gateway is told whose fault it is."""
        exchange = self.request()
        exchange.end(Outcome.TIMEOUT)
        self.assertEqual((exchange.status, exchange.mark), (504, None))
        self.assertEqual(exchange.headers.get(signing.NO_ANSWER), signing.TENANT)


class StreamTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.serve()
        self.exchange = self.request(target=b"/api/realtime")
        self.exchange.upstream_answers(
            ResponseHead(200, b"OK", [(b"Content-Type", b"text/event-stream")])
        )

    def test_lives_under_a_proof(self) -> None:
        """With S3 there, a stream lives on without leases, and pins no request."""
        self.assertEqual(self.node.tenants.cache.open_requests(T), 0)
        self.node.run(10.0)
        self.assertFalse(self.exchange.aborted)
        self.assertEqual(len(self.streams), 1)

    def test_closed_without_a_proof(self) -> None:
        """Cut from both, it is closed: no earlier than the lease's end, within 2 s after it."""
        self.node.fake.s3.faults.down = True
        self.node.run(1.8)
        self.assertFalse(self.exchange.aborted)
        self.node.run(2.2)
        self.assertTrue(self.exchange.aborted)
        self.assertEqual(len(self.streams), 0)

    def test_ends_by_itself(self) -> None:
        """A stream that ended is not watched any more."""
        self.exchange.end(Outcome.COMPLETED)
        self.node.run(1.0)
        self.assertEqual(len(self.streams), 0)
