"""Header helpers: what is about one connection is never passed on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import LocalProtocolError
from pbcluster.web.headers import (
    BadField,
    check_lines,
    encode_lines,
    end_to_end,
    replaced,
    without,
)


class LineTests(SynchronousTestCase):
    def good(self, block: bytes) -> bool:
        try:
            check_lines(block)
        except BadField:
            return False
        return True

    def test_every_byte(self) -> None:
        """Tabs and all but control characters may stand in a line, alone or among others."""
        for byte in range(256):
            allowed = byte == 9 or (byte >= 0x20 and byte != 0x7F)
            for before, after in ((b"", b""), (b"A: b", b"c"), (b"A: b\r\nC: d", b"e\r\nF: g")):
                block = before + bytes([byte]) + after
                self.assertEqual(self.good(block), allowed, block)

    def test_line_ends(self) -> None:
        """CR and LF stand in pairs or not at all."""
        for block in (b"", b"A: b", b"A: b\r\n", b"A: b\r\nC: d\r\n\r\n"):
            self.assertTrue(self.good(block), block)
        for block in (b"\r", b"\n", b"\n\r", b"A\r\r\n", b"A\r\n\n", b"A\rB\nC", b"A\nB\rC"):
            self.assertFalse(self.good(block), block)


class EndToEnd(SynchronousTestCase):
    def test_hop_by_hop_fields_go(self) -> None:
        """Connection, Upgrade, TE and their like are dropped in any case of letters."""
        fields = [
            (b"Host", b"a"),
            (b"CONNECTION", b"Upgrade, HTTP2-Settings"),
            (b"Upgrade", b"h2c"),
            (b"HTTP2-Settings", b"x"),
            (b"te", b"trailers"),
            (b"Keep-Alive", b"300"),
            (b"Accept", b"*/*"),
        ]
        self.assertEqual(end_to_end(fields), [(b"Host", b"a"), (b"Accept", b"*/*")])

    def test_fields_named_by_connection_go(self) -> None:
        """A client's own X-Tenant-ID that Connection names is dropped before ours is added."""
        fields = [(b"X-Tenant-ID", b"a"), (b"Connection", b"close, x-tenant-id"), (b"B", b"c")]
        self.assertEqual(end_to_end(fields), [(b"B", b"c")])

    def test_connection_cannot_remove_what_the_message_means(self) -> None:
        """Host and the body's description stay, whatever Connection says."""
        fields = [(b"Host", b"a"), (b"Content-Type", b"b")]
        named = [*fields, (b"Connection", b"host, content-type")]
        self.assertEqual(end_to_end(named), fields)

    def test_drop_and_replace(self) -> None:
        """Fields are dropped and replaced by name, in any case of letters."""
        fields = [(b"A", b"1"), (b"X-Real-IP", b"2"), (b"x-real-ip", b"3")]
        self.assertEqual(without(fields, b"x-real-ip"), [(b"A", b"1")])
        self.assertEqual(replaced(fields, b"X-Real-IP", b"9"), [(b"A", b"1"), (b"X-Real-IP", b"9")])
        self.assertEqual(end_to_end(fields, frozenset((b"x-real-ip",))), [(b"A", b"1")])


class Encoding(SynchronousTestCase):
    def test_framing_is_ours(self) -> None:
        """Framing fields given by a handler do not reach the wire beside the core's own."""
        fields = [(b"A", b"1"), (b"content-length", b"9"), (b"Transfer-Encoding", b"chunked")]
        self.assertEqual(encode_lines(fields, b"GET / HTTP/1.1"), b"GET / HTTP/1.1\r\nA: 1\r\n")

    def test_line_breaks_cannot_be_sent(self) -> None:
        """A line break in a value is an error of ours, not a further field."""
        for value in (b"1\r\nB: 2", b"1\nB: 2", b"1\rB", b"1\r\n"):
            with self.assertRaises(LocalProtocolError):
                encode_lines([(b"A", value)], b"GET / HTTP/1.1")
