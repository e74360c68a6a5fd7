"""A second, independent reading of HTTP/1.1, to judge what the proxy core let through.

Pure. Written from the grammar of RFC 9110 and 9112, slow, whole messages only, and sharing no line
with ``pbcluster.web``: where the two disagree, one of them is wrong. It is as strict as the grammar
and knows no more than framing needs: what it cannot read without doubt is :class:`Doubtful`.

    message, rest = read_request(data)      # or None: more bytes are needed

Not here: which methods, hosts and sizes are allowed (``web.rules``), incremental reading.
"""

from __future__ import annotations

import re

import attrs

Fields = tuple[tuple[bytes, bytes], ...]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\x21-\x7e\x80-\xff](?:[ \t\x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?"
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:" + _TEXT + rb")?)[ \t]*")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(1\.[01])")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9][0-9])(?: ([ \t\x21-\x7e\x80-\xff]*))?")
_CHUNK_EXT = rb"(?:[ \t]*;[^\r\n\x00]*)?"
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)" + _CHUNK_EXT)
_EXCLUDE_A_BODY = frozenset((204, 304))


class Doubtful(ValueError):
    """These bytes are not a message of HTTP/1.1; the text says why."""


@attrs.frozen
class Message:
    """A whole message.

    :ivar line: method, target and version, or version, status and reason.
    :ivar body: its content, without chunks; trailers are left out.
    """

    line: tuple[bytes, bytes, bytes]
    fields: Fields
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields ``name`` (given in lower case)."""
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.line[1])

    @property
    def sorted_fields(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case, sorted by them; fields of one name keep their order."""
        lowered = [(name.lower(), value) for name, value in self.fields]
        return sorted(lowered, key=lambda field: field[0])


def read_request(data: bytes) -> tuple[Message, bytes] | None:
    """Read one request.

    :return: it and what follows it, or None if it is not complete.
    :raises Doubtful: it will never be one.
    """
    head = _head(data)
    if head is None:
        return None
    lines, rest = head
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise Doubtful(f"request line {lines[0]!r}")
    fields = _fields(lines[1:])
    length, chunked = _framing(fields, match[3])
    body = _chunks(rest) if chunked else _sized(rest, length or 0)
    if body is None:
        return None
    return Message((match[1], match[2], match[3]), fields, body[0]), body[1]


def read_response(data: bytes, to_head: bool, ended: bool) -> tuple[Message, bytes] | None:
    """Read one response, interim ones included.

    :param to_head: it answers a HEAD. :param ended: the connection was closed cleanly behind it.
    :return: as :func:`read_request`. :raises Doubtful: it will never be one.
    """
    head = _head(data)
    if head is None:
        return None
    lines, rest = head
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise Doubtful(f"status line {lines[0]!r}")
    fields = _fields(lines[1:])
    length, chunked = _framing(fields, match[1])
    status = int(match[2])
    body: tuple[bytes, bytes] | None
    if to_head or status < 200 or status in _EXCLUDE_A_BODY:
        body = b"", rest
    elif chunked:
        body = _chunks(rest)
    elif length is not None:
        body = _sized(rest, length)
    else:
        body = (rest, b"") if ended else None
    if body is None:
        return None
    return Message((match[1], match[2], match[3] or b""), fields, body[0]), body[1]


def _head(data: bytes) -> tuple[list[bytes], bytes] | None:
    head, end, rest = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    # A lone CR at the end of what came may become a CRLF.
    whole = head if end else head.removesuffix(b"\r")
    if any(stray in line for line in whole.split(b"\r\n") for stray in (b"\r", b"\n", b"\x00")):
        raise Doubtful("CR, LF or NUL inside a line of the head")
    return (lines, rest) if end else None


def _fields(lines: list[bytes]) -> Fields:
    matches = [_FIELD.fullmatch(line) for line in lines]
    if not all(matches):
        raise Doubtful("a line of the head is not a field")
    return tuple((match[1], match[2]) for match in matches if match is not None)


def _framing(fields: Fields, version: bytes) -> tuple[int | None, bool]:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if codings:
        if lengths or version != b"1.1" or [c.lower() for c in codings] != [b"chunked"]:
            raise Doubtful(f"Transfer-Encoding {codings} with Content-Length {lengths}")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]+", lengths[0]):
        raise Doubtful(f"Content-Length {lengths}")
    return int(lengths[0]), False


def _sized(data: bytes, length: int) -> tuple[bytes, bytes] | None:
    return (data[:length], data[length:]) if len(data) >= length else None


def _chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            return None
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise Doubtful(f"chunk size {line!r}")
        size = int(match[1], 16)
        if size == 0:
            return _trailers(body, rest)
        if len(rest) < size + 2:
            return None
        if rest[size : size + 2] != b"\r\n":
            raise Doubtful("a chunk does not end in CRLF")
        body += rest[:size]
        data = rest[size + 2 :]


def _trailers(body: bytes, data: bytes) -> tuple[bytes, bytes] | None:
    lines: list[bytes] = []
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        if not line:
            _fields(lines)
            return body, data
        lines.append(line)
