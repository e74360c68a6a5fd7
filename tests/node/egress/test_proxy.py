"""The proxy over real sockets; names and the judgement of addresses are the test's."""

from __future__ import annotations

import base64
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pbcluster.node.egress.proxy import EgressProxy, is_local


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data.upper())


class Caller(Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.gone: Deferred[None] = Deferred()
        self._waiting: tuple[bytes, Deferred[bytes]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._waiting is not None and self._waiting[0] in self.received:
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(self.received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)

    def until(self, text: bytes) -> Deferred[bytes]:
        waiting: Deferred[bytes] = Deferred()
        self._waiting = (text, waiting)
        self.dataReceived(b"")
        return waiting


class ProxyTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.asked: list[str] = []
        self.names: dict[str, list[str]] = {"good.test": ["127.0.0.1"]}
        net: Any = reactor
        self.proxy = EgressProxy(
            reactor, connections=2, resolve=self.resolve, allowed=lambda text: text == "127.0.0.1"
        )
        self.proxy.listen()
        self.server = net.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
        self.port = self.server.getHost().port
        self.callers: list[Caller] = []

    async def tearDown(self) -> None:
        for caller in self.callers:
            assert caller.transport is not None
            caller.transport.loseConnection()
            await caller.gone
        await self.proxy.stop()
        await self.server.stopListening()

    async def resolve(self, name: str) -> list[str]:
        self.asked.append(name)
        if name not in self.names:
            raise OSError("unknown")
        return self.names[name]

    async def call(self, line: str, *, tenant: str = "tenant_a", password: str = "") -> Caller:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        caller = await endpoint.connect(Factory.forProtocol(Caller))
        self.callers.append(caller)
        proof = f"{tenant}:{password or self.proxy.password(tenant)}".encode()
        field = b"Proxy-Authorization: Basic " + base64.b64encode(proof)
        caller.transport.write(line.encode() + b" HTTP/1.1\r\n" + field + b"\r\n\r\n")
        return caller

    async def status(self, line: str, **named: str) -> int:
        caller = await self.call(line, **named)
        return int((await caller.until(b"\r\n\r\n"))[9:12])

    async def test_tunnel(self) -> None:
        """CONNECT carries bytes both ways, to the address that was checked; its end is told."""
        caller = await self.call(f"CONNECT good.test:{self.port}")
        await caller.until(b"200 Connection established\r\n\r\n")
        caller.transport.write(b"hello")
        await caller.until(b"HELLO")
        self.assertEqual(self.asked, ["good.test"])

    async def test_full_url(self) -> None:
        """An http:// URL is asked for at its server."""
        caller = await self.call(f"GET http://good.test:{self.port}/x")
        await caller.until(b"GET /X HTTP/1.1")

    async def test_refusals(self) -> None:
        """A name with only refused addresses is 403, none 502, a closed port 502, wrong credentials
        407; nothing is resolved for who is not known."""
        self.names["bad.test"] = ["10.0.0.1", "::1"]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            closed = probe.getsockname()[1]
        self.assertEqual(await self.status(f"CONNECT bad.test:{self.port}"), 403)
        self.assertEqual(await self.status(f"CONNECT none.test:{self.port}"), 502)
        self.assertEqual(await self.status(f"CONNECT good.test:{closed}"), 502)
        self.asked.clear()
        self.assertEqual(await self.status("CONNECT good.test:1", password="wrong"), 407)
        other = self.proxy.password("tenant_b")
        self.assertEqual(await self.status("CONNECT good.test:1", password=other), 407)
        self.assertEqual(self.asked, [])

    async def test_rebinding(self) -> None:
        """Of a name with good and bad addresses only the good are tried; it is resolved once."""
        self.names["both.test"] = ["10.0.0.1", "127.0.0.1"]
        self.assertEqual(await self.status(f"CONNECT both.test:{self.port}"), 200)
        self.assertEqual(self.asked, ["both.test"])

    async def test_bound_of_connections(self) -> None:
        """A tenant's connections are bounded, another's are not touched by that; ended ones are
        free again."""
        first = await self.call(f"CONNECT good.test:{self.port}")
        await first.until(b"200")
        self.assertEqual(await self.status(f"CONNECT good.test:{self.port}"), 200)
        self.assertEqual(await self.status(f"CONNECT good.test:{self.port}"), 429)
        line = f"CONNECT good.test:{self.port}"
        self.assertEqual(await self.status(line, tenant="tenant_b"), 200)
        first.transport.loseConnection()
        await first.gone
        while self.proxy.open["tenant_a"] > 1:
            waiting: Deferred[None] = Deferred()
            net: Any = reactor
            net.callLater(0.01, waiting.callback, None)
            await waiting
        self.assertEqual(await self.status(line), 200)

    async def test_own_addresses(self) -> None:
        """By default loopback, and whatever else this machine has, is refused; what is not its own
        is not taken for it."""
        proxy = EgressProxy(reactor, connections=2)
        self.assertFalse(proxy.allowed("127.0.0.1"))
        self.assertTrue(is_local("127.0.0.1"))
        self.assertFalse(is_local("8.8.8.8"))
        self.assertTrue(proxy.allowed("8.8.8.8"))

    async def test_environment(self) -> None:
        """A tenant is told where the proxy is, with its own password; of one that does not run,
        nothing."""
        environment = self.proxy.environment("tenant_a")
        self.assertEqual(set(environment), {"HTTP_PROXY", "HTTPS_PROXY"})
        self.assertIn(f"tenant_a:{self.proxy.password('tenant_a')}@", environment["HTTP_PROXY"])
        self.assertEqual(EgressProxy(reactor, connections=2).environment("tenant_a"), {})
