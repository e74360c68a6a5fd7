"""TLS between gateway and node, on real sockets: who is let in, who is believed, what is pooled."""

from __future__ import annotations

import os
import ssl
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError, TimeoutError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pbcluster import authority, identities
from pbcluster.authority import Pair
from pbcluster.errors import ConfigError
from pbcluster.web.client import ResponseListener
from pbcluster.web.interfaces import Attempt, Exchange, Forward, Outcome
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.response_head import ParsedResponse
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.tls.client import NotVerified, verified_endpoints
from pbcluster.web.tls.mutual import MutualTLS
from pbcluster.web.tls.server import TLSServerFactory
from tests.web.pki import NOW, issuer, put_mutual, write
from tests.web.tls_case import Client, until

reactor: Any = _reactor
NODE = identities.name_of("node", "node_a")


def made(role: str, name: str, by: str = "test", days: float = 10) -> Pair:
    return authority.issue(issuer(by), role, name, NOW, days)


class IdentityTests(TestCase):
    def test_roles(self) -> None:
        """A name has the role that it says, and no trick makes another of it."""
        for name, is_gateway in {
            "gateway_1.gateways.pbcluster.internal": True,
            "node_1.nodes.pbcluster.internal": False,
            "*.gateways.pbcluster.internal": False,
            ".gateways.pbcluster.internal": False,
            "a.b.gateways.pbcluster.internal": False,
            "gateways.pbcluster.internal": False,
            "g.gateways.pbcluster.internal.example.com": False,
        }.items():
            self.assertEqual(identities.has_role(name, "gateway"), is_gateway, name)


class MutualCase(TestCase):
    """A node's listener, and a gateway's pool with a server of its own that forwards to it."""

    timeout = 60

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.seen: list[bytes] = []
        self.failures: Counter[str] = Counter()
        self.node = self.mutual("node", "node_a")
        self.gateway = self.mutual("gateway", "gateway_1")
        secure = verified_endpoints(reactor, self.gateway, self.failures)
        self.pool = UpstreamPool(reactor, tcp_endpoints(reactor), secure=secure)
        self.http = HTTPServerFactory(self.answer, Limits(), reactor, pool=self.pool)
        self.tls = TLSServerFactory(self.node, self.http, reactor, by_host=False)
        self.port: Any = reactor.listenTCP(0, self.tls, interface="127.0.0.1")
        self.addCleanup(self.end)

    async def end(self) -> None:
        self.pool.close()
        await maybeDeferred(self.port.stopListening)
        self.http.abort_all()
        await self.http.drain(1.0)
        await until(lambda: self.tls.under_way == 0)

    def mutual(self, role: str, name: str, pair: Pair | None = None, by: str = "test") -> MutualTLS:
        directory = self.root / name
        put_mutual(directory, pair or made(role, name), issuer(by))
        return MutualTLS(directory, lambda: datetime.now(UTC), identities.name_of(role, name))

    def answer(self, exchange: Exchange) -> None:
        self.seen.append(exchange.head.target)
        exchange.respond(200, b"tenant's data")

    def connect(self, identity: str = NODE, port: int = 0, timeout_s: float = 5.0) -> Deferred[Any]:
        number = port or self.port.getHost().port
        return self.pool.connect("127.0.0.1", number, timeout_s, identity)

    async def refused(self, identity: str = NODE) -> None:
        """The connection is not made, or broken off before any answer."""
        failures = self.failures["not_verified"]
        try:
            connection = await self.connect(identity)
        except NotVerified:
            self.assertEqual(self.failures["not_verified"], failures + 1)
        else:
            # TLS 1.3: a client is done before the server has judged its certificate.
            ended: Deferred[str] = Deferred()
            connection.begin(_Listener(ended), False, 5.0, 5.0)
            connection.write(b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertIn("connection lost", await ended)
        self.assertEqual(self.seen, [])


class _Listener(ResponseListener):
    def __init__(self, ended: Deferred[str]) -> None:
        self.ended = ended

    def upstream_failed(self, error: str, timed_out: bool) -> None:
        self.ended.callback(error)

    def response_received(self, head: ParsedResponse | None, data: bytes, done: bool) -> None:
        self.ended.callback("an answer")

    def upload_paused(self) -> None: ...

    def upload_resumed(self) -> None: ...


class MutualTests(MutualCase):
    async def test_through_a_gateway(self) -> None:
        """A client's request goes by TLS to the node that was meant, its connection is used again
        by the next one, and the node says from whom it came."""
        attempts: list[Attempt] = []

        def forward(exchange: Exchange) -> None:
            head = exchange.head
            plan = Forward(
                host="127.0.0.1",
                port=self.port.getHost().port,
                identity=NODE,
                method=head.method,
                target=head.target,
                headers=[(b"Host", b"a")],
            )
            exchange.forward(plan, attempts.append)

        front = HTTPServerFactory(forward, Limits(), reactor, pool=self.pool)
        port: Any = reactor.listenTCP(0, front, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client: Any = await endpoint.connect(Factory.forProtocol(_Collecting))
        for number in (1, 2):
            client.transport.write(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            await until(lambda n=number: client.data.count(b"tenant's data") == n)
        self.assertEqual([each.outcome for each in attempts], [Outcome.COMPLETED] * 2)
        self.assertEqual([each.reused for each in attempts], [False, True])
        self.assertEqual((self.pool.made, self.tls.completed, self.seen), (1, 1, [b"/1", b"/2"]))
        client.transport.abortConnection()
        await front.drain(0.0)

    async def test_pool_keeps_identities_apart(self) -> None:
        """An idle connection serves only who means the same node, and the same way."""
        connection = await self.connect()
        number = self.port.getHost().port
        self.assertEqual(connection.key, ("127.0.0.1", number, NODE))
        self.assertIsNone(self.pool.take("127.0.0.1", number))
        self.assertIsNone(self.pool.take("127.0.0.1", number, "node_b.nodes.pbcluster.internal"))
        self.assertTrue(connection.usable())
        connection.abort()

    async def test_idle_connection_ends_unseen(self) -> None:
        """The end of an idle connection that waits in the kernel is found before it is used."""
        connection = await self.connect()
        self.assertTrue(connection.usable())
        connection.transport.transport.stopReading()
        self.http.abort_all()
        await until(lambda: not connection.usable())
        connection.abort()

    async def test_other_nodes_certificate(self) -> None:
        """A server with another node's certificate, however valid, gets no byte of a request."""
        failed = self.connect("node_b.nodes.pbcluster.internal")
        error = await self.assertFailure(failed, NotVerified)
        self.assertIn("the server is not node_b.nodes.pbcluster.internal", str(error))
        self.assertEqual((self.failures["not_verified"], self.seen), (1, []))

    async def test_server_of_another_authority(self) -> None:
        """A server whose certificate another authority signed is not believed."""
        pair = made("node", "node_a", "evil")
        put_mutual(self.node.directory, pair, issuer())
        self.node.reload()
        await self.refused()
        self.assertEqual(self.failures["not_verified"], 1)

    async def test_expired_server(self) -> None:
        """Nor one that has expired."""
        put_mutual(self.node.directory, made("node", "node_a", days=-0.001))
        self.node.reload()
        await self.refused()
        self.assertEqual(self.failures["not_verified"], 1)

    async def test_gateway_as_a_server(self) -> None:
        """A gateway's certificate is not good for answering."""
        creator = self.gateway
        tls = TLSServerFactory(creator, self.http, reactor, by_host=False)
        port: Any = reactor.listenTCP(0, tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        name = identities.name_of("gateway", "gateway_1")
        failed = self.connect(name, port.getHost().port)
        await self.assertFailure(failed, NotVerified)

    async def test_clients_that_are_no_gateway(self) -> None:
        """A node's certificate, one of another authority, an expired one: refused in the handshake,
        counted, and nothing of a request is read."""
        pairs = {
            "another authority": made("gateway", "gateway_1", "evil"),
            "expired": made("gateway", "gateway_1", days=-0.001),
        }
        for pair in pairs.values():
            put_mutual(self.gateway.directory, pair)
            self.gateway.reload()
            await self.refused()
        node = self.mutual("node", "node_b")
        self.gateway.current = node.current
        await self.refused()
        await until(lambda: sum(self.tls.failures.values()) == 3)
        self.assertEqual(self.tls.failures["certificate"], 3, self.tls.failures)

    async def test_client_without_a_certificate(self) -> None:
        """A client with none, and one without TLS, are refused and counted."""

        def ask() -> bytes:
            context = ssl.create_default_context(cadata=issuer().certificate.decode())
            context.check_hostname = False
            client = Client(self.port.getHost().port, NODE, context)
            try:
                client.tls.sendall(b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n")
                return client.tls.recv(100)
            finally:
                client.close()

        await self.assertFailure(deferToThread(ask), ssl.SSLError, OSError)
        plain = await self.pool.connect("127.0.0.1", self.port.getHost().port, 5.0)
        ended: Deferred[str] = Deferred()
        plain.begin(_Listener(ended), False, 5.0, 5.0)
        plain.write(b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n")
        await ended
        await until(lambda: sum(self.tls.failures.values()) == 2)
        self.assertEqual(self.tls.failures["plain_http"], 1)
        self.assertEqual((self.seen, self.flushLoggedErrors()), ([], []))

    async def test_no_session_is_resumed(self) -> None:
        """Each connection verifies the gateway's certificate anew."""

        def twice() -> bool | None:
            context = ssl.create_default_context(cadata=issuer().certificate.decode())
            context.check_hostname = False
            files = self.gateway.directory
            context.load_cert_chain(files / "certificate.pem", files / "key.pem")
            session = None
            for _ in range(2):
                client = Client(self.port.getHost().port, NODE, context, session=session)
                client.ask("a")
                session = client.tls.session
                reused = client.tls.session_reused
                client.close()
            return reused

        self.assertFalse(await deferToThread(twice))

    async def test_timeouts(self) -> None:
        """A server that is silent in the handshake is given up in time; cancelling is heeded; a
        closed port is what it was."""
        silent = Factory.forProtocol(Protocol)
        port: Any = reactor.listenTCP(0, silent, interface="127.0.0.1")
        number = port.getHost().port
        await self.assertFailure(self.connect(port=number, timeout_s=0.2), TimeoutError)
        self.assertEqual(self.failures["timeout"], 1)
        waiting = self.connect(port=number)
        reactor.callLater(0.05, waiting.cancel)
        await self.assertFailure(waiting, CancelledError, ConnectError)
        await port.stopListening()
        await self.assertFailure(self.connect(port=number), ConnectionRefusedError)


class ReloadTests(MutualCase):
    async def test_new_authority(self) -> None:
        """Files that change are used for new connections; what cannot be used is told and left."""
        kept = await self.connect()
        for role, mutual in (("node", self.node), ("gateway", self.gateway)):
            name = mutual.directory.name
            put_mutual(mutual.directory, made(role, name, "second"), issuer("second"))
        self.node.reload()
        await self.refused()
        self.gateway.reload()
        (await self.connect()).abort()
        self.assertTrue(kept.usable())
        kept.abort()
        (self.gateway.directory / "key.pem").write_bytes(b"nonsense")
        self.gateway.reload()
        self.assertIn("key.pem has no private key", self.gateway.problem)
        (await self.connect()).abort()
        put_mutual(self.gateway.directory, made("gateway", "gateway_1", "second"), issuer("second"))
        self.gateway.reload()
        self.assertEqual(self.gateway.problem, "")

    def test_bad_files_at_the_start(self) -> None:
        """Each is one sentence: missing, readable by others, another process's, no authority."""
        directory = self.root / "new"

        def load() -> str:
            with self.assertRaises(ConfigError) as caught:
                MutualTLS(directory, lambda: datetime.now(UTC), NODE)
            return str(caught.exception)

        self.assertIn("cannot read", load())
        put_mutual(directory, made("node", "node_b"))
        self.assertIn(f"is for node_b.nodes.pbcluster.internal, not for {NODE}", load())
        put_mutual(directory, made("node", "node_a"))
        write(directory / "ca.pem", b"nothing")
        self.assertIn("ca.pem has no certificate", load())
        os.chmod(directory / "key.pem", 0o644)
        self.assertIn("only its owner may read it", load())


class _Collecting(Protocol):
    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data
