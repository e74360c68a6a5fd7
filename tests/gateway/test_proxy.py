import json

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import signing
from pbcluster.errors import NoCapacity
from pbcluster.gateway.breaker import FAILURES_TO_OPEN, OPEN_S, State
from pbcluster.gateway.flights import OVERTAKEN_GRACE_S
from pbcluster.gateway.holds import MAX_PER_TENANT
from pbcluster.gateway.passage import FIRST_BYTE_TIMEOUT_S
from pbcluster.web.interfaces import Outcome, RequestHead
from tests.gateway.fakes import (
    KEY,
    FakeExchange,
    Step,
    World,
    answer,
    fields_of,
    head,
    marked,
    route,
)

A, B = 8090, 8091
POST = head(method=b"POST", content_length=10)
TO_B = {"node_id": "node_b", "address": f"http://127.0.0.1:{B}"}


class ProxyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.cp.know(route())
        self.world.node(A, answer())
        self.world.nodes.start()
        self.addCleanup(self.world.nodes.stop)

    def tearDown(self) -> None:
        """Whatever happened, nothing stays counted."""
        proxy = self.world.proxy
        self.assertEqual((proxy.active, proxy.holds.total, proxy.budget.taken), (0, 0, 0))

    def message(self, exchange: FakeExchange) -> str:
        assert exchange.answered is not None
        return str(json.loads(exchange.answered[1])["message"])


class UsualTests(ProxyCase):
    def test_forwarded(self) -> None:
        """A request goes to its tenant's node, signed, and the answer comes back with its id."""
        exchange = self.world.send(head(target=b"/api?q=1"))
        (plan,) = exchange.plans
        self.assertEqual((plan.host, plan.port, plan.target), ("127.0.0.1", A, b"/api?q=1"))
        self.assertEqual(plan.first_byte_timeout_s, FIRST_BYTE_TIMEOUT_S)
        now_ms = int(self.world.clock.seconds() * 1000)
        fields = fields_of(plan.lines)
        signed = signing.verify(
            {"gateway_1": KEY}, b"GET", b"/api?q=1", signing.found_in(fields), now_ms
        )
        self.assertEqual((signed.tenant_id, signed.epoch), (route().tenant_id, 1))
        assert exchange.passed is not None
        self.assertEqual(
            exchange.passed.lines, b"X-Request-ID: %b\r\n" % signed.request_id.encode()
        )

    def test_record(self) -> None:
        """Its record says what happened."""
        self.world.send(head(target=b"/api?token=secret"))
        (record,) = self.world.records
        self.assertEqual(
            (record.head.target, record.status, record.node, record.source, record.attempts),
            (b"/api?token=secret", 200, "node_a", "lookup", 1),
        )
        self.world.send()
        self.assertEqual(self.world.records[1].source, "cache")

    def test_unknown(self) -> None:
        """No tenant: 404 in PocketBase's form, nothing is forwarded, no question without a key."""
        for host in (b"other.localhost", b"10.0.0.1", b"localhost"):
            exchange = self.world.send(head(host=host))
            self.assertEqual((exchange.status, exchange.plans), (404, []), host)
            assert exchange.answered is not None
            self.assertEqual(
                json.loads(exchange.answered[1]),
                {"status": 404, "message": self.message(exchange), "data": {}},
            )
        self.assertEqual(len(self.world.cp.lookups), 2)

    def test_host_is_not_the_tenants(self) -> None:
        """Below a base domain of this gateway that the tenant's own name does not have, the node
        gets the tenant's own Host; a domain that it lost meanwhile is 404."""
        self.world.cp.know(route(hosts=("shop.example.com",)))
        exchange = self.world.send()
        sent = dict(fields_of(exchange.plans[0].lines))
        self.assertEqual(sent[b"Host"], b"shop.example.com")
        self.assertEqual(sent[b"X-Forwarded-Host"], b"shop.localhost:8080")
        self.world.cp.routes["old.example.com"] = route(hosts=("shop.example.com",))
        exchange = self.world.send(head(host=b"old.example.com"))
        self.world.until(exchange)
        self.assertEqual((exchange.status, exchange.plans), (404, []))

    def test_tenants_error_is_passed_on(self) -> None:
        """A tenant's own 5xx or 421 is its answer, and a success of the node; so is a 429 that the
        node made, with what tells when to come back."""
        limit = ((b"Retry-After", b"7"), (b"RateLimit-Limit", b"20"), (b"RateLimit-Reset", b"7"))
        for status in (500, 502, 503, 421, 429):
            self.world.node(A, answer(status, *limit))
            for _ in range(FAILURES_TO_OPEN):
                exchange = self.world.send()
                assert exchange.passed is not None
                self.assertEqual((exchange.status, len(exchange.plans)), (status, 1))
                self.assertEqual([f for f in exchange.passed.headers if f in limit], list(limit))
        self.assertIs(self.world.nodes.state(route()), State.CLOSED)

    def test_body_quota(self) -> None:
        """A body over the tenant's bound is 413 unread; a bounded one is watched on its way."""
        self.world.cp.know(route(max_body_bytes=9))
        exchange = self.world.send(POST)
        self.assertEqual((exchange.status, exchange.plans), (413, []))
        self.world.clock.advance(301.0)
        self.world.cp.know(route(max_body_bytes=10))
        self.world.send(head())  # fetches the newer route behind it
        exchange = self.world.send(POST)
        self.assertEqual((exchange.status, exchange.body_limit), (200, 10))

    def test_timeout(self) -> None:
        """No answer in time is 504 and never repeated."""
        self.world.node(A, Outcome.TIMEOUT)
        exchange = self.world.send()
        self.assertEqual((exchange.status, len(exchange.plans)), (504, 1))

    def test_stream(self) -> None:
        """An event stream gives its verdict with its head, and ends when its client goes."""
        self.world.node(A, None)
        exchange = self.world.send()
        exchange.go()
        self.assertEqual(self.world.records[0].outcome, "client_gone")


class HoldTests(ProxyCase):
    def test_loading(self) -> None:
        """A request for a tenant that loads waits, whatever its method."""
        for request in (head(), POST):
            self.world.node(A, marked(b"loading"), marked(b"loading"), answer())
            exchange = self.world.send(request)
            self.assertEqual(exchange.status, 0)
            self.assertLess(self.world.until(exchange), 1.0)
            self.assertEqual((exchange.status, len(exchange.plans)), (200, 3))

    def test_moved(self) -> None:
        """After 421 the new owner is asked for by its epoch and gets the request at once."""
        self.world.send()
        self.world.node(A, marked(b"moved", 421, 4))
        self.world.node(B, answer())
        self.world.cp.know(route(epoch=4, **TO_B))
        exchange = self.world.send(POST)
        self.assertEqual(exchange.status, 200)
        self.assertEqual([plan.port for plan in exchange.plans], [A, B])
        self.assertEqual(self.world.cp.lookups[-1].min_epoch, 4)

    def test_moved_before_anybody_knows(self) -> None:
        """While nobody else knows the epoch that a node told of, the request waits."""
        self.world.send()
        self.world.node(A, marked(b"moved", 421, 4))
        self.world.node(B, answer())
        exchange = self.world.send()
        self.world.advance(2.0)
        self.assertEqual((exchange.status, len(exchange.plans)), (0, 1))
        self.world.cp.know(route(epoch=4, **TO_B))
        self.assertLess(self.world.until(exchange), 1.0)
        self.assertEqual(exchange.status, 200)

    def test_node_dies(self) -> None:
        """The owner dies: GETs that it had, and all later requests, wait for the new owner."""
        self.world.send()
        self.world.node(A, None)
        inside = [self.world.send() for _ in range(50)]
        self.world.node(A, Outcome.NOT_SENT)
        for exchange in inside:
            exchange.finish(Outcome.NO_RESPONSE)
        later = [self.world.send(POST) for _ in range(10)]
        self.world.advance(3.0)
        self.assertEqual({exchange.status for exchange in inside + later}, {0})
        self.assertGreaterEqual(len(self.world.cp.suspected), 1)
        self.world.node(B, answer())
        self.world.cp.know(route(epoch=2, **TO_B))
        took = max(self.world.until(exchange) for exchange in inside + later)
        self.assertLess(took, 0.6)
        self.assertEqual({exchange.status for exchange in inside + later}, {200})
        # The dead node was spared by its breaker.
        knocks = sum(p.port == A for e in inside + later for p in e.plans) - len(inside)
        self.assertLessEqual(knocks, 2 * FAILURES_TO_OPEN)

    def test_broadcast_wakes(self) -> None:
        """A held request goes on in the moment in which the new route is told."""
        self.world.send()
        self.world.node(A, Outcome.NOT_SENT)
        exchange = self.world.send()
        self.world.advance(2.0)
        moved = route(epoch=2, **TO_B)
        self.world.node(B, answer())
        self.world.routes.put(moved, 9, self.world.clock.seconds())
        self.world.proxy.moved(moved)
        self.world.clock.advance(0)
        self.assertEqual(exchange.status, 200)

    def overtake(self, request: RequestHead | None = None, **changes: str) -> FakeExchange:
        """A request that its node never answers, though its connection stands; then the move."""
        self.world.node(A, None)
        exchange = self.world.send(request)
        self.world.node(B, answer())
        moved = self.world.cp.know(route(**(TO_B | changes), epoch=2))
        self.world.routes.put(moved, 9, self.world.clock.seconds())
        self.world.proxy.moved(moved)
        return exchange

    def test_read_in_a_silent_node(self) -> None:
        """A node without power closes no connection: a read goes to the new owner at once."""
        exchange = self.overtake()
        self.assertLess(self.world.until(exchange), 0.6)
        self.assertEqual((exchange.status, len(exchange.plans)), (200, 2))

    def test_write_in_a_silent_node(self) -> None:
        """A write in the hands of a silent node is given up when a living one would be done, and
        not sent twice."""
        exchange = self.overtake(POST)
        self.world.advance(OVERTAKEN_GRACE_S - 0.5)
        self.assertEqual(exchange.status, 0)
        self.world.advance(1.0)
        self.assertEqual((exchange.status, len(exchange.plans)), (502, 1))

    def test_write_in_a_node_that_lives(self) -> None:
        """A new epoch on the same node, in the same life, takes nothing out of its hands."""
        exchange = self.overtake(POST, node_id="node_a", address=f"http://127.0.0.1:{A}")
        self.world.advance(OVERTAKEN_GRACE_S + 1.0)
        self.assertEqual(exchange.status, 0)
        exchange.finish(answer())
        self.assertEqual(exchange.status, 200)

    def test_write_in_a_dead_node(self) -> None:
        """A write that a node may have carried out is not sent twice: 502, and it says so."""
        self.world.node(A, Outcome.NO_RESPONSE)
        exchange = self.world.send(POST)
        self.assertEqual((exchange.status, len(exchange.plans)), (502, 1))
        self.assertIn("not known", self.message(exchange))

    def test_read_that_kills(self) -> None:
        """A read is sent three times at most without an answer."""
        self.world.node(A, Outcome.NO_RESPONSE)
        exchange = self.world.send()
        self.world.until(exchange)
        self.assertEqual((exchange.status, len(exchange.plans)), (502, 3))

    def test_body_gone(self) -> None:
        """A marked answer to a body that cannot be sent again becomes a 503."""
        self.world.node(A, marked(b"draining"))
        exchange = self.world.send(POST, repeatable=False)
        self.assertEqual((exchange.status, len(exchange.plans)), (503, 1))
        assert exchange.answered is not None
        self.assertIn(b"Retry-After", exchange.answered[3])

    def test_hold_ends(self) -> None:
        """After hold_s the client gets 503 with Retry-After."""
        self.world.node(A, Outcome.NOT_SENT)
        exchange = self.world.send()
        took = self.world.until(exchange)
        self.assertTrue(30.0 <= took <= 30.1, took)
        assert exchange.answered is not None
        self.assertEqual((exchange.status, exchange.answered[3][b"Retry-After"]), (503, b"1"))
        self.assertTrue(30.0 <= self.world.records[0].held_s <= took)

    def test_nodes_own_reason_at_the_end(self) -> None:
        """At the end of its time a request gets the node's own 503, without its mark."""
        self.world.node(A, marked(b"loading"))
        exchange = self.world.send()
        self.world.until(exchange)
        assert exchange.passed is not None
        self.assertEqual(exchange.passed.status, 503)
        self.assertIsNone(exchange.passed.get(signing.NOT_PROCESSED.lower()))

    def test_no_room(self) -> None:
        """No node with room: the request waits for one, then gets the reason."""
        self.world.cp.error = NoCapacity("no node has room for tenant 'shop'")
        exchange = self.world.send()
        self.world.advance(5.0)
        self.assertEqual(exchange.status, 0)
        self.world.until(exchange)
        self.assertEqual(exchange.status, 503)
        self.assertIn("no node has room", self.message(exchange))

    def test_client_goes(self) -> None:
        """A held request whose client goes is forgotten, and nothing is forwarded for it."""
        self.world.cp.delay_s = 1.0
        exchange = self.world.send()
        exchange.go()
        self.world.advance(3.0)
        self.assertEqual((exchange.plans, self.world.records[0].outcome), ([], "client_gone"))

    def test_client_goes_in_a_pause(self) -> None:
        """The same while it pauses between two attempts."""
        self.world.node(A, marked(b"loading"))
        exchange = self.world.send()
        self.world.advance(3.0)
        attempts = len(exchange.plans)
        exchange.go()
        self.world.advance(3.0)
        self.assertEqual(len(exchange.plans), attempts)
        self.assertEqual(self.world.clock.getDelayedCalls()[1:], [])

    def test_too_many_wait(self) -> None:
        """Beyond its bound a tenant's further requests are refused at once."""
        self.world.cp.delay_s = 1.0
        waiting = [self.world.send() for _ in range(MAX_PER_TENANT)]
        refused = self.world.send()
        self.assertEqual(refused.status, 503)
        self.world.advance(1.1)
        self.assertEqual({exchange.status for exchange in waiting}, {200})

    def test_one_crowd_by_many_names(self) -> None:
        """However many names a known tenant has, all that wait for it count together."""
        names = [f"www{number}.example.com" for number in range(3)]
        self.world.cp.know(route(hosts=("shop.localhost", *names)))
        self.world.send()
        self.world.node(A, marked(b"loading"))
        hosts = [b"shop.localhost", *(name.encode() for name in names)]
        waiting = [
            self.world.send(head(host=hosts[number % len(hosts)]))
            for number in range(MAX_PER_TENANT)
        ]
        self.assertEqual({exchange.status for exchange in waiting}, {0})
        self.assertEqual([self.world.send(head(host=host)).status for host in hosts], [503] * 4)
        for exchange in waiting:
            exchange.go()

    def test_hold_of_zero(self) -> None:
        """With hold_s = 0 nothing waits, yet a first look-up and one other way are tried."""
        self.world = World(hold_s=0.0)
        self.world.cp.know(route())
        self.world.node(A, answer())
        self.assertEqual(self.world.send().status, 200)
        self.world.node(A, marked(b"moved", 421, 2))
        self.world.node(B, answer())
        self.world.cp.know(route(epoch=2, **TO_B))
        self.assertEqual(self.world.send().status, 200)
        self.world.node(B, Outcome.NOT_SENT)
        exchange = self.world.send()
        self.assertLess(self.world.until(exchange), 0.1)
        self.assertEqual(exchange.status, 503)


class OutageTests(ProxyCase):
    def test_control_plane_away(self) -> None:
        """Known tenants are served through an outage of the control plane, unknown ones wait."""
        self.world.send()
        self.world.cp.away = True
        self.world.clock.advance(10_000.0)
        for _ in range(5):
            self.assertEqual(self.world.send().status, 200)
            self.world.advance(1.0)
        exchange = self.world.send(head(host=b"other.localhost"))
        self.world.advance(5.0)
        self.assertEqual(exchange.status, 0)
        self.world.until(exchange)
        self.assertEqual((exchange.status, self.message(exchange)), (503, _AWAY))

    def test_node_restarts_while_away(self) -> None:
        """A node that comes back during the outage is found again by its health."""
        self.world.send()
        self.world.cp.away = True
        self.world.node(A, Outcome.NOT_SENT)
        self.world.well["http://127.0.0.1:8090"] = False
        exchange = self.world.send()
        self.world.advance(8.0)
        self.assertEqual(exchange.status, 0)
        self.world.well["http://127.0.0.1:8090"] = True
        self.world.node(A, answer())
        self.world.until(exchange)
        self.assertEqual(exchange.status, 200)

    def test_node_in_trouble(self) -> None:
        """A node without any proof is left alone after some attempts."""
        self.world.node(A, marked(b"no-proof"))
        exchanges = [self.world.send() for _ in range(20)]
        self.world.advance(1.0)
        self.assertIs(self.world.nodes.state(route()), State.OPEN)
        self.assertLess(sum(len(exchange.plans) for exchange in exchanges), 25)
        for exchange in exchanges:
            exchange.go()

    def test_marks(self) -> None:
        """Which of the node's marks count against the node: those that are about all of it."""
        for mark in signing.NOT_PROCESSED_REASONS:
            self.world = World(hold_s=0.0)
            self.world.cp.know(route())
            self.world.node(A, marked(mark))
            for _ in range(FAILURES_TO_OPEN):
                self.world.send()
            opened = self.world.nodes.state(route()) is State.OPEN
            self.assertEqual(opened, mark in (b"no-proof", b"busy", b"unsigned"), mark)

    def test_one_tenants_trouble(self) -> None:
        """A tenant that never loads does not open its node's breaker for its neighbours."""
        self.world.cp.know(route("crashing"))
        self.world.behave[A] = lambda plan: (
            marked(b"loading") if b"Host: crashing" in plan.lines else answer()
        )
        waiting = [self.world.send(head(host=b"crashing.localhost")) for _ in range(20)]
        for _ in range(20):
            self.world.advance(0.2)
            self.assertEqual(self.world.send().status, 200)
        for exchange in waiting:
            exchange.go()


class SlowTenantTests(ProxyCase):
    LATE = (signing.NO_ANSWER, signing.TENANT)

    def one_is_slow(self, step: Step) -> None:
        """Tenant ``slow`` does this; its neighbour on the node answers."""
        self.world.cp.know(route("slow"))
        self.world.behave[A] = lambda plan: step if b"Host: slow" in plan.lines else answer()

    def ask(self) -> FakeExchange:
        return self.world.send(head(host=b"slow.localhost"))

    def test_without_an_answer(self) -> None:
        """After five requests without an answer in time, in the gateway's words or the node's, a
        tenant's requests are held and end in 503 with Retry-After; its neighbours and its node do
        not feel it. When it answers again, held reads find it out."""
        for step in (Outcome.TIMEOUT, answer(504, self.LATE)):
            self.world = World(hold_s=1.0)
            self.world.cp.know(route())
            self.one_is_slow(step)
            for _ in range(FAILURES_TO_OPEN):
                self.assertEqual(self.ask().status, 504)
                self.assertEqual(self.world.send().status, 200)
            refused = self.ask()
            self.world.until(refused)
            assert refused.answered is not None
            self.assertEqual((refused.status, refused.plans), (503, []))
            self.assertIn(b"Retry-After", refused.answered[3])
            self.assertEqual(self.world.send(POST).status, 200)
            self.assertIs(self.world.nodes.state(route()), State.CLOSED)
            self.one_is_slow(answer())
            self.world.advance(OPEN_S * 1.2)
            self.assertEqual([self.ask().status for _ in range(3)], [200] * 3)
            self.assertEqual(self.world.proxy.tenant_breakers.not_closed, 0)

    def test_an_answer_between(self) -> None:
        """A tenant that answers now and then is not held back, whatever it answers; the node's mark
        never reaches a client."""
        late = answer(504, self.LATE)
        self.world.node(A, *([late] * 4 + [answer(500)] + [late] * 4 + [answer()]))
        exchanges = [self.world.send() for _ in range(10)]
        self.assertEqual([len(each.plans) for each in exchanges], [1] * 10)
        for each in exchanges:
            assert each.passed is not None
            self.assertIsNone(each.passed.get(signing.NO_ANSWER.lower()))

    def test_nothing_stays_counted(self) -> None:
        """Probes whose client goes, or that the node sends back, make room for others."""
        self.one_is_slow(Outcome.TIMEOUT)
        for _ in range(FAILURES_TO_OPEN):
            self.ask()
        self.world.advance(OPEN_S * 1.2)
        self.one_is_slow(None)
        self.ask().go()
        self.one_is_slow(marked(b"loading"))
        returned = self.ask()
        self.world.advance(0.2)
        returned.go()
        self.one_is_slow(answer())
        self.assertEqual([self.ask().status for _ in range(3)], [200] * 3)


class RepeatTests(ProxyCase):
    def test_budget(self) -> None:
        """Of requests that a node broke off, three (a fifth of many) are repeated at once, the
        others after them."""
        self.world.send()
        self.world.node(A, None)
        exchanges = [self.world.send() for _ in range(4)]
        for exchange in exchanges:
            exchange.finish(Outcome.NO_RESPONSE)
        self.world.advance(2.0)
        self.assertIs(self.world.nodes.state(route()), State.CLOSED)
        self.assertEqual(sum(exchange.pending is not None for exchange in exchanges), 3)
        for exchange in exchanges:
            if exchange.pending is not None:
                exchange.finish(answer())
        self.world.node(A, answer())
        self.world.advance(1.0)
        self.assertEqual([exchange.status for exchange in exchanges], [200] * 4)

    def test_stale_connections(self) -> None:
        """That pooled connections ended says nothing about their node."""
        self.world.node(A, None)
        for _ in range(FAILURES_TO_OPEN):
            exchange = self.world.send(POST)
            exchange.reused = True
            exchange.finish(Outcome.NO_RESPONSE)
        self.assertIs(self.world.nodes.state(route()), State.CLOSED)
        for _ in range(FAILURES_TO_OPEN):
            self.world.send(POST).finish(Outcome.NO_RESPONSE)
        self.assertIs(self.world.nodes.state(route()), State.OPEN)

    def test_junk_on_pooled_connections(self) -> None:
        """Bytes that are no answer are a failure of the node, on a pooled connection too."""
        self.world.node(A, None)
        for _ in range(FAILURES_TO_OPEN):
            exchange = self.world.send(POST)
            exchange.reused = exchange.junk = True
            exchange.finish(Outcome.NO_RESPONSE)
        self.assertIs(self.world.nodes.state(route()), State.OPEN)

    def test_open_breaker_asks_at_once(self) -> None:
        """Where a breaker bars the remembered way, a newer one is asked for without a pause."""
        self.world.node(A, Outcome.NO_RESPONSE)
        for _ in range(FAILURES_TO_OPEN):
            self.world.send(POST)
        barred = self.world.send(POST)
        self.assertEqual(barred.status, 0)
        self.world.clock.advance(0.1)
        self.world.node(B, answer())
        self.world.cp.know(route(epoch=2, **TO_B))
        self.assertEqual(self.world.send(POST).status, 200)
        self.world.until(barred)


_AWAY = "the control plane does not answer"
