"""What must hold of whatever bytes clients and upstreams send through the proxy core.

Of a client's bytes (:func:`judge_request`):

* The core raises nothing, leaves nothing behind, and answers with statuses that it has.
* What reaches an upstream is read by three independent readers (``http_reference``, h11, llhttp) as
  the same whole requests; a request that broke off is never whole there.
* A request passes only if the reference reads it in the client's bytes too, at the same place: same
  method, target and content. So nothing was smuggled, and nothing doubtful was repaired.
* However the bytes are cut, the outcome is the same; so it is when they come again, to a core that
  has seen them.

Of an upstream's bytes (:func:`judge_response`): the client gets what the reference reads in them,
an error of ours, or a connection that is cut; never something that looks whole and is not.

The first breach raises :class:`Unsound`. h11 and httptools come with the ``dev`` extra.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import h11
import httptools

from pbcluster.testing.http_memory import BAD_ANSWER, Core, Seen, answers_of
from pbcluster.testing.http_reference import Doubtful, Message, read_request, read_response
from pbcluster.testing.http_wire import Far, Wire

#: What the core itself may answer.
STATUSES = frozenset((200, 400, 405, 408, 413, 414, 417, 431, 501, 502, 505))
_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
#: Larger than any head that passes.
_H11_BYTES = 200_000


class Unsound(AssertionError):
    """Something that must hold does not; the text has the bytes."""


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """``data`` in pieces, cut at ``places`` (taken modulo its length)."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(at)] or [b""]


# -- requests -------------------------------------------------------------------------------------


def judge_request(data: bytes, places: Sequence[int] = ()) -> Seen:
    """Send a client's bytes through a core of their own, whole and cut.

    :param places: where else they are cut. :return: what came of the whole.
    :raises Unsound: a rule of the module is broken.
    """
    try:
        whole = _run([data])
        _sound(data, whole)
        for pieces in (cut(data, places), [bytes([byte]) for byte in data[:2000]]):
            if len(pieces) > 1 and b"".join(pieces) == data:
                _same(whole, _run(pieces))
    except Unsound as error:
        raise Unsound(f"{error}: {data!r}") from None
    except Exception as error:
        raise Unsound(f"{type(error).__name__}: {error}: {data!r}") from error
    return whole


def _run(pieces: Sequence[bytes]) -> Seen:
    core = Core()
    first = _once(core, pieces)
    _same(first, _once(core, pieces))
    left = core.nothing_left()
    if left:
        raise Unsound(f"left behind: {left}")
    return first


def _once(core: Core, pieces: Sequence[bytes]) -> Seen:
    client = core.client()
    for piece in pieces:
        client.send(piece)
        core.wire.run()
    seen = core.look(client)
    read = [message for far in core.upstreams for message in _upstream_reads(far)]
    if read != [(m.line[0], m.line[1], m.body) for m in seen.requests]:
        raise Unsound(f"h11 and llhttp read {read} upstream")
    core.end(client)
    return seen


def _same(one: Seen, other: Seen) -> None:
    for what in ("answers", "requests"):
        before, after = (_essence(getattr(seen, what)) for seen in (one, other))
        if before != after:
            raise Unsound(f"again or cut otherwise, {what} are {after} instead of {before}")
    if one.fate != other.fate:
        raise Unsound(
            f"again or cut otherwise, the connection is {other.fate!r} instead of {one.fate!r}"
        )


def _essence(messages: Sequence[Message]) -> list[object]:
    # With several faults the first to be seen counts; an Expect is gone once the body is there.
    return [
        "refused"
        if each.line[0].startswith(b"1.") and each.status >= 400
        else (each.line, [f for f in each.sorted_fields if f[0] not in _VARIABLE], each.body)
        for each in messages
    ]


_VARIABLE = frozenset((b"expect", b"date"))


def _sound(data: bytes, seen: Seen) -> None:
    statuses = [answer.status for answer in seen.answers]
    if not set(statuses) <= STATUSES or sum(status != 200 for status in statuses) > 1:
        raise Unsound(f"answered {statuses}")
    if any(status >= 400 for status in statuses) and seen.fate != "closed":
        raise Unsound("a refusal left the connection open")
    for message in seen.requests:
        found = _next(data)
        if found is None:
            raise Unsound(f"{message.line} went up and is not in the bytes")
        original, data = found
        sent = (message.line[0], message.line[1], message.body)
        method, target, body = original.line[0], original.line[1], original.body
        if sent not in ((method, each, body) for each in _targets(method, target)):
            raise Unsound(f"{sent} went up instead of {(method, target, body)}")


def _next(data: bytes) -> tuple[Message, bytes] | None:
    try:
        return read_request(data.removeprefix(b"\r\n"))
    except Doubtful:
        return None


def _targets(method: bytes, target: bytes) -> tuple[bytes, ...]:
    """As it may go up."""
    match = _ABSOLUTE.match(target)
    if match is None:
        return (target,)
    rest = target[match.end() :]
    if not rest:
        return (b"*" if method == b"OPTIONS" else b"/",)
    return (rest if rest[:1] == b"/" else b"/" + rest,)


def _upstream_reads(far: Far) -> list[tuple[bytes, bytes, bytes]]:
    """The whole requests on an upstream's connection, by h11 and llhttp, which must agree."""
    by_h11, by_llhttp = _read_by_h11(far.received), _read_by_llhttp(far.received)
    if by_h11 != by_llhttp:
        raise Unsound(f"h11 reads {by_h11} upstream, llhttp {by_llhttp}")
    return by_h11


def _read_by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    found: list[tuple[bytes, bytes, bytes]] = []
    while data:
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=_H11_BYTES)
        server.receive_data(data)
        body, head = b"", None
        while True:
            event: Any = server.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return found
        assert head is not None
        found.append((bytes(head.method), bytes(head.target), body))
        data = bytes(server.trailing_data[0])
    return found


class _Collector:
    """llhttp's callbacks."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes, bytes]] = []
        self.method = b""
        self._url = self._body = b""
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.found.append((self.parser.get_method(), self._url, self._body))


def _read_by_llhttp(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    collector = _Collector()
    if data:
        collector.parser.feed_data(data)
    return collector.found


# -- responses ------------------------------------------------------------------------------------


class _Script(Far):
    """An upstream that says given pieces after the first request, then ends the connection."""

    def __init__(self, wire: Wire, protocol: Any, pieces: Sequence[bytes], reset: bool) -> None:
        super().__init__(wire, protocol)
        self._pieces, self._reset, self._said = pieces, reset, False

    def heard(self, data: bytes) -> None:
        """See :meth:`Far.heard`."""
        super().heard(data)
        if b"\r\n\r\n" not in self.received or self._said:
            return
        self._said = True
        for piece in self._pieces:
            if piece:
                self.send(piece)
        if self._reset:
            self.reset()
        else:
            self.close()


def judge_response(
    data: bytes, method: bytes = b"GET", *, reset: bool = False, places: Sequence[int] = ()
) -> int:
    """Let an upstream answer ``data`` to a request and end its connection.

    :param reset: by a reset. :return: the status that the client got; 0: it was cut off.
    :raises Unsound: a rule of the module is broken.
    """
    try:
        got = _play(method, [data], reset)
        _response_sound(data, method, reset, got)
        for pieces in (cut(data, places), [bytes([byte]) for byte in data[:2000]]):
            if len(pieces) > 1 and b"".join(pieces) == data:
                again = _play(method, pieces, reset)
                if _passed(got, method) != _passed(again, method):
                    raise Unsound(f"cut otherwise, the client got {again} instead of {got}")
    except Unsound as error:
        raise Unsound(f"{error}: {method!r} {data!r} reset={reset}") from None
    except Exception as error:
        raise Unsound(f"{type(error).__name__}: {error}: {method!r} {data!r}") from error
    return got.status if got is not None else 0


def _play(method: bytes, pieces: Sequence[bytes], reset: bool) -> Message | None:
    """What the client got; None: its connection was cut."""
    core = Core(upstream=lambda wire, protocol: _Script(wire, protocol, pieces, reset))
    client = core.client()
    client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    core.wire.run()
    torn = client.ended == "aborted"
    if not torn:
        _read_response_by_h11(client.received, method)
    found = answers_of(client.received, [method], bool(client.ended) and not torn)
    core.end(client)
    left = core.nothing_left()
    if left:
        raise Unsound(f"left behind: {left}")
    if torn and found:
        raise Unsound("a torn response looks whole")
    if torn:
        return None
    if len(found) != 1:
        raise Unsound(f"the client got {len(found)} responses")
    return found[0]


def _read_response_by_h11(data: bytes, method: bytes) -> None:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=_H11_BYTES)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    while True:
        event: Any = client.next_event()
        if isinstance(event, h11.EndOfMessage):
            break
        if event in (h11.NEED_DATA, h11.PAUSED):
            raise Unsound("h11 waits for more of a response that is over")
    if client.trailing_data[0]:
        raise Unsound(f"h11 sees more behind the response: {client.trailing_data[0]!r}")


def _response_sound(data: bytes, method: bytes, reset: bool, got: Message | None) -> None:
    try:
        expected = _final(data, method == b"HEAD", not reset)
    except Doubtful:
        expected = None
    if got is None or (_is_ours(got, method == b"HEAD")):
        return
    if expected is None:
        raise Unsound(f"the client got {got.line} of what is no whole response")
    if (got.status, got.body) != (expected.status, expected.body):
        raise Unsound(f"the client got {got.status} {got.body!r}, the upstream said {expected}")


def _passed(got: Message | None, method: bytes) -> list[object]:
    """What was passed on. A fault that shows before the head was is an error of ours, later a cut:
    which of the two depends on how the bytes come."""
    if got is None or _is_ours(got, method == b"HEAD"):
        return []
    return _essence([got])


def _is_ours(got: Message, to_head: bool) -> bool:
    """Whether it is the error that stands for an answer that was refused."""
    length = [b"%d" % len(BAD_ANSWER)]
    body = b"" if to_head else BAD_ANSWER
    return (got.status, got.values(b"content-length"), got.body) == (502, length, body)


def _final(data: bytes, to_head: bool, ended: bool) -> Message | None:
    while True:
        found = read_response(data, to_head, ended)
        if found is None or found[0].status >= 200:
            return found[0] if found is not None else None
        data = found[1]
