"""The bytes of a request on its way to an upstream: its head, and its body as it is framed there.

The head's field lines come ready from who forwards; framing and the length are the core's alone, so
that nobody can make two requests of one. Nothing is sent here.
"""

from __future__ import annotations

from pbcluster.errors import LocalProtocolError
from pbcluster.web.chunked import LAST_CHUNK, encode_chunk
from pbcluster.web.client_side import ClientSide
from pbcluster.web.headers import encode_lines
from pbcluster.web.interfaces import Forward


def request_head(plan: Forward, client: ClientSide) -> bytes:
    """The head to be sent.

    :param client: who asked, and with what.
    :raises LocalProtocolError: method or target cannot be written.
    """
    head = client.head
    method, target = plan.method, plan.target
    if target is not head.target or method is not head.method:
        _check_words(method, target)
    if head.content_length is None and not (head.chunked or plan.headers or head.expects_continue):
        return b"".join((method, b" ", target, b" HTTP/1.1\r\n", plan.lines, b"\r\n"))
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target), plan.lines]
    if plan.headers:
        lines.append(encode_lines(plan.headers))
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif head.content_length is not None:
        lines.append(b"Content-Length: %d\r\n" % head.content_length)
    if head.expects_continue and client.awaits_continue():
        lines.append(b"Expect: 100-continue\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def _check_words(method: bytes, target: bytes) -> None:
    """What does not stand in the client's own request line, which was judged."""
    words = b"%b %b" % (method, target)
    if len(words.split()) != 2 or words.count(b" ") != 1:
        raise LocalProtocolError("method or target to be sent has white space in it")


def framed(data: bytes, complete: bool, chunked: bool) -> bytes:
    """A part of the body, and its end if it is ``complete``; perhaps nothing."""
    if not chunked:
        return data
    chunk = encode_chunk(data) if data else b""
    return chunk + LAST_CHUNK if complete else chunk
