"""A whole gateway at its limits, on real sockets; clients have addresses of their own below
127.0.0.0/8."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from pbcluster.gateway.admission import WATCH_S
from tests.gateway.test_service import GatewayCase, RawClient

reactor: Any = _reactor
GET = b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"
A, B = "127.0.0.2", "127.0.0.3"


class _Client(RawClient):
    """Also tells when its connection ended."""

    def __init__(self) -> None:
        super().__init__()
        self.over: Deferred[None] = Deferred()

    def connectionLost(self, reason: object = None) -> None:  # type: ignore[override]
        self.over.callback(None)


class LimitTests(GatewayCase):
    """One gateway after the other, in place of the one that the base class starts."""

    async def begin(self, **changes: Any) -> None:
        await self.service.stopService()
        self.service = self.start(limit_exempt_networks="", **changes)

    async def connect(self, address: str) -> _Client:
        assert self.service.public is not None
        port = self.service.public.getHost().port
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, bindAddress=(address, 0))
        client: _Client = await endpoint.connect(Factory.forProtocol(_Client))  # type: ignore
        self.addCleanup(client.transport.abortConnection)  # type: ignore[union-attr]
        return client

    async def get(self, client: _Client) -> bytes:
        """The answer to one request."""
        client.received = b""
        client.transport.write(GET)  # type: ignore[union-attr]
        await client.until(b"\r\n\r\n")
        if b"hello" not in client.received:
            await client.until(b"}")
        return client.received

    async def limits(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.local("/debug/limits"))[1])
        return found

    async def test_rate(self) -> None:
        """An address over its rate gets 429 and keeps its connection; another one is served."""
        await self.begin(requests_per_second_per_address=0.01, burst_per_address=3)
        one, other = await self.connect(A), await self.connect(B)
        answers = [await self.get(one) for _ in range(5)]
        self.assertEqual([b"429" in each[:20] for each in answers], [False] * 3 + [True] * 2)
        self.assertIn(b"Retry-After: 100\r\n", answers[4])
        self.assertIn(b"RateLimit-Limit: 3\r\n", answers[4])
        self.assertIn(b"RateLimit-Remaining: 0\r\n", answers[4])
        self.assertIn(b"200 OK", await self.get(other))
        shown = await self.limits()
        self.assertEqual(shown["refused"], {"address_rate": 2})
        self.assertEqual(shown["addresses"][0]["address"], A)
        _, text = await self.local("/metrics")
        self.assertIn('pbcluster_gateway_limited_total{reason="address_rate"} 2.0', text)
        self.assertNotIn(A, text)
        self.assertEqual(len(self.node.signed), 4)

    async def test_connections(self) -> None:
        """A connection over its address's bound is closed, the others and other addresses not."""
        await self.begin(connections_per_address=2)
        clients = [await self.connect(A) for _ in range(2)]
        await (await self.connect(A)).over
        for each in (*clients, await self.connect(B)):
            self.assertIn(b"200 OK", await self.get(each))
        clients[0].transport.abortConnection()  # type: ignore[union-attr]
        await clients[0].over
        while self.service._made.factory.connection_count > 2:
            await deferLater(reactor, 0.01)
        self.assertIn(b"200 OK", await self.get(await self.connect(A)))

    async def test_requests(self) -> None:
        """Beyond the bound of all requests new ones get 503; those under way end well."""
        await self.begin(max_requests=1)
        one, other = await self.connect(A), await self.connect(B)
        one.transport.write(GET.replace(b"/ ", b"/slow "))  # type: ignore[union-attr]
        await self.node.slow_begun
        self.assertIn(b"503", (await self.get(other))[:20])
        (slow,) = self.node.slow
        slow.write(b"late")
        slow.finish()
        await one.until(b"late")
        self.assertIn(b"200 OK", await self.get(other))

    async def test_busy_loop(self) -> None:
        """While the loop is late, new requests get 503 and health answers; what was under way ends
        well, and soon all are served again."""
        await self.begin(shed_loop_lag_s=WATCH_S / 2)
        one, other = await self.connect(A), await self.connect(B)
        one.transport.write(GET.replace(b"/ ", b"/slow "))  # type: ignore[union-attr]
        await self.node.slow_begun
        busy = True

        def keep_busy() -> None:
            until = time.monotonic() + 2 * WATCH_S
            while time.monotonic() < until:
                pass
            if busy:
                reactor.callLater(0, keep_busy)

        keep_busy()
        while (await self.limits())["overload"] != "lag":
            pass
        self.assertIn(b"503", (await self.get(other))[:20])
        self.assertEqual((await self.local("/healthz"))[0], 200)
        self.assertIn("pbcluster_gateway_shedding 1.0", (await self.local("/metrics"))[1])
        (slow,) = self.node.slow
        slow.write(b"late")
        slow.finish()
        await one.until(b"late")
        busy = False
        while (await self.limits())["overload"]:
            await deferLater(reactor, WATCH_S)
        self.assertIn(b"200 OK", await self.get(other))
