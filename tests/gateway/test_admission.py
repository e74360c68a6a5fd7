"""What stands before every passage, on a Clock."""

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway import admission as admission_module
from pbcluster.gateway.admission import TELL_S, WATCH_S, Admission, LoadWatch
from pbcluster.gateway.limited_factory import LimitedFactory
from pbcluster.gateway.limits import AddressLimits, AddressQuota
from pbcluster.gateway.shedding import Overload, Shedding
from pbcluster.web.interfaces import RequestHead
from pbcluster.web.limits import Limits
from pbcluster.web.server_connection import HTTPServerConnection
from tests.gateway.fakes import FakeExchange, World, answer, head, route
from tests.web.heads import changed

PORT = 8090


class AdmissionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.patch(admission_module.log, "observer", self.logged)
        self.make()

    def make(self, *, max_requests: int = 100, **quota: Any) -> None:
        self.world = World()
        self.world.cp.know(route())
        self.world.node(PORT, answer())
        self.world.nodes.start()
        self.addCleanup(self.world.nodes.stop)
        self.shedding = Shedding(max_lag_s=0.1, max_share=0.8)
        self.admission = Admission(
            limits=AddressLimits(AddressQuota(**quota)),
            shedding=self.shedding,
            max_requests=max_requests,
            clock=self.world.clock,
            new_id=lambda: "f" * 32,
        )
        self.world.proxy._admission = self.admission

    def logged(self, event: dict[str, Any]) -> None:
        self.lines.append(event["log_format"].format(**event))

    def send(self, peer: str = "192.0.2.7", **changes: Any) -> FakeExchange:
        request: RequestHead = changed(head(**changes), peer_host=peer)
        return self.world.send(request)


class RefusalTests(AdmissionCase):
    def test_over_the_rate(self) -> None:
        """429 in PocketBase's form, with what tells when to come back; nothing was looked up, no
        line is in the access log; another address is served."""
        self.make(requests_per_second=0.5, burst=2)
        self.assertEqual([self.send().status for _ in range(2)], [200, 200])
        records, asked = len(self.world.records), len(self.world.cp.asked)
        exchange = self.send()
        assert exchange.answered is not None
        status, body, kind, headers = exchange.answered
        self.assertEqual((status, kind), (429, b"application/json"))
        told = json.loads(body)
        self.assertEqual(set(told), {"status", "message", "data"})
        self.assertIn("0.5 a second", told["message"])
        self.assertEqual(headers[b"Retry-After"], b"2")
        self.assertEqual(headers[b"RateLimit-Limit"], b"2")
        self.assertEqual(headers[b"X-Request-ID"], b"f" * 32)
        self.assertEqual((len(self.world.records), len(self.world.cp.asked)), (records, asked))
        self.assertEqual(self.send("192.0.2.8").status, 200)
        self.world.clock.advance(2.0)
        self.assertEqual(self.send().status, 200)
        self.assertEqual(dict(self.admission.refused), {"address_rate": 1})

    def test_requests_at_once(self) -> None:
        """A request counts until it ends, however it ends."""
        self.make(requests=1)
        self.world.node(PORT, None)
        first = self.send()
        self.assertEqual(self.send().status, 429)
        first.go()
        second = self.send()
        self.assertEqual(second.status, 0)
        second.finish(answer())
        self.assertEqual(self.send(host=b"nobody.localhost").status, 404)
        third = self.send()
        self.assertEqual(third.status, 0)
        third.finish(answer())

    def test_all_requests(self) -> None:
        """Beyond the bound of all requests new ones get 503, whoever asks."""
        self.make(max_requests=2)
        self.world.node(PORT, None)
        held = [self.send("192.0.2.1"), self.send("192.0.2.2")]
        exchange = self.send("192.0.2.3")
        assert exchange.answered is not None
        self.assertEqual((exchange.status, exchange.answered[3][b"Retry-After"]), (503, b"1"))
        for each in held:
            each.finish(answer())
        self.world.node(PORT, answer())
        self.assertEqual(self.send("192.0.2.3").status, 200)

    def test_overload(self) -> None:
        """While the loop is late new work gets 503 and what is under way goes on; it ends."""
        self.world.node(PORT, None, answer())
        under_way = self.send()
        for _ in range(9):
            self.shedding.late(1.0)
        self.assertEqual(self.send().status, 503)
        under_way.finish(answer())
        self.assertEqual(under_way.status, 200)
        for _ in range(20):
            self.shedding.late(0.0)
        self.assertEqual(self.send().status, 200)
        self.assertEqual(dict(self.admission.refused), {"lag": 1})

    def test_told_once_a_minute(self) -> None:
        """A flood is one line a minute, with counts, not a line each."""
        self.make(requests_per_second=0.001, burst=1)
        for _ in range(1000):
            self.send()
        self.assertEqual(len(self.lines), 1)
        self.world.clock.advance(TELL_S)
        self.send()
        self.assertEqual(len(self.lines), 2)
        self.assertIn("999 address_rate", self.lines[1])
        self.assertIn("192.0.2.7", self.lines[1])

    def test_shown(self) -> None:
        """Operators see who is at a limit, and why."""
        self.make(requests_per_second=0.001, burst=1)
        for _ in range(3):
            self.send()
        shown = self.admission.show()
        self.assertEqual((shown["overload"], shown["refused"]), ("", {"address_rate": 2}))
        (row,) = shown["addresses"]
        self.assertEqual((row["address"], row["refused"]), ("192.0.2.7", 2))
        json.dumps(shown)


class ConnectionTests(AdmissionCase):
    def test_too_many_of_an_address(self) -> None:
        """A connection over its address's bound is closed unread; one that ends makes room."""
        self.make(connections=2)
        factory = LimitedFactory(
            lambda exchange: None,
            Limits(max_connections=3),
            self.world.clock,
            pool=None,
            admission=self.admission,
        )

        def connect(host: str) -> tuple[HTTPServerConnection, bool]:
            """A connection, and whether it was let in."""
            transport = StringTransport(peerAddress=IPv4Address("TCP", host, 1))
            connection = factory.buildProtocol(None)
            connection.makeConnection(transport)
            if transport.disconnected:  # Twisted would tell
                connection.connectionLost()
            return connection, not transport.disconnected

        first, let_in = connect("192.0.2.1")
        self.assertTrue(let_in and connect("192.0.2.1")[1])
        self.assertFalse(connect("192.0.2.1")[1])
        self.assertTrue(connect("192.0.2.2")[1])
        # One beyond the bound of all is counted out again as well.
        self.assertFalse(connect("192.0.2.2")[1])
        self.assertEqual((factory.connection_count, factory.refused_connections), (3, 1))
        first.connectionLost()
        self.assertTrue(connect("192.0.2.1")[1])
        self.assertEqual(self.admission.refused["address_connections"], 1)
        self.assertFalse(connect("192.0.2.1")[1])
        self.assertEqual(self.admission.refused["address_connections"], 2)


class WatchTests(AdmissionCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.monotonic = 50.0
        self.used = 10
        self.watch = LoadWatch(
            self.clock,
            self.shedding,
            monotonic=lambda: self.monotonic,
            in_use=lambda: self.used,
            limit=lambda: 100,
        )
        self.watch.start()

    def tick(self, late_s: float = 0.0, times: int = 1) -> None:
        for _ in range(times):
            self.monotonic += WATCH_S + late_s
            self.clock.advance(WATCH_S)

    def test_on_time(self) -> None:
        """A timer that comes when it is due says that all is well."""
        self.tick(times=100)
        self.assertEqual((self.shedding.state, self.lines), (Overload.NONE, []))
        self.assertLess(abs(self.shedding.lag_s), 1e-9)

    def test_each_change_is_told_once(self) -> None:
        """Once when it begins, with the figures, and once when it ends."""
        self.tick(0.5, times=50)
        self.assertIs(self.shedding.state, Overload.LAG)
        self.tick(times=50)
        self.used = 90
        self.tick(times=50)
        self.assertIs(self.shedding.state, Overload.DESCRIPTORS)
        self.assertEqual(len(self.lines), 3)
        self.assertIn("(lag)", self.lines[0])
        self.assertIn("served again", self.lines[1])
        self.assertIn("90% of the descriptors", self.lines[2])

    def test_stop(self) -> None:
        """Nothing is left behind."""
        self.tick()
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
