"""What an upstream's response may look like, read strictly.

Pure. An upstream may be a tenant's own process, so its answers are no more trusted than a client's
requests: one with two framings, or a stray line end, could smuggle a second response into a shared
connection. Such an answer is refused whole; the handler then answers 502.
"""

from __future__ import annotations

import re

from pbcluster.web.chunked import BodyReader, ChunkedReader, CloseReader, LengthReader
from pbcluster.web.headers import (
    BadField,
    check_lines,
    connection_options,
    end_to_end,
    scan_fields,
)
from pbcluster.web.interfaces import ResponseHead
from pbcluster.web.limits import RESPONSE_HEAD_LIMITS, HeadLimits
from pbcluster.web.rules import parse_length

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_BODYLESS = frozenset((204, 304))


class BadResponse(ValueError):
    """The upstream's answer cannot be passed on; the text says why."""


class ParsedResponse:
    """A response head and what it says about its body and connection. Not to be changed.

    :ivar length: the body's size in bytes if it is known; 0 without a body.
    :ivar has_body: False for answers to HEAD and for 1xx, 204, 304, whatever their fields say.
    :ivar keep_alive: the upstream will take another request on this connection.
    :ivar content_length: the field line for a body of known length, or for the size that a GET
        would have had.
    """

    def __init__(
        self,
        head: ResponseHead,
        length: int | None,
        chunked: bool,
        has_body: bool,
        keep_alive: bool,
        content_length: bytes = b"",
    ) -> None:
        self.head = head
        self.length = length
        self.chunked = chunked
        self.has_body = has_body
        self.keep_alive = keep_alive
        self.content_length = content_length

    def reader(self) -> BodyReader:
        """A new reader for the body."""
        if not self.has_body:
            return LengthReader(0)
        if self.chunked:
            return ChunkedReader()
        return CloseReader() if self.length is None else LengthReader(self.length)


def parse_response(
    raw: bytes, to_head: bool, limits: HeadLimits = RESPONSE_HEAD_LIMITS
) -> ParsedResponse:
    """Judge a response's head.

    :param raw: the head without its last empty line. :param to_head: the request was a HEAD.
    :raises BadResponse: it is not beyond doubt.
    """
    lines = raw.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise BadResponse("not an HTTP/1.1 status line")
    if len(lines) - 1 > limits.fields or len(raw) > limits.fields_bytes + limits.line_bytes:
        raise BadResponse("the head is too large")
    try:
        check_lines(raw)
        fields, decisive = scan_fields(lines[1:])
    except BadField as error:
        raise BadResponse(str(error)) from None
    status = int(match[2])
    http_10 = match[1] == b"0"
    length, chunked = _framing(decisive, http_10)
    bodyless = to_head or status < 200 or status in _BODYLESS
    keep_alive = not http_10
    if b"connection" in decisive:
        keep_alive &= b"close" not in connection_options(decisive[b"connection"])
    if status == 204 and (length or chunked):
        keep_alive = False  # who frames what may not be might send it too, later
    line = b""
    if length is not None and status >= 200 and status != 204:
        line = b"Content-Length: %d\r\n" % length
    return ParsedResponse(
        ResponseHead(status, match[3] or b"", end_to_end(fields)),
        0 if bodyless else length,
        chunked,
        not bodyless,
        keep_alive and (bodyless or chunked or length is not None),
        line,
    )


def _framing(decisive: dict[bytes, list[bytes]], http_10: bool) -> tuple[int | None, bool]:
    lengths = decisive.get(b"content-length")
    codings = decisive.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None or http_10 or [c.lower() for c in codings] != [b"chunked"]:
            raise BadResponse("Transfer-Encoding with Content-Length, in HTTP/1.0 or not chunked")
        return None, True
    if lengths is None:
        return None, False
    length = parse_length(lengths)
    if length is None:
        raise BadResponse("Content-Length is not one decimal number")
    return length, False
