"""The front door and tenants' quotas: who is refused costs nothing, neighbours are served."""

from __future__ import annotations

from typing import Any

from pbcluster.node import front as front_module
from pbcluster.node.gates import Gates
from pbcluster.node.quotas import Defaults, Quotas
from pbcluster.node.storage import Storage
from pbcluster.records import TenantQuotas
from pbcluster.signing import SIGNED, Signed, sign
from pbcluster.web.interfaces import Outcome, Refuse, RequestHead, ResponseHead
from tests.node.harness import T, U, assignment
from tests.node.test_front import KEY, NOW_MS, Base, FakeExchange

OTHER = "other.localhost"
EVENTS = ResponseHead(200, b"OK", [(b"Content-Type", b"text/event-stream")])


class LimitCase(Base):
    def setUp(self) -> None:
        super().setUp()
        self.front._quotas = Quotas(Defaults(), max_held=5)
        self.of_t = TenantQuotas()

    def assign_both(self, **quotas: Any) -> None:
        """``quotas`` are tenant T's; its neighbour U has none."""
        self.of_t = TenantQuotas(**quotas)
        neighbour = assignment(U, name="other", hosts=(OTHER,))
        self.node.assign(assignment(quotas=self.of_t), neighbour)

    def serve_both(self, **quotas: Any) -> None:
        self.assign_both(**quotas)
        for tenant_id in (T, U):
            self.node.load(tenant_id)
        self.node.lease()

    def neighbours(self, method: bytes = b"GET") -> FakeExchange:
        """A request for tenant U."""
        signed = sign(KEY, method, b"/api/x", Signed("gateway_a", U, 1, NOW_MS, "r1"))
        fields = [(b"Host", OTHER.encode()), (SIGNED, signed)]
        exchange = FakeExchange(
            RequestHead(method, b"/api/x", OTHER.encode(), fields, None, False, "127.0.0.1")
        )
        self.front.handle(exchange)
        return exchange


class RateTests(LimitCase):
    def test_over_the_rate(self) -> None:
        """429 with what tells when to come back, and without the mark: it is for the client."""
        self.serve_both(requests_per_second=0.5, burst=2)
        for _ in range(2):
            self.assertEqual(len(self.request().plans), 1)
        exchange = self.request()
        self.assertEqual((exchange.status, exchange.mark, exchange.plans), (429, None, []))
        self.assertEqual(exchange.headers[b"Retry-After"], b"2")
        self.assertEqual(exchange.headers[b"RateLimit-Limit"], b"2")
        self.assertEqual(exchange.headers[b"RateLimit-Remaining"], b"0")
        self.assertEqual(exchange.body["data"]["code"], "limited")
        self.assertEqual((self.limited, self.answers), (["rate"], [429]))

    def test_neighbours_are_served(self) -> None:
        """One tenant's crowd of 1,000 at its limit: every request of its neighbour is served."""
        self.serve_both(requests_per_second=1, burst=5, concurrent_requests=3)
        crowd = []
        for _ in range(1_000):
            crowd.append(self.request())
            neighbour = self.neighbours()
            self.assertEqual(len(neighbour.plans), 1)
            neighbour.end(Outcome.COMPLETED)
        self.assertEqual(sum(len(each.plans) for each in crowd), 3)
        self.assertEqual({each.status for each in crowd}, {0, 429})

    def test_no_load_and_no_hold(self) -> None:
        """Who is over the limit starts no load and waits for none."""
        self.assign_both(requests_per_second=0.001, burst=1)
        self.front._quotas.enter(T, self.of_t, self.clock.seconds())
        self.assertEqual(self.request().status, 429)
        self.node.run(1.0)
        self.assertEqual(self.node.tenant().state.value, "absent")
        self.assertEqual(len(self.node.tenant().changes), 0)

    def test_what_goes_back_is_not_charged(self) -> None:
        """A request that the gateway sends again (no proof, draining) costs its tenant nothing."""
        self.serve_both(requests_per_second=0.001, burst=1)
        self.front.draining = True
        for _ in range(5):
            self.assertEqual(self.request().mark, b"draining")
        self.front.draining = False
        exchange = self.request()
        self.assertEqual(len(exchange.plans), 1)
        exchange.end(Outcome.NOT_SENT)
        self.assertEqual(exchange.mark, b"loading")
        self.assertEqual(len(self.request().plans), 1)
        self.assertEqual(self.request().status, 429)

    def test_a_change_counts_at_once(self) -> None:
        """New quotas in the next list of assignments hold for the next request, without a stop."""
        self.serve_both(requests_per_second=0.001, burst=1)
        self.request()
        self.assertEqual(self.request().status, 429)
        self.assign_both(requests_per_second=10, burst=10)
        self.node.lease()
        self.node.run(0.2)
        self.assertEqual(len(self.request().plans), 1)

    def test_moved(self) -> None:
        """A tenant that is not here is sent on, never limited: its next node judges."""
        self.node.assign()
        self.front._quotas = Quotas(Defaults(requests_per_second=0.001, burst=1, requests=1))
        exchanges = [self.request() for _ in range(9)]
        self.node.run(1.2)
        self.assertEqual({each.status for each in exchanges}, {421})


class ConcurrencyTests(LimitCase):
    def test_at_once(self) -> None:
        """The bound counts from arrival to end, however a request ends."""
        self.serve_both(concurrent_requests=1)
        for end in (Outcome.COMPLETED, Outcome.BROKEN, Outcome.CLIENT_GONE, Outcome.TIMEOUT):
            exchange = self.request()
            self.assertEqual(len(exchange.plans), 1, end)
            self.assertEqual(self.request().status, 429)
            exchange.end(end)
        self.node.fake.workloads.running[T].write("row")
        write = self.request(b"POST")
        self.assertEqual(self.request().status, 429)
        write.upstream_answers()
        write.end(Outcome.COMPLETED)
        self.assertEqual(len(self.request().plans), 1)

    def test_a_failed_hand_over(self) -> None:
        """A hand-over that cannot even begin leaves nothing counted."""
        self.serve_both(concurrent_requests=1)

        def forward(plan: object, done: object) -> None:
            raise RuntimeError("no")

        patched = self.patch(FakeExchange, "forward", lambda self, plan, done: forward(plan, done))
        with self.assertRaises(RuntimeError):  # the server answers 500
            self.request()
        patched.restore()
        self.assertEqual(len(self.request().plans), 1)

    def test_streams_have_a_bound_of_their_own(self) -> None:
        """Event streams leave room for requests; one too many is 429, and its upstream is left."""
        self.serve_both(concurrent_requests=1, event_streams=2)
        streams = [self.request(target=b"/api/realtime") for _ in range(1)]
        streams[0].upstream_answers(EVENTS)
        streams.append(self.request(target=b"/api/realtime"))
        streams[1].upstream_answers(EVENTS)
        third = self.request(target=b"/api/realtime")
        assert third.plan is not None
        assert third.plan.on_response is not None
        with self.assertRaises(Refuse):
            third.plan.on_response(EVENTS)
        third.end(Outcome.REFUSED)
        self.assertEqual((third.status, third.mark, len(self.streams)), (429, None, 2))
        self.assertEqual(self.limited, ["event_streams"])
        self.assertEqual(len(self.request().plans), 1)
        streams[0].end(Outcome.CLIENT_GONE)

    def test_a_write_is_never_refused_for_a_stream(self) -> None:
        """What was carried out is not called refused."""
        self.serve_both(event_streams=1)
        self.request(target=b"/api/realtime").upstream_answers(EVENTS)
        write = self.request(b"POST", b"/api/realtime")
        write.upstream_answers(EVENTS)
        self.assertIsNotNone(write.passed)
        write.end(Outcome.COMPLETED)


class HoldTests(LimitCase):
    def test_one_tenant_cannot_take_all_places(self) -> None:
        """A crowd that waits for its tenant is bounded by itself: 503 beyond, without the mark, and
        a neighbour waits and is served."""
        self.node.fake.workloads.start_delay_s = 0.5
        self.assign_both()
        crowd = [self.request() for _ in range(8)]
        neighbour = self.neighbours()
        self.assertEqual([each.status for each in crowd], [0] * 5 + [503] * 3)
        self.assertEqual({each.mark for each in crowd[5:]}, {None})
        self.assertEqual(crowd[7].headers[b"Retry-After"], b"1")
        self.assertEqual(self.limited, ["held"] * 3)
        for _ in range(10):
            self.node.lease()
            self.node.run(0.2)
        self.assertEqual([len(each.plans) for each in crowd], [1] * 5 + [0] * 3)
        self.assertEqual(len(neighbour.plans), 1)
        self.assertEqual(self.front._held, 0)

    def test_all_places(self) -> None:
        """The bound of all: busy, with the mark; who need not wait is served all the same."""
        self.patch(front_module, "MAX_HELD", 2)
        neighbour = assignment(U, name="other", hosts=(OTHER,))
        self.node.assign(assignment(), neighbour)
        self.node.load(U)
        self.node.lease()
        self.node.fake.workloads.start_delay_s = 5.0
        crowd = [self.request() for _ in range(3)]
        self.assertEqual((crowd[2].status, crowd[2].mark), (503, b"busy"))
        self.assertEqual(len(self.neighbours().plans), 1)
        for each in crowd[:2]:
            each.go()
        self.assertEqual(self.front._held, 0)


class StorageTests(LimitCase):
    def test_a_full_tenant(self) -> None:
        """Writes are 507 in PocketBase's form, with what is used and allowed and without the mark;
        they cost the tenant no token. Reads, DELETE and its neighbour go on."""
        self.serve_both(max_db_bytes=1000, requests_per_second=0.001, burst=3)
        storage = Storage(self.node.tenants, clock=self.clock, database_bytes=lambda tenant: 2000)
        self.front._gates = Gates(storage, self.limited.append)
        self.assertEqual(len(self.request(b"POST").plans), 1)
        storage.look()
        for method in (b"POST", b"PATCH", b"PUT"):
            exchange = self.request(method)
            self.assertEqual((exchange.status, exchange.mark, exchange.plans), (507, None, []))
        self.assertEqual(exchange.body["status"], 507)
        data = {"code": "storage_full", "used_bytes": 2000, "max_bytes": 1000}
        self.assertEqual(exchange.body["data"], data)
        self.assertEqual(self.limited, ["storage"] * 3)
        self.assertEqual(len(self.request(b"DELETE").plans), 1)
        self.assertEqual(len(self.request(b"GET").plans), 1)
        self.assertEqual(len(self.neighbours(b"POST").plans), 1)


class PlatformTests(LimitCase):
    def test_the_platforms_routes(self) -> None:
        """They are 404 for every client, in each spelling that a router may take for them; what
        only looks alike is the tenant's."""
        self.serve_both()
        for target in (
            b"/api/pbcluster/login",
            b"/api/pbcluster/",
            b"/api/pbcluster",
            b"//api//pbcluster//login",
            b"/api/./pbcluster/login",
            b"/x/../api/pbcluster/login",
            b"/api/x/../pbcluster/login",
            b"/%61pi/pbclu%73ter/login",
            b"/api%2fpbcluster%2flogin",
            b"/%2561pi/pbcluster/login",
            b"/api\\pbcluster\\login",
            b"/API/PBCLUSTER/login",
            b"/api/pbcluster/login?x=1",
            b"/api/pbcluster;x/login",
        ):
            exchange = self.request(b"POST", target)
            self.assertEqual((exchange.status, exchange.mark), (404, None), target)
            self.assertEqual(exchange.plans, [], target)
        for target in (b"/api/pbclusters", b"/pbcluster/login", b"/x?y=/api/pbcluster/login"):
            self.assertEqual(len(self.request(b"POST", target).plans), 1, target)
