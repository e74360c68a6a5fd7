"""What a request to the proxy says."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.egress.heads import Refused, parse

PROOF = b"Proxy-Authorization: Basic " + base64.b64encode(b"tenant_a:pass")


class Heads(SynchronousTestCase):
    def status(self, *lines: bytes) -> int:
        return self.assertRaises(Refused, parse, b"\r\n".join(lines)).status

    def test_connect(self) -> None:
        """CONNECT names a host and a port, also an IPv6 one, and who asks."""
        order = parse(b"CONNECT example.com:443 HTTP/1.1\r\n" + PROOF)
        self.assertEqual((order.host, order.port, order.forward), ("example.com", 443, b""))
        self.assertEqual((order.user, order.password), ("tenant_a", "pass"))
        self.assertNotIn("pass'", repr(order))
        self.assertEqual(parse(b"CONNECT [::1]:80 HTTP/1.1\r\n" + PROOF).host, "::1")

    def test_absolute_form(self) -> None:
        """A request in full reaches the server as its own, without what was meant for the proxy,
        and with the Host of the URL that was checked."""
        head = b"GET http://example.com:81/a?b=c HTTP/1.1\r\nHost: other\r\nX: y\r\n"
        order = parse(head + b"Connection: keep-alive\r\n" + PROOF)
        self.assertEqual((order.host, order.port), ("example.com", 81))
        expected = (
            b"GET /a?b=c HTTP/1.1\r\nHost: example.com:81\r\nConnection: close\r\nX: y\r\n\r\n"
        )
        self.assertEqual(order.forward, expected)

    def test_refused(self) -> None:
        """No, wrong or doubled credentials are a 407; what is no order to a proxy is a 400."""
        line = b"CONNECT example.com:443 HTTP/1.1"
        self.assertEqual(self.status(line), 407)
        self.assertEqual(self.status(line, PROOF, PROOF), 407)
        self.assertEqual(self.status(line, b"Proxy-Authorization: Bearer x"), 407)
        self.assertEqual(self.status(line, b"Proxy-Authorization: Basic !"), 407)
        for first in (
            b"GET / HTTP/1.1",
            b"GET https://example.com/ HTTP/1.1",
            b"GET ftp://example.com/ HTTP/1.1",
            b"GET http://a@example.com/ HTTP/1.1",
            b"CONNECT example.com HTTP/1.1",
            b"CONNECT example.com:0 HTTP/1.1",
            b"CONNECT example.com:99999 HTTP/1.1",
            b"CONNECT a@example.com:1 HTTP/1.1",
            b"CONNECT example.com:443 HTTP/1.0",
            b"connect example.com:443 HTTP/1.1",
        ):
            self.assertEqual(self.status(first, PROOF), 400, first)
        self.assertEqual(self.status(line, b"X : y", PROOF), 400)
        self.assertEqual(self.status(line, b"X: a\rb", PROOF), 400)
