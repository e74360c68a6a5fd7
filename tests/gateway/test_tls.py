"""A whole gateway with TLS on real sockets, towards clients and towards a node."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbcluster import authority, identities, signing
from pbcluster.cli.http import Answer as PlainAnswer
from pbcluster.cli.http import ask as ask_plain
from pbcluster.config import Secrets
from pbcluster.errors import ConfigError, Unauthorized
from pbcluster.gateway.assembly import ControlPlane
from pbcluster.gateway.service import GatewayService
from pbcluster.gateway.tls import GatewayTLS
from pbcluster.web.interfaces import Exchange
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.tls.mutual import MutualTLS
from pbcluster.web.tls.server import TLSServerFactory
from pbcluster.wire import LookupRoute
from tests.gateway.fakes import route
from tests.gateway.test_service import KEY, FakeControlPlane, FakeFollower, settings
from tests.web.pki import NOW, issuer, put, put_mutual, site, write
from tests.web.tls_case import Answer, Client, until

reactor: Any = _reactor


class TLSNode:
    """A node's front door by TLS: verifies the signature, says what it saw."""

    def __init__(self, root: Path, name: str = "node_a", by: str = "test") -> None:
        put_mutual(root / name, authority.issue(issuer(by), "node", name, NOW), issuer())
        mutual = MutualTLS(root / name, lambda: datetime.now(UTC), identities.name_of("node", name))
        self.seen: list[dict[str, str]] = []
        self.healths = 0
        pool = UpstreamPool(reactor, tcp_endpoints(reactor))
        self.http = HTTPServerFactory(self.handle, Limits(), reactor, pool=pool)
        self.tls = TLSServerFactory(mutual, self.http, reactor, by_host=False)
        self.port: Any = reactor.listenTCP(0, self.tls, interface="127.0.0.1")
        self.address = f"https://127.0.0.1:{self.port.getHost().port}"

    def handle(self, exchange: Exchange) -> None:
        head = exchange.head
        if head.target == b"/healthz":
            self.healths += 1
            exchange.respond(200, b"{}")
            return
        now_ms = int(reactor.seconds() * 1000)
        keys = {"gateway_1": KEY.encode()}
        try:
            signing.verify(keys, head.method, head.target, signing.found_in(head.headers), now_ms)
        except Unauthorized:
            exchange.respond(401, b"")
            return
        self.seen.append({k.lower().decode(): v.decode() for k, v in head.headers})
        exchange.respond(200, b"of the tenant", headers=[(b"Strict-Transport-Security", b"x")])

    async def end(self) -> None:
        await maybeDeferred(self.port.stopListening)
        self.http.abort_all()
        await self.http.drain(1.0)


class GatewayCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.certificates = self.root / "certificates"
        names = [f"{word}.localhost" for word in ("shop", "other", "unknown")]
        put(self.certificates, "all", site(*names))
        pair = authority.issue(issuer(), "gateway", "gateway_1", NOW)
        put_mutual(self.root / "gateway", pair)
        self.cp = FakeControlPlane()
        self.node = TLSNode(self.root)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.node.end()))
        self.cp.know(route(address=self.node.address))

    def start(self, **changes: Any) -> GatewayService:
        flags = {
            "tls_listen": "127.0.0.1:0",
            "tls_certificates": str(self.certificates),
            "node_tls": str(self.root / "gateway"),
        }
        data = self.root / "data"
        data.mkdir(exist_ok=True)
        self.service = GatewayService(
            reactor,
            settings(data, **(flags | changes)),
            Secrets(gateway_keys={"gateway_1": KEY}),
            ControlPlane(self.cp, self.cp, FakeFollower(), lambda: None),
        )
        self.service.startService()
        self.addCleanup(lambda: self.service.stopService() if self.service.running else None)
        return self.service

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "data" / "ready.json").read_text())
        return found

    def ask(self, host: str = "shop.localhost", sni: str | None = None, **more: Any) -> Any:
        """A request over TLS, in a thread; the answer."""
        port = int(self.ready()["tls"][0].rpartition(":")[2])

        def run() -> Answer:
            client = Client(port, sni or host)
            try:
                return client.ask(host, **more)
            finally:
                client.close()

        return deferToThread(run)

    def plain(self, path: str, host: str = "shop.localhost", method: str = "GET") -> Any:
        url = self.ready()["gateway"] + path
        return deferToThread(lambda: ask_plain(method, url, headers={"Host": host}))

    async def metrics(self) -> str:
        url = self.ready()["metrics"] + "/metrics"
        found: PlainAnswer = await deferToThread(lambda: ask_plain("GET", url))
        return found.body.decode()


class ClientTests(GatewayCase):
    async def test_through_both(self) -> None:
        """A client's request goes by TLS through the gateway and by TLS to the node, which is told
        that it came by https."""
        self.start()
        answer = await self.ask()
        self.assertEqual((answer.status, answer.body), (200, b"of the tenant"))
        (seen,) = self.node.seen
        self.assertEqual(seen["x-forwarded-proto"], "https")
        self.assertIn(b"strict-transport-security: x", answer.head.lower())
        self.assertEqual((await self.plain("/")).status, 200)
        self.assertEqual(self.node.seen[1]["x-forwarded-proto"], "http")
        text = await self.metrics()
        self.assertIn('tls_handshakes_total{result="completed"} 1.0', text)
        self.assertIn('pbcluster_gateway_tls_certificate_days_left{certificate="all"}', text)
        self.assertIn("pbcluster_gateway_tls_node_certificate_days_left 18", text)

    def lookups(self) -> list[LookupRoute]:
        return [body for body in self.cp.asked if isinstance(body, LookupRoute)]

    async def test_misdirected(self) -> None:
        """SNI of one tenant, Host of another: 421, no look-up, nothing to a node."""
        self.start()
        asked = len(self.lookups())
        answer = await self.ask("other.localhost", sni="shop.localhost")
        self.assertEqual(answer.status, 421)
        self.assertEqual((len(self.lookups()), self.node.seen), (asked, []))

    async def test_hsts(self) -> None:
        """Strict-Transport-Security stands in every answer over TLS, once, errors included, and in
        none without TLS."""
        self.start(hsts_s=31536000, hsts_subdomains=True)
        ours = b"strict-transport-security: max-age=31536000; includesubdomains"
        for host in ("shop.localhost", "unknown.localhost"):
            head = (await self.ask(host)).head.lower()
            self.assertEqual((head.count(b"strict-transport"), head.count(ours)), (1, 1), head)
        plain = await self.plain("/", "unknown.localhost")
        self.assertNotIn("strict-transport-security", plain.headers)

    async def test_redirect(self) -> None:
        """Without TLS hosts with a certificate get 308 to the TLS port, before any look-up; health
        questions do not, and another host is served."""
        self.start(http_redirect="known")
        asked = len(self.lookups())
        port = self.ready()["tls"][0].rpartition(":")[2]
        for method in ("GET", "POST"):
            answer = await self.plain("/x?y=1", method=method)
            self.assertEqual(answer.status, 308)
            self.assertEqual(answer.headers["location"], f"https://shop.localhost:{port}/x?y=1")
        self.assertEqual((len(self.lookups()), self.node.seen), (asked, []))
        self.assertEqual((await self.plain("/api/health")).status, 200)
        self.assertEqual((await self.plain("/", "elsewhere.example.com")).status, 404)
        self.assertIn("pbcluster_gateway_redirects 2.0", await self.metrics())

    async def test_reload(self) -> None:
        """``reload()`` brings a new certificate at once; a broken one is shown in the metrics while
        the old one is served; the watch brings one by itself."""
        self.start(tls_watch_s=3600)
        put(self.certificates, "more", site("more.example.com"))
        await self.assertFailure(self.ask("more.example.com"), ssl.SSLError)
        await self.service._made.tls.reload()
        self.assertEqual((await self.ask("more.example.com")).status, 404)
        write(self.certificates / "more.pem", b"nonsense")
        await self.service._made.tls.reload()
        self.assertEqual((await self.ask("more.example.com")).status, 404)
        self.assertIn('tls_certificate_problem{certificate="more"} 1.0', await self.metrics())

    async def test_watch(self) -> None:
        """Without being told the gateway finds a new certificate in the time of its watch."""
        service = self.start(tls_watch_s=0.1)
        put(self.certificates, "more", site("more.example.com"))
        directory = service._made.tls.certificates
        assert directory is not None
        await until(lambda: directory.covers("more.example.com"))

    async def test_endpoint_strings(self) -> None:
        """``listen`` and ``tls_listen`` take endpoint strings, several of them."""
        self.start(
            listen="tcp:0:interface=127.0.0.1",
            tls_listen="tcp:0:interface=127.0.0.1,127.0.0.1:0",
        )
        self.assertEqual(len(self.ready()["tls"]), 2)
        self.assertEqual((await self.ask()).status, 200)
        self.assertEqual((await self.plain("/")).status, 200)

    async def test_pbtls_as_listen(self) -> None:
        """A ``pbtls:`` endpoint as ``listen`` serves TLS, with 421 for another host."""
        words = f"pbtls:0:certificates={self.certificates}:interface=127.0.0.1"
        self.start(listen=words, tls_listen="", tls_certificates=None)
        port = int(self.ready()["gateway"].rpartition(":")[2])

        def run() -> tuple[int, int]:
            client = Client(port, "shop.localhost")
            try:
                return client.ask("shop.localhost").status, client.ask("a.localhost").status
            finally:
                client.close()

        self.assertEqual(await deferToThread(run), (200, 421))


class NodeTests(GatewayCase):
    async def test_another_nodes_certificate(self) -> None:
        """What answers at the node's address with another node's certificate, or one of another
        authority, gets no request: the client gets 503, and it is counted."""
        for wrong in (TLSNode(self.root, "node_b"), TLSNode(self.root, "node_a", by="evil")):
            self.addCleanup(lambda w=wrong: Deferred.fromCoroutine(w.end()))
            self.cp.know(route(address=wrong.address))
            service = self.start(hold_s=0)
            self.assertEqual((await self.ask()).status, 503)
            self.assertEqual(wrong.seen, [])
            self.assertGreater(service._made.tls.node_failures["not_verified"], 0)
            await service.stopService()

    async def test_node_without_tls(self) -> None:
        """A gateway with node_tls does not speak to a node without TLS, unless it may."""
        plain = HTTPServerFactory(
            lambda exchange: exchange.respond(200, b"plain"),
            Limits(),
            reactor,
            pool=UpstreamPool(reactor, tcp_endpoints(reactor)),
        )
        port: Any = reactor.listenTCP(0, plain, interface="127.0.0.1")
        self.addCleanup(lambda: plain.drain(1.0))
        self.addCleanup(port.stopListening)
        self.cp.know(route(address=f"http://127.0.0.1:{port.getHost().port}"))
        service = self.start(hold_s=0)
        answer = await self.ask()
        self.assertEqual(answer.status, 503)
        self.assertIn(b"does not speak TLS", answer.body)
        self.assertEqual(plain.requests, 0)
        await service.stopService()
        self.start(hold_s=0, node_tls_required=False)
        self.assertEqual((await self.ask()).body, b"plain")

    async def test_gateway_without_a_certificate(self) -> None:
        """A gateway without node_tls sends nothing to a node that speaks TLS, and says why."""
        self.start(hold_s=0, node_tls=None)
        answer = await self.ask()
        self.assertEqual(answer.status, 503)
        self.assertIn(b"this gateway has no certificate", answer.body)

    async def test_health_over_tls(self) -> None:
        """A node whose breaker opened is asked for its health by TLS, and serves again."""
        service = self.start()
        self.assertEqual((await self.ask()).status, 200)
        found = route(address=self.node.address)
        service._made.nodes.down(found.node_id, found.incarnation)
        await until(lambda: self.node.healths >= 2)
        self.assertEqual((await self.ask()).status, 200)


class SettingsTests(SynchronousTestCase):
    def test_what_does_not_go_together(self) -> None:
        """Wrong combinations and files are one sentence that names the setting."""
        data = Path(self.mktemp())
        certificates = data / "c"
        certificates.mkdir(parents=True)
        for changes, words in (
            ({"tls_listen": "127.0.0.1:0"}, "'tls_listen' needs 'tls_certificates'"),
            ({"http_redirect": "all"}, "'http_redirect' is 'all', but there is no 'tls_listen'"),
            ({"node_tls": str(data)}, "cannot read"),
        ):
            with self.assertRaisesRegex(ConfigError, words):
                GatewayTLS(reactor, settings(data, **changes))
        for changes, words in (
            ({"listen": "localhost:80"}, "an endpoint string like tcp:8080"),
            ({"http_redirect": "yes"}, "off, known, all"),
            ({"hsts_s": -1}, "0 to 63072000"),
        ):
            with self.assertRaisesRegex(ConfigError, words):
                settings(data, **changes)
