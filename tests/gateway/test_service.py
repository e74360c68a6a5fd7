"""A whole gateway on real sockets, with the real HTTP core; only the control plane is a fake."""

import json
import os
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from pbcluster import config, signing, wire
from pbcluster.config import GatewayConfig, Secrets
from pbcluster.errors import ConfigError, NotFound, PBClusterError
from pbcluster.gateway.assembly import ControlPlane
from pbcluster.gateway.proxy_settings import gateway_key
from pbcluster.gateway.service import GatewayService
from tests.gateway.fakes import route

reactor: Any = _reactor
KEY = "key of gateway_1"


class _CountedSite(Site):
    """Knows its connections, so that they can be cut."""

    def __init__(self, root: Resource) -> None:
        super().__init__(root)
        self.connections: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.connections.append(super().buildProtocol(addr))
        return self.connections[-1]


class RawClient(Protocol):
    """Sends bytes, keeps what comes."""

    def __init__(self) -> None:
        self.received = b""
        self._wanted: tuple[bytes, Deferred[None]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._wanted is not None and self._wanted[0] in self.received:
            wanted, self._wanted = self._wanted, None
            wanted[1].callback(None)

    async def until(self, text: bytes) -> None:
        if text not in self.received:
            self._wanted = (text, Deferred())
            await self._wanted[1]


class FakeNode(Resource):
    """A node's front door: verifies the signature, echoes the body, streams events."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.signed: list[signing.Signed] = []
        self.slow: list[Request] = []
        self.stream: Request | None = None
        self.stream_begun: Deferred[None] = Deferred()
        self.stream_over: Deferred[None] = Deferred()
        self.slow_begun: Deferred[None] = Deferred()
        self.site = _CountedSite(self)
        self.port: IListeningPort = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.address = f"http://127.0.0.1:{self.port.getHost().port}"

    def render(self, request: Request) -> Any:
        if request.path == b"/healthz":
            return b"{}"
        fields = list(request.requestHeaders.getAllRawHeaders())
        flat = [(name, value) for name, values in fields for value in values]
        now_ms = int(reactor.seconds() * 1000)
        keys = {"gateway_1": KEY.encode()}
        self.signed.append(
            signing.verify(keys, request.method, request.uri, signing.found_in(flat), now_ms)
        )
        if request.path == b"/events":
            request.setHeader(b"content-type", b"text/event-stream")
            request.write(b"data: 1\n\n")
            self.stream = request
            request.notifyFinish().addErrback(lambda _: self.stream_over.callback(None))
            self.stream_begun.callback(None)
            return NOT_DONE_YET
        if request.path == b"/slow":
            self.slow.append(request)
            self.slow_begun.callback(None)
            return NOT_DONE_YET
        request.setHeader(b"x-pbcluster-node-epoch", b"1")
        return request.content.read() or b"hello"

    async def die(self) -> None:
        """As a killed process: no listener, no connections."""
        await maybeDeferred(self.port.stopListening)
        for connection in self.site.connections:
            transport = connection._channel.transport
            if transport is not None:
                transport.abortConnection()


class FakeControlPlane:
    """Routes, on the real clock."""

    def __init__(self) -> None:
        self.routes: dict[str, wire.Route] = {}
        self.asked: list[wire.Body] = []
        self.stopped = 0

    def know(self, found: wire.Route) -> None:
        self.routes[found.name] = found

    def start(self, *_: Any) -> None:
        """Nothing to connect."""

    def stop(self) -> None:
        self.stopped += 1

    async def ask(self, body: wire.Body, **_: Any) -> wire.Body:
        self.asked.append(body)
        if isinstance(body, wire.LookupRoute):
            if body.name not in self.routes:
                raise NotFound("no such tenant")
            return wire.RouteFound(1, self.routes[body.name])
        if isinstance(body, wire.SnapshotRequest):
            return wire.Snapshot(1, ())
        return wire.Ok()


class FakeFollower:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self) -> None:
        self.told.append("start")

    def stop(self) -> None:
        self.told.append("stop")

    def changed(self, index: int) -> None:
        self.told.append(f"changed {index}")


def settings(data_dir: Path, **changes: Any) -> GatewayConfig:
    flags: dict[str, Any] = {
        "id": "gateway_1",
        "cluster_id": "test",
        "data_dir": str(data_dir),
        "secrets_file": str(data_dir / "secrets.toml"),
        "peers_file": str(data_dir / "peers.toml"),
        "listen": "127.0.0.1:0",
        "members": "tcp://127.0.0.1:1",
        "broadcasts": "tcp://127.0.0.1:2",
        "hold_s": 10,
        "drain_ready_s": 0,
        "drain_s": 10,
    }
    return config.load(GatewayConfig, None, flags | changes)


class GatewayCase(TestCase):
    """A running gateway before a fake node."""

    timeout = 30

    def setUp(self) -> None:
        self.data = Path(self.mktemp())
        self.data.mkdir()
        self.cp = FakeControlPlane()
        self.follower = FakeFollower()
        self.node = FakeNode()
        self.addCleanup(self.stop_node, self.node)
        self.cp.know(route(address=self.node.address))
        self.service = self.start()
        self.pool = HTTPConnectionPool(reactor, persistent=False)

    async def logged(self) -> dict[str, Any]:
        """The first line of the access log, once it is written."""
        file = self.data / "access.log"
        for _ in range(500):
            if file.exists() and (lines := file.read_text().splitlines()):
                return dict(json.loads(lines[0]))
            await deferLater(reactor, 0.01)
        self.fail("nothing was logged")

    def start(self, **changes: Any) -> GatewayService:
        service = GatewayService(
            reactor,
            settings(self.data, **changes),
            Secrets(gateway_keys={"gateway_1": KEY}),
            ControlPlane(self.cp, self.cp, self.follower, lambda: None),
        )
        service.startService()
        self.addCleanup(lambda: service.stopService() if service.running else None)
        return service

    def stop_node(self, node: FakeNode) -> Deferred[None]:
        return Deferred.fromCoroutine(node.die())

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "ready.json").read_text())
        return found

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        return await treq.request(
            method,
            self.ready()["gateway"] + path,
            headers={"Host": "shop.localhost"},
            data=body,
            pool=self.pool,
        )

    async def local(self, path: str) -> tuple[int, str]:
        answer = await treq.get(self.ready()["metrics"] + path, pool=self.pool)
        return answer.code, await answer.text()


class ServiceTests(GatewayCase):
    async def test_request(self) -> None:
        """A request reaches the node signed and its answer the client, without node's marks."""
        answer = await self.ask("POST", "/echo?x=1", b"body" * 10_000)
        self.assertEqual((answer.code, await answer.content()), (200, b"body" * 10_000))
        self.assertIsNone(answer.headers.getRawHeaders("x-pbcluster-node-epoch"))
        (signed,) = self.node.signed
        self.assertEqual(signed.tenant_id, route().tenant_id)
        line = await self.logged()
        self.assertEqual((line["path"], line["status"], line["node"]), ("/echo", 200, "node_a"))
        self.assertEqual(line["request_id"], signed.request_id)

    async def test_local_pages(self) -> None:
        """Health, readiness, metrics, routes and breakers stand on the local listener only."""
        await treq.content(await self.ask("GET", "/"))
        self.assertEqual((await self.local("/healthz"))[0], 200)
        self.assertEqual((await self.local("/livez"))[0], 200)
        self.assertEqual((await self.local("/readyz"))[0], 200)
        _, text = await self.local("/metrics")
        self.assertIn('pbcluster_gateway_requests_total{node="node_a",status="2xx"} 1.0', text)
        self.assertIn('pbcluster_gateway_breaker_state{node="node_a"} 0.0', text)
        routes = json.loads((await self.local("/debug/routes"))[1])
        self.assertEqual((routes["total"], routes["routes"][0]["nodeID"]), (1, "node_a"))
        breakers = json.loads((await self.local("/debug/breakers"))[1])
        self.assertEqual((breakers[0]["node"], breakers[0]["state"]), ("node_a", "closed"))
        answer = await self.ask("GET", "/metrics")
        self.assertEqual(await answer.content(), b"hello")

    async def test_unknown_tenant(self) -> None:
        """No such tenant: 404 in PocketBase's form."""
        self.cp.routes.clear()
        answer = await self.ask("GET", "/")
        self.assertEqual((answer.code, (await answer.json())["status"]), (404, 404))

    async def test_events(self) -> None:
        """Events arrive one by one while the stream is open; a client's end reaches the node."""
        assert self.service.public is not None
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.service.public.getHost().port)
        client: Any = await endpoint.connect(Factory.forProtocol(RawClient))
        client.transport.write(b"GET /events HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
        await client.until(b"data: 1\n\n")
        assert self.node.stream is not None
        self.node.stream.write(b"data: 2\n\n")
        await client.until(b"data: 2\n\n")
        client.transport.abortConnection()
        await self.node.stream_over
        line = await self.logged()
        self.assertEqual((line["outcome"], line["stream"]), ("client_gone", True))

    async def test_node_dies(self) -> None:
        """The node dies: a write that was not sent yet waits for the new owner and succeeds."""
        await treq.content(await self.ask("GET", "/"))
        await self.node.die()
        other = FakeNode()
        self.addCleanup(self.stop_node, other)
        asked = Deferred.fromCoroutine(self.ask("POST", "/", b"row"))
        while not any(isinstance(body, wire.SuspectNode) for body in self.cp.asked):
            await deferLater(reactor, 0.01)
        self.assertNoResult(asked)
        self.cp.know(route(epoch=2, node_id="node_b", address=other.address))
        answer = await asked
        self.assertEqual((answer.code, await answer.content()), (200, b"row"))
        self.assertEqual(other.signed[0].epoch, 2)

    async def test_drain(self) -> None:
        """At its end the gateway finishes what is under way and takes no more; its file goes."""
        url = self.ready()["gateway"]
        asked = Deferred.fromCoroutine(self.ask("GET", "/slow"))
        await self.node.slow_begun
        stopped = self.service.stopService()
        self.assertFalse((self.data / "ready.json").exists())
        await deferLater(reactor, 0.05)
        self.assertNoResult(stopped)
        refused = treq.get(url, pool=self.pool)
        await self.assertFailure(refused, Exception)
        (slow,) = self.node.slow
        slow.write(b"late")
        slow.finish()
        answer = await asked
        self.assertEqual(await answer.content(), b"late")
        await stopped
        self.assertEqual(self.cp.stopped, 2)

    async def test_members_are_followed(self) -> None:
        """From the start to the end."""
        self.assertEqual(self.follower.told, ["start"])
        await self.service.stopService()
        self.assertEqual(self.follower.told, ["start", "stop"])

    async def test_ready_file(self) -> None:
        """ready.json names both addresses and this process."""
        found = self.ready()
        self.assertEqual(found["pid"], os.getpid())
        self.assertTrue(found["gateway"].startswith("http://127.0.0.1:"))
        self.assertNotEqual(found["gateway"], found["metrics"])

    async def test_port_in_use(self) -> None:
        """A port in use is one sentence that names the port and the option."""
        assert self.service.public is not None
        port = self.service.public.getHost().port
        other = GatewayService(
            reactor,
            settings(self.data, listen=f"127.0.0.1:{port}"),
            Secrets(gateway_keys={"gateway_1": KEY}),
            ControlPlane(self.cp, self.cp, self.follower, lambda: None),
        )
        with self.assertRaises(ConfigError) as caught:
            other._open()
        self.assertEqual(
            str(caught.exception),
            f"cannot listen at 127.0.0.1:{port} (--listen): Address already in use",
        )


class KeyTests(SynchronousTestCase):
    def test_missing_key(self) -> None:
        """A gateway without its key does not start, and says which file lacks it."""
        where = settings(Path(self.mktemp()))
        error = self.assertRaises(PBClusterError, gateway_key, where, Secrets())
        self.assertIn("secrets.toml has no key for 'gateway_1'", str(error))
