"""A TLS listener on real sockets: names, the wrong host, reloads, bounds, junk."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from pbcluster.web.limits import Limits
from tests.web.pki import client_context, put, site, write
from tests.web.tls_case import ListenerCase, until


class NameTests(ListenerCase):
    def setUp(self) -> None:
        super().setUp()
        put(self.path, "shop", site("shop.example.com", "www.example.com"))
        put(self.path, "wild", site("*.apps.example.com"))
        self.listen()

    async def test_by_name(self) -> None:
        """Each name gets its certificate, in any case, and the request comes as a secure one."""
        client = await self.client("shop.example.com")
        self.assertEqual(client.names, {"shop.example.com", "www.example.com"})
        answer = await deferToThread(client.ask, "SHOP.example.com:8443")
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        wild = await self.client("a.Apps.example.com")
        self.assertEqual(wild.names, {"*.apps.example.com"})
        self.assertEqual((await deferToThread(wild.ask, "a.apps.example.com")).status, 200)
        self.assertEqual([head.secure for head in self.heads], [True, True])
        self.assertEqual((self.tls.completed, self.tls.under_way), (2, 0))

    async def test_unknown_name(self) -> None:
        """Without a default certificate an unknown name, or none, ends in an alert and is counted;
        nothing of any other certificate is shown."""
        for name in ("other.example.com", "b.a.apps.example.com", None):
            failed = self.client(name)
            error = await self.assertFailure(failed, ssl.SSLError)
            self.assertIn("HANDSHAKE_FAILURE", str(error))
        await until(lambda: self.tls.failures["no_certificate"] == 3)
        self.assertEqual(self.heads, [])

    async def test_default(self) -> None:
        """With one, both get it. Who named a host may ask for that one; who named none for the
        default's hosts only."""
        put(self.path, "default", site("fallback.example.net", "*.example.net"))
        await self.directory.reload()
        trusting = client_context(check_hostname=False)
        client = await self.client("other.example.com", trusting)
        self.assertIn("fallback.example.net", client.names)
        self.assertEqual((await deferToThread(client.ask, "other.example.com")).status, 200)
        for host, status in {
            "fallback.example.net": 200,
            "a.example.net": 200,
            "shop.example.com": 421,
            "10.0.0.1": 421,
        }.items():
            self.assertEqual((await self.get(None, host)).status, status, host)

    async def test_misdirected(self) -> None:
        """SNI differs from Host: 421 by us, even under one certificate, also for a later request
        of a connection; no handler hears of it and the connection ends in order."""
        for name, host in (
            ("shop.example.com", "www.example.com"),
            ("a.apps.example.com", "b.apps.example.com"),
            ("shop.example.com", "127.0.0.1"),
        ):
            answer = await self.get(name, host)
            self.assertEqual(answer.status, 421)
            self.assertIn(b"another host", answer.body)
        self.assertEqual(self.heads, [])
        client = await self.client("shop.example.com")
        self.assertEqual((await deferToThread(client.ask, "shop.example.com")).status, 200)
        self.assertEqual((await deferToThread(client.ask, "www.example.com")).status, 421)
        self.assertTrue(await deferToThread(client.at_end))
        self.assertEqual(self.http.rejected[421], 4)
        absolute = await self.client("shop.example.com")
        answer = await deferToThread(
            absolute.ask, "www.example.com", "GET https://www.example.com/ HTTP/1.1"
        )
        self.assertEqual(answer.status, 421)

    async def test_trailing_dot(self) -> None:
        """A last dot in SNI or Host makes no other host."""
        client = await self.client("shop.example.com.", client_context(check_hostname=False))
        self.assertEqual((await deferToThread(client.ask, "shop.example.com.")).status, 200)


class ReloadTests(ListenerCase):
    async def test_open_connections_stay(self) -> None:
        """A renewed certificate is shown to new connections while an open one goes on."""
        put(self.path, "shop", site("shop.example.com"))
        self.listen()
        before = await self.client("shop.example.com")
        self.assertEqual((await deferToThread(before.ask, "shop.example.com")).status, 200)
        put(self.path, "shop", site("shop.example.com", "new.example.com"))
        await self.directory.reload()
        after = await self.client("shop.example.com")
        self.assertEqual(after.names, {"shop.example.com", "new.example.com"})
        self.assertEqual((await deferToThread(before.ask, "shop.example.com")).status, 200)
        write(self.path / "shop.pem", b"nonsense")
        await self.directory.reload()
        self.assertIn("new.example.com", (await self.client("shop.example.com")).names)
        (self.path / "shop.pem").unlink()
        await self.directory.reload()
        await self.assertFailure(self.client("shop.example.com"), ssl.SSLError)
        self.assertEqual((await deferToThread(before.ask, "shop.example.com")).status, 200)

    async def test_chosen_certificate_of_no_name(self) -> None:
        """A connection without SNI keeps the names of the certificate that it was shown."""
        put(self.path, "default", site("old.example.com"))
        self.listen()
        client = await self.client(None)
        put(self.path, "default", site("new.example.com"))
        await self.directory.reload()
        self.assertEqual((await deferToThread(client.ask, "old.example.com")).status, 200)
        self.assertEqual((await deferToThread(client.ask, "new.example.com")).status, 421)


class ProtocolTests(ListenerCase):
    def setUp(self) -> None:
        super().setUp()
        put(self.path, "shop", site("shop.example.com"))
        put(self.path, "other", site("other.example.com"))
        self.listen()

    async def test_versions(self) -> None:
        """TLS 1.2 and 1.3 with forward secrecy; 1.1 is refused with an alert and counted."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(minimum_version=version, maximum_version=version)
            client = await self.client("shop.example.com", context)
            cipher: Any = client.tls.cipher()
            self.assertTrue(cipher[0].startswith(("ECDHE-", "TLS_")), cipher)
            self.assertIsNone(client.tls.compression())
        old = client_context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        error = await self.assertFailure(self.client("shop.example.com", old), ssl.SSLError)
        self.assertIn("PROTOCOL_VERSION", str(error))
        await until(lambda: self.tls.failures["version"] == 1)

    async def test_alpn(self) -> None:
        """http/1.1 is chosen where it is offered; who offers only others is told so."""
        context = client_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        client = await self.client("shop.example.com", context)
        self.assertEqual(client.tls.selected_alpn_protocol(), "http/1.1")
        only = client_context()
        only.set_alpn_protocols(["h2"])
        error = await self.assertFailure(self.client("shop.example.com", only), ssl.SSLError)
        self.assertIn("no application protocol", str(error).lower().replace("_", " "))
        await until(lambda: sum(self.tls.failures.values()) == 1)

    async def test_resumption(self) -> None:
        """A session is resumed by its ticket, also after a reload, and serves one host only;
        new ticket keys end it."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(minimum_version=version, maximum_version=version)
            client = await self.client("shop.example.com", context)
            await deferToThread(client.ask, "shop.example.com")
            session = client.tls.session
            put(self.path, "shop", site("shop.example.com"))
            await self.directory.reload()
            again = await self.client("shop.example.com", context, session=session)
            self.assertTrue(again.tls.session_reused, version)
            self.assertEqual((await deferToThread(again.ask, "shop.example.com")).status, 200)
            self.assertEqual((await deferToThread(again.ask, "other.example.com")).status, 421)
            other = await self.client("other.example.com", context, session=session)
            # TLS 1.2 takes the session's name, 1.3 the one of this handshake (RFC 8446, 4.6.1).
            self.assertTrue(other.tls.session_reused)
            old = version is ssl.TLSVersion.TLSv1_2
            right, wrong = ("shop", "other") if old else ("other", "shop")
            self.assertEqual((await deferToThread(other.ask, f"{right}.example.com")).status, 200)
            self.assertEqual((await deferToThread(other.ask, f"{wrong}.example.com")).status, 421)
            self.creator._until = 0.0
            later = await self.client("shop.example.com", context, session=session)
            self.assertFalse(later.tls.session_reused, version)

    async def test_no_renegotiation(self) -> None:
        """TLS 1.2's renegotiation is refused; the connection that asks for it ends."""

        def renegotiate() -> bool:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            raw = self.raw()
            raw.setblocking(True)
            connection = SSL.Connection(context, raw)
            connection.set_tlsext_host_name(b"shop.example.com")
            connection.set_connect_state()
            connection.do_handshake()
            connection.renegotiate()
            try:
                connection.do_handshake()
                connection.send(b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
                connection.recv(1)
            except SSL.Error:
                return True
            return connection.total_renegotiations() == 0

        self.assertTrue(await deferToThread(renegotiate))


class JunkTests(ListenerCase):
    limits = Limits(header_timeout_s=0.5)

    def setUp(self) -> None:
        super().setUp()
        put(self.path, "shop", site("shop.example.com"))
        self.listen()

    def read_all(self, raw: socket.socket) -> bytes:
        data = b""
        while piece := raw.recv(65536):
            data += piece
        return data

    async def test_plain_http(self) -> None:
        """Who speaks HTTP without TLS is cut off in order, counted, and logged nowhere."""
        raw = self.raw()
        raw.sendall(b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
        data = await deferToThread(self.read_all, raw)
        self.assertNotIn(b"hello", data)
        await until(lambda: self.tls.failures["plain_http"] == 1)
        self.assertEqual((self.heads, self.flushLoggedErrors()), ([], []))

    async def test_junk(self) -> None:
        """Junk of any form ends its own connection only, without a line in the log."""
        for junk in (b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"a" * 300, b"\xff", b"\x16\x03\x01"):
            raw = self.raw()
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            await deferToThread(self.read_all, raw)
        await until(lambda: sum(self.tls.failures.values()) == 4)
        self.assertEqual(self.flushLoggedErrors(), [])
        client = await self.client("shop.example.com")
        self.assertEqual((await deferToThread(client.ask, "shop.example.com")).status, 200)

    async def test_silence_and_slow_hello(self) -> None:
        """A handshake has the time of a head, from the connection's start: whoever is silent, or
        sends a byte now and then, is cut off in it."""
        silent, slow = self.raw(), self.raw()
        slow.sendall(b"\x16")
        for raw in (silent, slow):
            with self.assertRaises(ConnectionResetError):
                await deferToThread(self.read_all, raw)
        await until(lambda: self.tls.failures["timeout"] == 2)
        self.assertEqual((self.tls.under_way, self.http.connection_count), (0, 0))

    async def test_silence_after_the_handshake(self) -> None:
        """The same time counts on after it."""
        client = await self.client("shop.example.com")
        self.assertTrue(await deferToThread(client.at_end))

    async def test_bound_of_handshakes(self) -> None:
        """Above the bound further clients are closed at once; when a handshake ends there is room
        again, and finished ones do not count."""
        self.tls._max_handshakes = 1
        await self.client("shop.example.com")
        silent = self.raw()
        await until(lambda: self.tls.under_way == 1)
        await self.assertFailure(self.client("shop.example.com"), ssl.SSLError, OSError)
        self.assertEqual(self.tls.failures["refused"], 1)
        silent.close()
        await until(lambda: self.tls.under_way == 0)
        await self.client("shop.example.com")

    async def test_gone_in_the_middle(self) -> None:
        """A client that leaves in its handshake is forgotten."""
        raw = self.raw()
        await until(lambda: self.tls.under_way == 1)
        raw.close()
        await until(lambda: self.tls.failures["gone"] == 1)


class StreamTests(ListenerCase):
    """What the HTTP core does with a connection holds over TLS too."""

    def setUp(self) -> None:
        super().setUp()
        put(self.path, "shop", site("shop.example.com"))
        self.listen()
        self.body = bytes(range(256)) * 8192

    def handle(self, exchange: Any) -> None:
        self.heads.append(exchange.head)
        close = exchange.head.target == b"/close"
        exchange.respond(200, self.body, content_type=b"x/y", close=close)

    async def test_large_answers(self) -> None:
        """Two megabytes come whole, on a kept connection, and on one that ends after them, with
        its end in order."""
        client = await self.client("shop.example.com")
        for target in ("/", "/", "/close"):
            answer = await deferToThread(client.ask, "shop.example.com", f"GET {target} HTTP/1.1")
            self.assertEqual(answer.body, self.body)
        self.assertTrue(await deferToThread(client.at_end))
        await deferToThread(client.close)
        await until(lambda: self.http.connection_count == 0)

    async def test_refused_upload(self) -> None:
        """An upload that is refused unread gets its answer, not a reset."""
        client = await self.client("shop.example.com")
        more = b"Content-Length: 999999999\r\n\r\n" + b"x" * 500_000
        answer = await deferToThread(client.ask, "shop.example.com", "POST / HTTP/1.1", more)
        self.assertEqual(answer.status, 413)

    async def test_drain(self) -> None:
        """At the listener's end idle connections end in order."""
        client = await self.client("shop.example.com")
        await deferToThread(client.ask, "shop.example.com")
        await self.port.stopListening()
        done: Deferred[None] = self.http.drain(10.0)
        self.assertTrue(await deferToThread(client.at_end))
        client.close()
        await done
