"""The rules of request heads: what is refused, with which status, and what passes unchanged."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.web.interfaces import RequestHead
from pbcluster.web.limits import HeadLimits
from pbcluster.web.rules import (
    HeadScanner,
    Rejected,
    Rejection,
    parse_authority,
    parse_request,
)
from tests.web.corpus import BAD_HEADS, get, line, post

LIMITS = HeadLimits()


def judge(*pieces: bytes, secure: bool = False) -> RequestHead | Rejection | None:
    """The verdict on bytes that come in these pieces; None while more is awaited."""
    scanner = HeadScanner(LIMITS)
    try:
        for piece in pieces:
            found = scanner.feed(piece)
            if found is not None:
                return parse_request(found[0], LIMITS, "192.0.2.1", secure)
    except Rejected as error:
        return error.rejection
    return None


class BadHeads(SynchronousTestCase):
    def test_each_gets_its_status(self) -> None:
        """Every bad head of the corpus is refused with its status when it comes in one read."""
        for name, (raw, status) in BAD_HEADS.items():
            verdict = judge(raw)
            self.assertIsInstance(verdict, Rejection, name)
            self.assertEqual(verdict.status, status, name)

    def test_however_it_is_split(self) -> None:
        """Cut in two at any byte, or sent byte by byte, each is refused with the same status."""
        for name, (raw, status) in BAD_HEADS.items():
            cuts = range(1, len(raw)) if len(raw) < 600 else range(1, len(raw), 97)
            for cut in cuts:
                verdict = judge(raw[:cut], raw[cut:])
                self.assertEqual(getattr(verdict, "status", verdict), status, (name, cut))
            verdict = judge(*(raw[at : at + 1] for at in range(len(raw))))
            self.assertEqual(getattr(verdict, "status", verdict), status, name)


class GoodHeads(SynchronousTestCase):
    def accepted(self, raw: bytes, secure: bool = False) -> RequestHead:
        verdict = judge(raw, secure=secure)
        self.assertIsInstance(verdict, RequestHead, raw)
        return verdict

    def test_plain_get(self) -> None:
        """A plain GET keeps its target, its fields in order, and has no body."""
        head = self.accepted(get(b"Accept: */*", b"X-Empty:"))
        self.assertEqual((head.method, head.target, head.host), (b"GET", b"/", b"a.localhost"))
        self.assertEqual(
            list(head.headers),
            [(b"Host", b"a.localhost"), (b"Accept", b"*/*"), (b"X-Empty", b"")],
        )
        self.assertFalse(head.has_body())
        self.assertTrue(head.keep_alive)
        self.assertEqual(head.peer_host, "192.0.2.1")

    def test_every_byte_of_a_target(self) -> None:
        """Visible ASCII but for ``#`` may stand in a target, and nothing else."""
        for byte in range(256):
            verdict = judge(line(b"GET /a" + bytes([byte]) + b"b HTTP/1.1"))
            allowed = 0x21 <= byte <= 0x7E and byte != ord("#")
            self.assertEqual(isinstance(verdict, RequestHead), allowed, byte)

    def test_target_goes_through_byte_exact(self) -> None:
        """Encoded dots, double slashes and odd visible characters are not touched."""
        target = b'/a/%2e%2e//b;c?q=%7B"x"|{}^`\\'
        self.assertEqual(self.accepted(line(b"GET " + target + b" HTTP/1.1")).target, target)

    def test_absolute_form_becomes_origin_form(self) -> None:
        """An absolute target that names the Host is reduced to path and query."""
        for target, rest in (
            (b"http://a.localhost/x?y", b"/x?y"),
            (b"HTTP://A.localhost:80", b"/"),
            (b"http://a.localhost?q", b"/?q"),
        ):
            self.assertEqual(self.accepted(line(b"GET " + target + b" HTTP/1.1")).target, rest)
        head = self.accepted(line(b"GET https://a.localhost:443/ HTTP/1.1"), secure=True)
        self.assertEqual(head.target, b"/")

    def test_host_is_folded(self) -> None:
        """Upper case, a numeric port and one trailing dot of the Host are taken away."""
        self.assertEqual(self.accepted(get(host=b"Host: A.LocalHost.:8080")).host, b"a.localhost")
        self.assertEqual(self.accepted(get(host=b"Host: [::1]:80")).host, b"[::1]")
        self.assertEqual(self.accepted(get(host=b"Host: 10.0.0.1")).host, b"10.0.0.1")

    def test_framing(self) -> None:
        """Content-Length and chunked are told apart; chunked in any case and with spaces."""
        self.assertEqual(self.accepted(post(b"Content-Length: 007")).content_length, 7)
        self.assertFalse(self.accepted(post(b"Content-Length: 0")).has_body())
        head = self.accepted(post(b"Transfer-Encoding:  Chunked \t"))
        self.assertTrue(head.chunked)
        self.assertIsNone(head.content_length)

    def test_underscored_fields_are_dropped(self) -> None:
        """X_Tenant_ID does not reach an upstream that would read it as X-Tenant-ID."""
        head = self.accepted(get(b"X_Tenant_ID: a", b"X-Kept: a_b"))
        self.assertEqual(list(head.headers)[1:], [(b"X-Kept", b"a_b")])

    def test_connection_options(self) -> None:
        """close ends, HTTP/1.0 needs keep-alive to go on, other options do not matter."""
        self.assertFalse(self.accepted(get(b"Connection: x, Close")).keep_alive)
        self.assertTrue(self.accepted(get(b"Connection: Upgrade, HTTP2-Settings")).keep_alive)
        old = b"GET / HTTP/1.0\r\nHost: a.localhost\r\n"
        self.assertFalse(self.accepted(old + b"\r\n").keep_alive)
        head = self.accepted(old + b"Connection: keep-alive\r\n\r\n")
        self.assertTrue(head.keep_alive)
        self.assertTrue(head.http_10)

    def test_expect(self) -> None:
        """100-continue is noted in HTTP/1.1 and ignored in HTTP/1.0."""
        raw = post(b"Content-Length: 1", b"Expect: 100-Continue")
        self.assertTrue(self.accepted(raw).expects_continue)
        old = raw.replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assertFalse(self.accepted(old).expects_continue)

    def test_one_empty_line_is_forgiven(self) -> None:
        """A CRLF before a request, whole or in two reads, is skipped."""
        self.accepted(b"\r\n" + get())
        self.assertIsInstance(judge(b"\r", b"\n", get()), RequestHead)

    def test_options_star(self) -> None:
        """OPTIONS * is the one use of the asterisk."""
        self.assertEqual(self.accepted(line(b"OPTIONS * HTTP/1.1")).target, b"*")

    def test_exactly_at_the_limits(self) -> None:
        """100 fields, 16 KiB of them, and a line of 8 KiB pass, in one read or byte by byte."""
        self.accepted(get(*[b"A: b"] * 99))
        fields = b"Host: a.localhost\r\nA: "
        fill = LIMITS.fields_bytes - len(fields) - 2
        raw = b"GET / HTTP/1.1\r\n" + fields + b"x" * fill + b"\r\n\r\n"
        self.accepted(raw)
        self.assertIsInstance(judge(raw[:-1], raw[-1:]), RequestHead)
        self.assertIsInstance(judge(*(raw[at : at + 1] for at in range(len(raw)))), RequestHead)
        over = raw.replace(b"A: ", b"A: x")
        self.assertEqual(judge(over).status, 431)
        target = b"/" + b"x" * (LIMITS.line_bytes - len(b"GET / HTTP/1.1"))
        raw = line(b"GET " + target + b" HTTP/1.1")
        self.accepted(raw)
        self.assertIsInstance(judge(*(raw[at : at + 1] for at in range(len(raw)))), RequestHead)
        self.assertEqual(judge(raw.replace(b" /", b" /x", 1)).status, 414)

    def test_what_follows_is_kept(self) -> None:
        """The scanner gives back the bytes behind the head and is ready for the next one."""
        scanner = HeadScanner(LIMITS)
        found = scanner.feed(get() + b"body")
        self.assertEqual(found, (get()[:-4], b"body"))
        self.assertTrue(scanner.empty())
        self.assertIsNotNone(scanner.feed(get()))


class Authorities(SynchronousTestCase):
    def test_longest(self) -> None:
        """A label of 63 bytes and a name of 253 pass, one more does not."""
        label = b"a" * 63
        self.assertEqual(parse_authority(label), (label, None))
        name = b".".join([label, label, label, b"a" * 61])
        self.assertEqual(parse_authority(name), (name, None))
        self.assertIsNone(parse_authority(name + b"a"))
