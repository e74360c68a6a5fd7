"""What the gateway and the node ask of the HTTP core: values, and what an exchange can do.

One request and its response are an :class:`Exchange`. Its handler either answers it locally
(:meth:`Exchange.respond`) or forwards it (:meth:`Exchange.forward`), perhaps several times until
one attempt gets far enough that it cannot be repeated. The handler is a plain function: what must
wait starts a coroutine of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Headers = Sequence[tuple[bytes, bytes]]


class Memo:
    """A place for what was derived from header fields, kept as long as the fields themselves.

    Clients and servers send the same field lines again and again; what was read from them is
    remembered (``memory.Remembered``) and carries such a place for whoever derives more from it.

    :ivar value: the handler's own; nothing at first.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


class RequestHead:
    """A request line and header fields that passed every check of ``web.rules``. Not to be changed.

    :ivar target: origin-form, byte for byte as it came (absolute-form was reduced to it).
    :ivar host: lower case, without port and without one trailing dot.
    :ivar headers: (name as sent, value) pairs, in order, hop-by-hop fields and Host included.
    :ivar content_length: bytes, or None when chunked or without a body.
    :ivar peer_host: the client's IP address as text.
    :ivar http_10: the client speaks HTTP/1.0: no chunked answer, no 100 Continue.
    :ivar keep_alive: it wants to use the connection again.
    :ivar expects_continue: it waits for 100 Continue before it sends the body.
    :ivar memo: for what the handler derives from ``headers`` alone, not from the request line or
        the peer; requests with the same field lines share it. None: these are not remembered.
    :ivar first: the value of the first field if it has the name that the server sets apart (see
        ``HTTPServerFactory``); it is not among ``headers`` then.
    """

    def __init__(
        self,
        method: bytes,
        target: bytes,
        host: bytes,
        headers: Headers,
        content_length: int | None,
        chunked: bool,
        peer_host: str,
        secure: bool = False,
        http_10: bool = False,
        keep_alive: bool = True,
        expects_continue: bool = False,
        memo: Memo | None = None,
        first: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.host = host
        self.headers = headers
        self.content_length = content_length
        self.chunked = chunked
        self.peer_host = peer_host
        self.secure = secure
        self.http_10 = http_10
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.memo = memo
        self.first = first

    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.chunked or bool(self.content_length)

    def get(self, name: bytes) -> bytes | None:
        """The first value of the field ``name`` (given in lower case), or None."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class ResponseHead:
    """A response's status line and header fields, without hop-by-hop fields. Not to be changed.

    :ivar lines: further field lines, each with its CRLF, that are sent behind ``headers``.
    :ivar encoded: what is sent of the status line and ``headers``, once it was needed; shared by
        heads that differ in ``lines`` only.
    :ivar memo: for what the handler derives from the head; answers with the same head share it.
    """

    __slots__ = ("encoded", "headers", "lines", "memo", "reason", "status")

    def __init__(self, status: int, reason: bytes, headers: Headers, lines: bytes = b"") -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.lines = lines
        self.encoded = b""
        self.memo: Any = None

    def with_lines(self, lines: bytes) -> ResponseHead:
        """The same head with these further field lines."""
        head = ResponseHead(self.status, self.reason, self.headers, lines)
        head.encoded = self.encoded
        return head

    def get(self, name: bytes) -> bytes | None:
        """The first value of the field ``name`` (given in lower case), or None."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResponseHead):
            return NotImplemented
        return (self.status, self.reason, self.headers, self.lines) == (
            other.status,
            other.reason,
            other.headers,
            other.lines,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ResponseHead({self.status}, {self.reason!r}, {self.headers!r}, {self.lines!r})"


class Outcome(enum.StrEnum):
    """How an attempt to forward ended."""

    #: The response reached the client whole.
    COMPLETED = "completed"
    #: No connection was made or nothing was written: any method may be tried again.
    NOT_SENT = "not_sent"
    #: Something was sent, but no response byte came: only safe methods may be tried again.
    NO_RESPONSE = "no_response"
    #: No response head within ``first_byte_timeout_s``.
    TIMEOUT = "timeout"
    #: ``on_response`` refused the head (see :class:`Refuse`); nothing reached the client.
    REFUSED = "refused"
    #: The upstream broke off after its head was passed on; the client's connection was aborted.
    BROKEN = "broken"
    #: The client went away; the upstream connection was aborted.
    CLIENT_GONE = "client_gone"

    #: As that of the text, which it equals; an enum's own is a call of Python for each look-up.
    __hash__ = str.__hash__


#: Given a response's head; gives the head that goes on, perhaps later, or raises :class:`Refuse`.
OnResponse = Callable[[ResponseHead], Awaitable[ResponseHead] | ResponseHead]


class Refuse(Exception):
    """Raised by ``Forwarding.responded``: drop this response, close the upstream connection."""


class Attempt:
    """The result of one :meth:`Exchange.forward_for`.

    :ivar repeatable: the request's body is unread or still whole in the replay buffer, and nothing
        was passed to the client: the exchange may be forwarded again or answered locally.
    :ivar reused: it used a pooled connection; that such a one ends without a response says nothing
        about the upstream's health.
    :ivar head: the upstream's response head if one came (also when it was refused).
    :ivar junk: of NO_RESPONSE: bytes came, but no answer; so the connection was not stale.
    """

    def __init__(
        self,
        outcome: Outcome,
        repeatable: bool,
        head: ResponseHead | None = None,
        error: str = "",
        request_bytes: int = 0,
        response_bytes: int = 0,
        reused: bool = False,
        junk: bool = False,
    ) -> None:
        self.outcome = outcome
        self.repeatable = repeatable
        self.head = head
        self.error = error
        self.request_bytes = request_bytes
        self.response_bytes = response_bytes
        self.reused = reused
        self.junk = junk


class Forward:
    """One attempt to send an exchange upstream. Not to be changed once it is under way.

    :ivar host: IP address of the upstream. :ivar port: its port.
    :ivar identity: the name that it must prove by TLS; empty: it is spoken to without TLS.
    :ivar headers: every field to send, Host included, framing (Content-Length, Transfer-Encoding,
        Connection) excluded: the core adds it.
    :ivar lines: further field lines, each with its CRLF, sent before ``headers``.
    :ivar on_response: called with the head; may wait, give back a changed head, or raise
        :class:`Refuse`. While it waits, the response is held (at most 64 KiB of it, then the
        upstream is paused).
    :ivar on_end: called when the last bytes of the response are about to be released; they wait for
        it. If it raises :class:`Refuse`, the client's connection is aborted instead.
    :ivar on_data: called with each part of the body that is about to be released; what it waits for
        the part and everything after it wait for. If it raises :class:`Refuse`, the client's
        connection is aborted.
    :ivar reuse: whether a pooled idle connection may be used.
    :ivar idle_timeout_s: silence allowed inside the response, not counted while the client is slow;
        longer than PocketBase keeps a silent event stream (5 minutes).
    """

    def __init__(
        self,
        host: str,
        port: int,
        method: bytes,
        target: bytes,
        lines: bytes = b"",
        on_response: OnResponse | None = None,
        connect_timeout_s: float = 1.0,
        first_byte_timeout_s: float = 300.0,
        *,
        headers: Headers = (),
        idle_timeout_s: float = 600.0,
        identity: str = "",
        reuse: bool = True,
        on_end: Callable[[], Awaitable[None] | None] | None = None,
        on_data: Callable[[], Awaitable[None] | None] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.method = method
        self.target = target
        self.lines = lines
        self.on_response = on_response
        self.connect_timeout_s = connect_timeout_s
        self.first_byte_timeout_s = first_byte_timeout_s
        self.headers = headers
        self.idle_timeout_s = idle_timeout_s
        self.identity = identity
        self.reuse = reuse
        self.on_end = on_end
        self.on_data = on_data


class Forwarding:
    """Who has an exchange forwarded, and hears of it. What it does is up to the class below it."""

    def responded(self, head: ResponseHead) -> Awaitable[ResponseHead] | ResponseHead:
        """The head came: see ``Forward.on_response``. :raises Refuse: it is not passed on."""
        raise NotImplementedError

    def forwarded(self, attempt: Attempt) -> None:
        """The attempt is over; called exactly once."""
        raise NotImplementedError


class Exchange:
    """One request on a server connection, until its response is complete. What it does is up to the
    class below it.

    :ivar head: the request.
    :ivar client_gone: the client's connection is lost; everything else is then without effect.
    """

    head: RequestHead
    client_gone: bool

    def forward(self, plan: Forward, done: Callable[[Attempt], None]) -> None:
        """Send the request upstream and stream the answer back; ``done`` is called exactly once."""
        raise NotImplementedError

    def forward_for(self, plan: Forward, who: Forwarding) -> None:
        """As :meth:`forward`; ``who`` is told instead of ``done`` and of the plan's
        ``on_response``, which costs less than to call functions."""
        plan.on_response = who.responded
        self.forward(plan, who.forwarded)

    def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: Headers = (),
        close: bool = False,
    ) -> None:
        """Answer locally. An unread request body is discarded up to a bound, else the connection is
        closed after the answer."""
        raise NotImplementedError

    def read_body(self, max_bytes: int) -> Awaitable[bytes]:
        """Take the request's body instead of forwarding it.

        :return: fires with all of it. Cancelled when the client goes away, or when the body is over
            ``max_bytes``: then it was answered 413.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the client's connection: the answer must not look complete."""
        raise NotImplementedError

    def give_up(self, error: str) -> None:
        """Wait no longer for the upstream: the attempt under way, if any, ends as if its connection
        were lost now (NOT_SENT, NO_RESPONSE or BROKEN)."""
        raise NotImplementedError

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once if the client goes away before the response is complete."""
        raise NotImplementedError

    def limit_body(self, max_bytes: int) -> bool:
        """Set this request's largest body, in bytes (the server's own limit holds until then).

        :return: False if it is known to be larger: then it was answered 413 and is over, and
            :attr:`client_gone` is true.
        """
        raise NotImplementedError


#: Receives each exchange once its head has passed the rules.
RequestHandler = Callable[[Exchange], None]
