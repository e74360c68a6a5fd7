"""Response heads: read as strictly as requests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.web.response_head import BadResponse, ParsedResponse, parse_response


def parse(*lines: bytes, to_head: bool = False) -> ParsedResponse:
    return parse_response(b"\r\n".join(lines), to_head)


class ResponseHeads(SynchronousTestCase):
    def test_bad_ones(self) -> None:
        """Two framings, doubtful lengths, folded or torn lines and junk are refused."""
        ok = b"HTTP/1.1 200 OK"
        for lines in (
            (b"junk",),
            (b"HTTP/2.0 200 OK",),
            (b"HTTP/1.1 2000 OK",),
            (b"HTTP/1.1 099 X",),
            (b"HTTP/1.1  200 OK",),
            (ok, b"Content-Length: 1", b"Transfer-Encoding: chunked"),
            (ok, b"Content-Length: 1", b"Content-Length: 1"),
            (ok, b"Content-Length: +1"),
            (ok, b"Transfer-Encoding: gzip, chunked"),
            (ok, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"),
            (ok, b"A : b"),
            (ok, b"A: b", b" c"),
            (ok, b"A: b\nC: d"),
            (ok, b"A: \x00"),
            (ok, *[b"A: b"] * 201),
        ):
            with self.assertRaises(BadResponse, msg=repr(lines)):
                parse(*lines)

    def test_framing(self) -> None:
        """The body's end follows from length, chunks or close, and keep-alive from that."""
        ok = b"HTTP/1.1 200 OK"
        found = parse(ok, b"Content-Length: 5", b"Connection: keep-alive", b"A: b")
        self.assertEqual((found.length, found.chunked, found.keep_alive), (5, False, True))
        self.assertEqual(list(found.head.headers), [(b"Content-Length", b"5"), (b"A", b"b")])
        found = parse(ok, b"Transfer-Encoding: Chunked")
        self.assertEqual((found.length, found.chunked, found.keep_alive), (None, True, True))
        found = parse(ok)
        self.assertEqual((found.length, found.keep_alive), (None, False))
        self.assertFalse(parse(ok, b"Content-Length: 5", b"Connection: close").keep_alive)
        self.assertFalse(parse(b"HTTP/1.0 200 OK", b"Content-Length: 5").keep_alive)

    def test_without_body(self) -> None:
        """Answers to HEAD, and 204 and 304, have no body whatever their fields say."""
        for found, kept in (
            (parse(b"HTTP/1.1 200 OK", b"Content-Length: 5", to_head=True), True),
            (parse(b"HTTP/1.1 204 No Content"), True),
            # Whoever frames what may not be there might send it too, later.
            (parse(b"HTTP/1.1 204 No Content", b"Transfer-Encoding: chunked"), False),
            (parse(b"HTTP/1.1 304 Not Modified", b"Content-Length: 5"), True),
        ):
            self.assertFalse(found.has_body)
            self.assertTrue(found.reader().done)
            self.assertEqual(found.keep_alive, kept)

    def test_reason_may_be_missing(self) -> None:
        """A status line without a reason is valid, with or without its space."""
        self.assertEqual(parse(b"HTTP/1.1 200").head.reason, b"")
        self.assertEqual(parse(b"HTTP/1.1 200 ").head.reason, b"")
