from twisted.trial.unittest import SynchronousTestCase

from pbcluster.web.interfaces import RequestHead
from pbcluster.web.limits import HeadLimits
from pbcluster.web.memory import MAX_BLOCK_BYTES, Remembered
from pbcluster.web.rules import Rejection, parse_request
from tests.web.heads import told

LIMITS = HeadLimits(line_bytes=64)


class RememberedTests(SynchronousTestCase):
    def test_the_oldest_goes_first(self) -> None:
        """It holds so many blocks, and no long ones."""
        memory: Remembered = Remembered(max_blocks=2)
        for number, block in enumerate((b"a", b"b", b"c", b"x" * (MAX_BLOCK_BYTES + 1))):
            memory.put(block, number)
        self.assertEqual(memory.known, {b"b": 1, b"c": 2})


class RequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory: Remembered = Remembered()

    def read(self, raw: bytes, secure: bool = False) -> RequestHead | Rejection:
        fresh = parse_request(raw, LIMITS, "::1", secure)
        found = parse_request(raw, LIMITS, "::1", secure, self.memory)
        if isinstance(found, RequestHead) and isinstance(fresh, RequestHead):
            self.assertEqual(told(found) | {"memo": None}, told(fresh) | {"memo": None})
        else:
            assert isinstance(found, Rejection)
            assert isinstance(fresh, Rejection)
            self.assertEqual(found.status, fresh.status)
        return found

    def test_the_same_lines(self) -> None:
        """Requests with the same field lines share what was read from them, and nothing else."""
        lines = b"\r\nHost: a\r\nContent-Length: 3"
        one = self.read(b"GET /1 HTTP/1.1" + lines)
        two = self.read(b"POST /2 HTTP/1.1" + lines)
        assert isinstance(one, RequestHead)
        assert isinstance(two, RequestHead)
        self.assertIs(one.memo, two.memo)
        self.assertEqual((two.method, two.target, two.content_length), (b"POST", b"/2", 3))

    def test_the_request_line_is_judged_each_time(self) -> None:
        """However well known the field lines are."""
        lines = b"\r\nHost: a"
        self.read(b"GET / HTTP/1.1" + lines)
        for line, status in {
            b"GET  / HTTP/1.1": 400,
            b"GET /#x HTTP/1.1": 400,
            b"GET / HTTP/1.1 ": 400,
            b"GET /\n HTTP/1.1": 400,
            b"GET /" + b"x" * 64 + b" HTTP/1.1": 414,
            b"TRACE / HTTP/1.1": 405,
            b"GET / HTTP/2.0": 505,
            b"GET http://b/ HTTP/1.1": 400,
        }.items():
            found = self.read(line + lines)
            assert isinstance(found, Rejection)
            self.assertEqual(found.status, status, line)

    def test_http_10(self) -> None:
        """The same lines mean something else in HTTP/1.0, whichever came first."""
        lines = b"\r\nHost: a\r\nConnection: keep-alive"
        for _ in range(2):
            for version, keep in ((b"1.0", True), (b"1.1", True)):
                found = self.read(b"GET / HTTP/" + version + lines)
                assert isinstance(found, RequestHead)
                self.assertEqual((found.http_10, found.keep_alive), (version == b"1.0", keep))
        plain = self.read(b"GET / HTTP/1.0\r\nHost: a")
        assert isinstance(plain, RequestHead)
        self.assertFalse(plain.keep_alive)
        chunked = b"\r\nHost: a\r\nTransfer-Encoding: chunked"
        self.assertIsInstance(self.read(b"POST / HTTP/1.1" + chunked), RequestHead)
        self.assertIsInstance(self.read(b"POST / HTTP/1.0" + chunked), Rejection)

    def test_what_was_refused_is_refused_again(self) -> None:
        """Only what passed every check is remembered."""
        raw = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b"
        for _ in range(2):
            self.assertIsInstance(self.read(raw), Rejection)
        self.assertEqual(self.memory.known, {})

    def test_absolute_form_by_the_connection(self) -> None:
        """An absolute target is compared with the port of the connection that it came on."""
        lines = b"\r\nHost: a:443"
        self.assertIsInstance(self.read(b"GET https://a/ HTTP/1.1" + lines, True), RequestHead)
        self.assertIsInstance(self.read(b"GET http://a/ HTTP/1.1" + lines), Rejection)


class ApartTests(SynchronousTestCase):
    """A field that differs from request to request, set apart where it stands first."""

    LIMITS = HeadLimits(line_bytes=64, fields_bytes=128)
    LINES = b"Host: a\r\nAccept: b"

    def setUp(self) -> None:
        self.memory: Remembered = Remembered()

    def read(self, lines: bytes) -> RequestHead | Rejection:
        raw = b"GET / HTTP/1.1\r\n" + lines
        return parse_request(raw, self.LIMITS, "::1", False, self.memory, b"X-Signed: ")

    def accepted(self, lines: bytes) -> RequestHead:
        head = self.read(lines)
        assert isinstance(head, RequestHead), head
        return head

    def test_first(self) -> None:
        """It is not among the fields, which are remembered without it."""
        one = self.accepted(b"X-Signed:  1 \r\n" + self.LINES)
        two = self.accepted(b"X-Signed: 2\r\n" + self.LINES)
        none = self.accepted(self.LINES)
        self.assertEqual([head.first for head in (one, two, none)], [b"1", b"2", b""])
        self.assertEqual(one.headers, [(b"Host", b"a"), (b"Accept", b"b")])
        self.assertIs(one.memo, two.memo)
        self.assertIs(one.memo, none.memo)

    def test_elsewhere(self) -> None:
        """Behind another field, or spelt otherwise, it is a field like all others."""
        for lines in (self.LINES + b"\r\nX-Signed: 1", b"x-signed: 1\r\n" + self.LINES):
            head = self.accepted(lines)
            self.assertEqual((head.first, head.get(b"x-signed")), (b"", b"1"))

    def test_judged_each_time(self) -> None:
        """However well known the other lines are: nothing hides in it, and it has its bound."""
        self.accepted(self.LINES)
        for value, status in {
            b"a\x00b": 400,
            b"a\rb": 400,
            b"a\nX-Other: b": 400,
            b"a" * 200: 431,
        }.items():
            head = self.read(b"X-Signed: " + value + b"\r\n" + self.LINES)
            assert isinstance(head, Rejection), value
            self.assertEqual(head.status, status, value)
