"""What a case of the corpus is, and how its bytes are built."""

from __future__ import annotations

import attrs

from pbcluster.testing.http_reference import Fields, Message

HOST = b"Host: a.localhost"


@attrs.frozen
class RequestCase:
    """Bytes of a client on a new connection, and what must come of them.

    :ivar name: begins with the number of its group (``GROUPS``).
    :ivar statuses: of the answers, in order.
    :ivar sent: the whole requests that reach an upstream, which answers each with 200; of a refused
        one nothing does, but for a ``in_body`` case that came in pieces: a part of it may, on a
        connection that is then aborted.
    :ivar closed: the connection ends after the last answer.
    :ivar in_body: its fault stands in the body.
    """

    name: str
    raw: bytes = attrs.field(repr=False)
    statuses: tuple[int, ...]
    sent: tuple[Message, ...] = ()
    closed: bool = True
    in_body: bool = False

    @property
    def group(self) -> str:
        """The number in its name."""
        return self.name.partition(" ")[0]

    @property
    def refused(self) -> bool:
        """Whether nothing of it may reach an upstream."""
        return not self.sent


@attrs.frozen
class ResponseCase:
    """Bytes of an upstream, and what the client gets.

    :ivar raw: what the upstream answers. :ivar ending: what it does then: "" (nothing), "close" or
        "reset". :ivar method: of the request.
    :ivar answer: what the client gets, or None if that is torn or the core's own 502.
    :ivar outcome: of the attempt, as ``web.interfaces.Outcome`` calls it.
    :ivar cut: the client's connection is aborted.
    :ivar reused: the upstream's connection serves the next request.
    """

    name: str
    raw: bytes = attrs.field(repr=False)
    answer: Message | None
    ending: str = ""
    method: bytes = b"GET"
    outcome: str = "completed"
    cut: bool = False
    reused: bool = True


def get(*lines: bytes, host: bytes = HOST) -> bytes:
    """A GET whose only oddity is in ``lines``."""
    return b"\r\n".join((b"GET / HTTP/1.1", *((host,) if host else ()), *lines, b"", b""))


def post(*lines: bytes, body: bytes = b"") -> bytes:
    """A POST with these fields."""
    return b"\r\n".join((b"POST / HTTP/1.1", HOST, *lines, b"", body))


def line(first: bytes) -> bytes:
    """A request whose only oddity is its first line."""
    return first + b"\r\n" + HOST + b"\r\n\r\n"


def chunked(body: bytes) -> bytes:
    """A POST with this chunked body."""
    return post(b"Transfer-Encoding: chunked", body=body)


def fields_of(lines: list[bytes]) -> Fields:
    """``Name: value`` lines as pairs."""
    pairs = [each.partition(b": ") for each in lines]
    return tuple((name, value) for name, _, value in pairs)


def up(first: bytes = b"GET /", *lines: bytes, host: bytes = HOST, body: bytes = b"") -> Message:
    """A request as an upstream gets it: method and target, fields, content."""
    method, _, target = first.partition(b" ")
    return Message((method, target, b"1.1"), fields_of([host, *lines]), body)


def down(status: int, reason: bytes, *lines: bytes, body: bytes = b"") -> Message:
    """A response as a client gets it."""
    return Message((b"1.1", b"%d" % status, reason), fields_of(list(lines)), body)
