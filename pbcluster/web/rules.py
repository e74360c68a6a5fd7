"""What a request may look like: RFC 9110 and 9112 read strictly, bytes in, a verdict out.

Pure. A request that is not beyond doubt is refused, since the next server might read it
differently (request smuggling). The scanner works on the bytes themselves: common parsers accept
a missing or doubled Host, a stray comma before ``chunked``, two spaces in the request line. One
pass in C over the head (``bytes.translate``) finds every control character and stray line end;
only then are lines split.

Sizes come first (414, 431), then form (400), then what we do not do (405, 417, 501, 505).
Underscored field names are dropped: CGI-like upstreams take ``X_Tenant_ID`` for ``X-Tenant-ID``.
Not here: bodies (``chunked``), who may ask for what (the handlers).
"""

from __future__ import annotations

import functools
import ipaddress
import re

import attrs

from pbcluster.web.headers import TOKEN, BadField, check_lines, connection_options, scan_fields
from pbcluster.web.interfaces import Memo, RequestHead
from pbcluster.web.limits import HeadLimits
from pbcluster.web.memory import Remembered

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
#: Tunnels, and a method that echoes credentials.
FORBIDDEN_METHODS = frozenset((b"CONNECT", b"TRACE"))
SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))
#: More digits could not be a size on any machine.
MAX_LENGTH_DIGITS = 18
#: The longest name, its trailing dot and a port.
MAX_AUTHORITY_BYTES = 253 + 1 + 6

#: Each byte of the target as itself, if it may stand there, else as another one: to compare is the
#: fastest way to look at all of them.
_TARGET_BYTES = bytes(
    byte if 0x21 <= byte < 0x7F and byte != ord("#") else byte ^ 0x80 for byte in range(256)
)
_PERCENT = ord("%")
_LABEL = rb"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_AUTHORITY = re.compile(
    rb"(?:(" + _LABEL + rb"(?:\." + _LABEL + rb")*)\.?|(\[[0-9a-f:.]{2,45}\]))(?::([0-9]{1,5}))?"
)
_ABSOLUTE = re.compile(rb"(https?)://([^/?]*)(.*)", re.IGNORECASE)
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STRAY = re.compile(rb"\r[^\n]|[^\r]\n|\A\n")
_END = b"\r\n\r\n"
_BAD_LINE = "the request line is not METHOD TARGET VERSION with single spaces"
_DEFAULT_PORTS = {b"http": 80, b"https": 443}


@attrs.frozen
class Rejection:
    """Why a request is refused: an HTTP status and a sentence for its sender."""

    status: int
    message: str


class Rejected(Exception):
    """Carries a :class:`Rejection` out of a scanner."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.rejection = Rejection(status, message)


# -- finding the end of a head --------------------------------------------------------------------


class HeadScanner:
    """Collects bytes until a head is whole; notices early what can no longer become right.

    Bounded by its limits: it never holds more than one read beyond them. Each byte is searched
    once, however small the pieces are.

    :ivar timed: for its owner: the deadline of the head under way is set.
    """

    __slots__ = (
        "_buffer",
        "_first_line_end",
        "_forgiving",
        "_limits",
        "_searched",
        "_skipped",
        "timed",
    )

    def __init__(self, limits: HeadLimits, *, forgiving: bool = True) -> None:
        """
        :param forgiving: one empty line may stand before a head; not so before responses.
        """
        self._limits = limits
        self._forgiving = forgiving
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next byte begins a head."""
        self._buffer = b""
        self._searched = 0
        self._first_line_end = -1
        self._skipped = not self._forgiving
        self.timed = False

    def empty(self) -> bool:
        """Whether no byte of a head has come."""
        return not self._buffer

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Add bytes.

        :return: the head without its last empty line and what follows it, or None if more is
            needed. The scanner is then as new.
        :raises Rejected: 400, 414 or 431.
        """
        buffer: bytes = self._buffer + data if self._buffer else data
        if not self._skipped and buffer.startswith(b"\r") and buffer[:2] in (b"\r", b"\r\n"):
            # One empty line before a request is forgiven (RFC 9112, section 2.2).
            if len(buffer) == 1:
                self._buffer = buffer
                return None
            self._skipped = True
            buffer = buffer[2:]
        if not self._searched:  # the usual case, in one step
            head, found, rest = buffer.partition(_END)
            if found and head:
                self.reset()
                return head, rest
        else:
            end = buffer.find(_END, max(0, self._searched - 3))
            if end > 0:
                self.reset()
                return buffer[:end], buffer[end + 4 :]
        self._check_partial(buffer)
        self._buffer = buffer
        self._searched = len(buffer)
        return None

    def _check_partial(self, buffer: bytes) -> None:
        if not buffer:
            return
        if TOKEN.match(buffer) is None:
            raise Rejected(400, "the request does not begin with a method")
        if _STRAY.search(buffer, max(0, self._searched - 1)):
            raise Rejected(400, "bare CR or bare LF in the head")
        if self._first_line_end < 0:
            self._first_line_end = buffer.find(b"\r\n", max(0, self._searched - 1))
        # The last byte may be the CR of the end.
        _check_sizes(len(buffer) - 1, self._first_line_end, self._limits)


def _check_sizes(size: int, first_line_end: int, limits: HeadLimits) -> None:
    if (first_line_end if first_line_end >= 0 else size) > limits.line_bytes:
        raise Rejected(414, f"the request line is longer than {limits.line_bytes} bytes")
    if first_line_end >= 0 and size - first_line_end - 2 > limits.fields_bytes:
        raise Rejected(431, f"the header fields are larger than {limits.fields_bytes} bytes")


# -- the head -------------------------------------------------------------------------------------


class Fields:
    """What a request's field lines say, whatever its request line is. Not to be changed."""

    def __init__(
        self,
        host: bytes,
        port: int | None,
        headers: list[tuple[bytes, bytes]],
        content_length: int | None,
        chunked: bool,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.host = host
        self.port = port
        self.headers = headers
        self.content_length = content_length
        self.chunked = chunked
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.memo = Memo()


def parse_request(
    raw: bytes,
    limits: HeadLimits,
    peer_host: str = "",
    secure: bool = False,
    memory: Remembered | None = None,
    apart: bytes = b"",
) -> RequestHead | Rejection:
    """Judge a request's head.

    :param raw: the head as :meth:`HeadScanner.feed` gave it.
    :param peer_host: the client's address. :param secure: whether it came over TLS.
    :param memory: field lines read under the same limits.
    :param apart: ``NAME: `` of a field that differs from request to request; if it stands first,
        and spelt so, it is set apart, so that the others can be remembered.
    """
    try:
        return _parse(raw, limits, peer_host, secure, memory, apart)
    except BadField as error:
        return Rejection(400, str(error))
    except Rejected as error:
        return error.rejection


def _parse(
    raw: bytes,
    limits: HeadLimits,
    peer_host: str,
    secure: bool,
    memory: Remembered | None,
    apart: bytes,
) -> RequestHead:
    line, _, block = raw.partition(b"\r\n")
    first: bytes = b""
    if apart and block.startswith(apart):
        first, _, block = block[len(apart) :].partition(b"\r\n")
        check_lines(first)
    fields: Fields | None = memory.known.get(block) if memory is not None else None
    # What is not in a known block was not measured yet.
    if fields is None or len(raw) - len(block) > limits.line_bytes:
        _check_sizes(len(raw) + 2, len(line), limits)
        if raw.count(b"\r\n") > limits.fields:
            raise Rejected(431, f"more than {limits.fields} header fields")
        check_lines(raw)
    method, target, http_10 = _request_line(line)
    if fields is None or http_10:
        fields = _read_fields(block, http_10)
        # The same lines mean something else in HTTP/1.0.
        if memory is not None and not http_10:
            memory.put(block, fields)
    if target[:1] != b"/":
        target = _origin_form(fields, target, method, secure)
    return RequestHead(
        method,
        target,
        fields.host,
        fields.headers,
        fields.content_length,
        fields.chunked,
        peer_host,
        secure,
        http_10,
        fields.keep_alive,
        fields.expects_continue,
        fields.memo,
        first.strip(b" \t") if first else first,
    )


def _read_fields(block: bytes, http_10: bool) -> Fields:
    fields, decisive = scan_fields(block.split(b"\r\n") if block else ())
    if b"_" in block:
        fields = [field for field in fields if b"_" not in field[0]]
    hosts = decisive.get(b"host", [])
    if len(hosts) != 1:
        raise Rejected(400, "exactly one Host field is required")
    # What cannot be a name is not remembered either: 4096 of 16 KiB would be 64 MiB.
    authority = parse_authority(hosts[0]) if len(hosts[0]) <= MAX_AUTHORITY_BYTES else None
    if authority is None:
        raise Rejected(400, "the Host field is not a host name with an optional port")
    length, chunked = _framing(decisive, http_10)
    keep_alive = not http_10
    if b"connection" in decisive:
        keep_alive = _keep_alive(decisive[b"connection"], http_10)
    expects_continue = b"expect" in decisive and _expects(decisive[b"expect"], http_10)
    return Fields(*authority, fields, length, chunked, keep_alive, expects_continue)


def _request_line(line: bytes) -> tuple[bytes, bytes, bool]:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise Rejected(400, _BAD_LINE)
    method: bytes = parts[0]
    target: bytes = parts[1]
    version: bytes = parts[2]
    http_10 = False
    if version != b"HTTP/1.1" or method not in METHODS:
        if TOKEN.fullmatch(method) is None:
            raise Rejected(400, _BAD_LINE)
        _check_unusual(method, version)
        http_10 = version == b"HTTP/1.0"
    if not target:
        raise Rejected(400, _BAD_LINE)
    if target.translate(_TARGET_BYTES) != target:
        raise Rejected(400, "the request target has a character that is not allowed")
    # An int is found without the detour that bytes take.
    if _PERCENT in target and b"%00" in target:
        raise Rejected(400, "the request target has an encoded NUL")
    return method, target, http_10


def _check_unusual(method: bytes, version: bytes) -> None:
    if method == b"PRI" or _VERSION.fullmatch(version) is None:
        raise Rejected(400, "this is not HTTP/1.1")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Rejected(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if method in FORBIDDEN_METHODS:
        raise Rejected(405, "this method is not allowed")
    if method not in METHODS:
        raise Rejected(501, "this method is not known")


def _origin_form(fields: Fields, target: bytes, method: bytes, secure: bool) -> bytes:
    """The target of a request that does not name a path alone."""
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Rejected(400, "the request target is neither a path nor an absolute URL")
    named = parse_authority(absolute[2]) if len(absolute[2]) <= MAX_AUTHORITY_BYTES else None
    port = _DEFAULT_PORTS[b"https" if secure else b"http"]
    default = _DEFAULT_PORTS[absolute[1].lower()]
    if named is None or (named[0], named[1] or default) != (fields.host, fields.port or port):
        raise Rejected(400, "the absolute request target differs from the Host field")
    rest = absolute[3]
    if not rest and method == b"OPTIONS":
        return b"*"  # about the server, not about its root (section 3.2.4)
    return rest if rest[:1] == b"/" else b"/" + rest


@functools.lru_cache(maxsize=4096)
def parse_authority(value: bytes) -> tuple[bytes, int | None] | None:
    """Read ``host[:port]``.

    :return: the host in lower case without one trailing dot (an IPv6 address keeps its brackets)
        and the port if there is one; None if it is not beyond doubt. Names must be ASCII: an
        international name comes as A-labels.
    """
    match = _AUTHORITY.fullmatch(value.lower())
    if match is None:
        return None
    name, literal, port_text = match.groups()
    port = int(port_text) if port_text else None
    if port is not None and not 0 < port < 65536:
        return None
    if literal:
        try:
            ipaddress.IPv6Address(literal[1:-1].decode("ascii"))
        except ValueError:
            return None
        return literal, port
    return (name, port) if len(name) <= 253 else None


def _framing(decisive: dict[bytes, list[bytes]], http_10: bool) -> tuple[int | None, bool]:
    lengths = decisive.get(b"content-length")
    codings = decisive.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None:
            raise Rejected(400, "Content-Length and Transfer-Encoding exclude each other")
        if http_10:
            raise Rejected(400, "Transfer-Encoding is not part of HTTP/1.0")
        _check_codings(codings)
        return None, True
    if lengths is None:
        return None, False
    length = parse_length(lengths)
    if length is None:
        raise Rejected(400, "Content-Length must be one decimal number")
    return length, False


def parse_length(values: list[bytes]) -> int | None:
    """The number of the one Content-Length field, or None if there is any doubt."""
    value = values[0]
    if len(values) != 1 or not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        return None
    return int(value)


def _check_codings(values: list[bytes]) -> None:
    if len(values) != 1:
        raise Rejected(400, "more than one Transfer-Encoding field")
    codings = [coding.strip(b" \t").lower() for coding in values[0].split(b",")]
    if codings == [b"chunked"]:
        return
    if any(TOKEN.fullmatch(coding) is None for coding in codings) or b"chunked" in codings[:-1]:
        raise Rejected(400, "Transfer-Encoding must be chunked")
    raise Rejected(501, "no Transfer-Encoding but chunked is known")


def _keep_alive(values: list[bytes], http_10: bool) -> bool:
    options = connection_options(values)
    return b"close" not in options and (not http_10 or b"keep-alive" in options)


def _expects(values: list[bytes], http_10: bool) -> bool:
    if len(values) != 1 or values[0].lower() != b"100-continue":
        raise Rejected(417, "only Expect: 100-continue is supported")
    return not http_10
