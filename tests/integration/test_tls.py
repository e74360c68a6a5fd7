"""TLS on every way of a request, with real processes: client → gateway → node → PocketBase."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import authority
from pbcluster.authority import Pair
from pbcluster.cli.http import ask
from pbcluster.cli.layout import ClusterDir
from pbcluster.testing.cluster import RealCluster
from tests.integration.command_case import CommandCase
from tests.integration.support import EMAIL, PASSWORD
from tests.web.pki import issuer, put, put_mutual, site
from tests.web.tls_case import Answer, Client

DOMAIN = "apps.example.com"
LOGIN = json.dumps({"identity": EMAIL, "password": PASSWORD}).encode()
AUTH = "POST /api/collections/_superusers/auth-with-password HTTP/1.1"


class TLSCrossingTests(SynchronousTestCase):
    timeout = 180

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        put(self.path, "tenants", site("shop.localhost", "other.localhost"))
        settings = {
            "gateway": {
                "tls_listen": ["127.0.0.1:0"],
                "tls_certificates": str(self.path),
                "tls_watch_s": 0.2,
                "http_redirect": "known",
                "hsts_s": 600,
            }
        }
        self.cluster = RealCluster(nodes=2, members=1, settings=settings, node_tls=True)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.cluster.create_tenant("shop", EMAIL, PASSWORD)
        self.port = int(self.cluster.ready("gateway_1")["tls"][0].rpartition(":")[2])

    def request(self, host: str, line: str, body: bytes = b"", sni: str = "") -> Answer:
        client = Client(self.port, sni or host)
        try:
            more = (
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            return client.ask(host, line, more)
        finally:
            client.close()

    def figure(self, name: str, process: str, label: str = "") -> float:
        text = ask("GET", self.cluster.ready(process)["metrics"] + "/metrics").body.decode()
        rows = [row for row in text.splitlines() if row.startswith(name) and label in row]
        return float(rows[0].rpartition(" ")[2])

    def owner(self) -> str:
        node: str = self.cluster.admin.tenant("shop")["nodeID"]
        return node

    def test_client_to_pocketbase(self) -> None:
        """A sign-in goes by TLS to the gateway and by mutual TLS to the node; the node's death
        changes nothing of that. SNI and Host must agree; without TLS a client is sent to https; a
        renewed certificate is served without a restart; no log holds a key."""
        cluster, host = self.cluster, self.cluster.host("shop")
        answer = self.request(host, AUTH, LOGIN)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertIn(b"Strict-Transport-Security: max-age=600", answer.head)
        tenant = cluster.admin.tenant("shop")
        self.assertTrue(tenant["nodeAddr"].startswith("https://127.0.0.1:"), tenant)
        self.assertGreater(self.figure("pbcluster_node_tls_handshakes ", tenant["nodeID"]), 0)
        wrong = self.request("other.localhost", AUTH, LOGIN, sni=host)
        self.assertEqual(wrong.status, 421)
        plain = cluster.ask_tenant("shop", "POST", "/x?y=1")
        self.assertEqual(plain.headers["location"], f"https://{host}:{self.port}/x?y=1")

        first = self.owner()
        cluster.kill9(first)
        cluster.wait_tenant("shop")
        self.assertNotEqual(self.owner(), first)
        self.assertEqual(self.request(host, AUTH, LOGIN).status, 200)

        put(self.path, "tenants", site("shop.localhost", "renewed.localhost"))

        def renewed() -> bool:
            return "renewed.localhost" in client_names(self.port, host)

        cluster.wait_until(renewed, "the renewed certificate", 20.0)
        secrets = cluster.where.root / "secrets"
        bodies = [key.read_text().splitlines()[1] for key in secrets.rglob("*key*")]
        self.assertGreaterEqual(len(bodies), 4)
        for log in (cluster.where.root / "log").iterdir():
            text = log.read_text(errors="replace")
            self.assertEqual([body for body in bodies if body in text], [], log)
            self.assertNotIn("Traceback", text, log)

    def test_who_is_refused_at_the_node(self) -> None:
        """At the node's own port a client without TLS, one without a certificate, one of another
        authority, an expired one, and another node's are refused, counted, and told nothing."""
        where, node = self.cluster.where, self.owner()
        port = self.cluster.plan.process(node).ports["http"]
        ca = Pair(*((where.authority / name).read_bytes() for name in ("ca.pem", "ca.key")))
        now = datetime.now(UTC)
        expired = now - timedelta(days=2)
        other = "node_2" if node == "node_1" else "node_1"
        pairs: dict[str, Pair | None] = {
            "no certificate": None,
            "another authority": authority.issue(issuer("evil"), "gateway", "gateway_1", now),
            "expired": authority.issue(ca, "gateway", "gateway_1", expired, 1),
            "a node": authority.issue(ca, "node", other, now),
        }
        before = self.figure("pbcluster_node_tls_handshakes_refused", node)
        for what, pair in pairs.items():
            self.assertEqual(self.tell_node(port, ca, pair), b"", what)
        raw = socket.create_connection(("127.0.0.1", port), 10)
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            self.assertNotIn(b"HTTP", raw.recv(1000))
        raw.close()
        self.cluster.wait_until(
            lambda: self.figure("pbcluster_node_tls_handshakes_refused", node) == before + 5,
            "five refusals to be counted",
            10.0,
        )
        # The cluster's own gateway's certificate is let in, and its signature asked for.
        own = Pair(
            *((where.tls("gateway_1") / f).read_bytes() for f in ("certificate.pem", "key.pem"))
        )
        self.assertTrue(self.tell_node(port, ca, own).startswith(b"HTTP/1.1 401 "))
        self.assertEqual(self.request(self.cluster.host("shop"), AUTH, LOGIN).status, 200)

    def tell_node(self, port: int, ca: Pair, pair: Pair | None) -> bytes:
        """What the node answers to a client with this certificate."""
        context = ssl.create_default_context(cadata=ca.certificate.decode())
        context.check_hostname = False
        with tempfile.TemporaryDirectory() as folder:
            if pair is not None:
                put_mutual(Path(folder), pair)
                context.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
            raw = socket.create_connection(("127.0.0.1", port), 10)
            try:
                with context.wrap_socket(raw) as tls:
                    tls.sendall(b"GET /api/health HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
                    return tls.recv(65536)
            except OSError:
                return b""
            finally:
                raw.close()


def client_names(port: int, host: str) -> set[str]:
    """Names of the certificate that is shown for ``host``."""
    client = Client(port, host)
    try:
        return client.names
    finally:
        client.close()


class TLSCommandTests(CommandCase):
    def test_up_with_node_tls(self) -> None:
        """``up --node-tls`` makes a cluster that works, a node added later gets its certificate,
        and the cluster goes back to plain by one option."""
        ports = ("--gateway-port", "0", "--admin-port", "0")
        self.up("c", "--nodes", "1", "--members", "1", "--node-tls", *ports)
        self.create("c", "shop")
        where = ClusterDir.at(self.root / "c")
        gateway = where.load_plan().gateway_url
        self.assertEqual(self.sign_in(gateway, "shop"), 200)
        self.assertEqual(self.schemes(), {"https"})
        self.json("c", "members", "add")
        self.json("c", "down")
        self.json("c", "up", "--detach", "--nodes", "2")
        self.assertEqual(self.sign_in(gateway, "shop"), 200)
        rows = self.json("c", "nodes", "list")
        self.assertEqual(sorted(row["alive"] for row in rows), [True, True])
        self.assertEqual(self.schemes(), {"https"})
        self.json("c", "down")
        self.json("c", "up", "--detach", "--no-node-tls")
        self.assertEqual(self.sign_in(gateway, "shop"), 200)
        self.assertEqual(self.schemes(), {"http"})

    def schemes(self) -> set[str]:
        rows: list[dict[str, Any]] = self.json("c", "nodes", "list")
        return {row["address"].partition(":")[0] for row in rows}
