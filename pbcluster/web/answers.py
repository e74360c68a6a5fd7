"""The bytes of responses: local answers, and the head of one that is passed on.

Pure but for the Date field. Errors have PocketBase's form, so that its SDKs show their message.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus

from pbcluster.web.headers import encode_lines
from pbcluster.web.interfaces import Headers, RequestHead, ResponseHead
from pbcluster.web.response_head import ParsedResponse

_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
_CLOSE = b"Connection: close\r\n"
#: HTTP/1.0 clients close unless they are told otherwise.
_KEEP_ALIVE_10 = b"Connection: keep-alive\r\n"


_NOT_CACHED = (b"Cache-Control", b"no-store")
_ALLOW = (b"Allow", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")


def refusal_headers(status: int) -> Headers:
    """The fields of a refusal: a cache may keep some of these statuses by itself (RFC 9110, section
    15.1), and then serve to all what one client's bad request brought about."""
    return (_NOT_CACHED, _ALLOW) if status == 405 else (_NOT_CACHED,)


def error_body(status: int, message: str) -> bytes:
    """An error in PocketBase's form."""
    return json.dumps({"status": status, "message": message, "data": {}}).encode()


def local_response(
    status: int,
    body: bytes,
    content_type: bytes,
    headers: Headers,
    *,
    request: RequestHead | None,
    close: bool,
) -> bytes:
    """A whole response.

    :param request: what it answers, or None if that could not be read.
    :param close: the connection ends after it.
    """
    line = b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"Unknown"))
    fields = [*headers, (b"Date", formatdate(usegmt=True).encode("ascii"))]
    framing = b""
    if status not in (204, 304):
        fields.append((b"Content-Type", content_type))
        framing = b"Content-Length: %d\r\n" % len(body)
    framing += _connection(request is not None and request.http_10, close)
    head = encode_lines(fields, line) + framing + b"\r\n"
    without_body = status in (204, 304) or (request is not None and request.method == b"HEAD")
    return head if without_body else head + body


def passed_on_head(
    head: ResponseHead, parsed: ParsedResponse, request: RequestHead, close: bool
) -> bytes:
    """The head of an upstream's response as the client gets it.

    :param head: as the gate left it. :param parsed: how the upstream framed the body; a body of
        unknown length is chunked again for HTTP/1.1 clients and ends with the connection for
        HTTP/1.0 ones, in which case ``close`` must be true.
    """
    framing = parsed.content_length
    if parsed.has_body and parsed.length is None and not request.http_10:
        framing = b"Transfer-Encoding: chunked\r\n"
    if close or request.http_10:
        framing += _connection(request.http_10, close)
    return b"".join((encoded_head(head), head.lines, framing, b"\r\n"))


def encoded_head(head: ResponseHead) -> bytes:
    """Status line and header fields, each with its CRLF, but for the framing."""
    if not head.encoded:
        line = b"HTTP/1.1 %d %b" % (head.status, head.reason)
        head.encoded = encode_lines(head.headers, line)
    return head.encoded


def _connection(http_10: bool, close: bool) -> bytes:
    if close:
        return _CLOSE
    return _KEEP_ALIVE_10 if http_10 else b""
