"""One connection to an upstream: a request out, its response in, strictly read.

The connection knows nothing of clients or gates: it tells a :class:`ResponseListener` what came,
once per read, so that a small response is passed on in one piece. Between two requests it waits in
its pool (``pool``) and is closed when the upstream closes it, sends anything, or after the idle
time. A response that breaks off, or that is not beyond doubt, ends in ``upstream_failed``.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, IReactorTime, ITCPTransport, IUNIXTransport
from twisted.python.failure import Failure
from zope.interface import classImplements

from pbcluster.web.chunked import BadBody, BodyReader, CloseReader
from pbcluster.web.deadline import Deadline
from pbcluster.web.limits import RESPONSE_HEAD_LIMITS
from pbcluster.web.memory import Remembered
from pbcluster.web.response_head import BadResponse, ParsedResponse, parse_response
from pbcluster.web.rules import HeadScanner, Rejected
from pbcluster.web.stream_protocol import StreamProtocol

#: Interim (1xx) responses taken before the final one; more is an attack or a bug.
MAX_INTERIM = 16


#: A machine that lost its power says nothing: after so long without a sign of life from its kernel
#: the connection counts as broken, however long its answer may take.
PEER_IDLE_S = 5
PEER_PROBE_EVERY_S = 2
PEER_PROBES = 3
PEER_UNACKED_MS = 10_000


def notice_dead_peer(handle: socket.socket) -> None:
    """Let the kernel find out that the other machine is gone (tcp(7)), within about 11 s."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, PEER_IDLE_S),
        (socket.TCP_KEEPINTVL, PEER_PROBE_EVERY_S),
        (socket.TCP_KEEPCNT, PEER_PROBES),
        (socket.TCP_USER_TIMEOUT, PEER_UNACKED_MS),
    ):
        handle.setsockopt(socket.IPPROTO_TCP, option, value)


class ResponseHeads:
    """Heads of responses that were read before.

    :ivar usual: ``ParsedResponse`` of answers to all methods but HEAD.
    :ivar to_head: of answers to HEAD.
    """

    __slots__ = ("to_head", "usual")

    def __init__(self) -> None:
        self.usual = Remembered()
        self.to_head = Remembered()


class ResponseListener:
    """Who asked. What it does with it is up to the class below it."""

    def interim_response(self, status: int) -> None:
        """A 1xx answer other than 101 came."""
        raise NotImplementedError

    def response_received(self, head: ParsedResponse | None, data: bytes, done: bool) -> None:
        """A read's worth of response: its head if it was in it, body bytes, whether it is over."""
        raise NotImplementedError

    def upstream_failed(self, error: str, timed_out: bool) -> None:
        """No (further) response will come; the connection is closed."""
        raise NotImplementedError

    def upload_paused(self) -> None:
        """The upstream does not take more of the body for now."""
        raise NotImplementedError

    def upload_resumed(self) -> None:
        """It does again."""
        raise NotImplementedError


class UpstreamConnection(StreamProtocol):
    """A connection that serves one exchange at a time.

    :ivar key: (host, port, identity) of the upstream; the identity is empty without TLS.
    :ivar responded: at least one byte of the current response came.
    """

    def __init__(
        self,
        clock: IReactorTime,
        key: tuple[str, int, str],
        lost: Callable[[UpstreamConnection], None],
        heads: ResponseHeads,
    ) -> None:
        super().__init__()
        self.key = key
        self._heads = heads
        self.responded = False
        self._lost = lost
        self._open = False
        self._listener: ResponseListener | None = None
        self._to_head = False
        self._known = heads.usual
        self._scanner = HeadScanner(RESPONSE_HEAD_LIMITS, forgiving=False)
        self._response: ParsedResponse | None = None
        self._reader: BodyReader | None = None
        self._whole = False
        self._surplus = False
        self._interim = 0
        self._idle_timeout_s = 0.0
        self._reading = True
        self._deadline = Deadline(clock, self._expired)

    # -- from the pool ----------------------------------------------------------------------------

    def usable(self, certain: bool = True) -> bool:
        """Whether an idle connection still stands.

        :param certain: its end may wait unread in the kernel: look there too.
        """
        if not self._open or not certain:
            return self._open
        handle = getattr(self.transport, "getHandle", None)
        fileno = getattr(handle() if handle is not None else None, "fileno", None)
        if fileno is None:
            return True
        waiting = select.poll()
        try:
            waiting.register(fileno(), select.POLLIN)
        except (OSError, ValueError):  # it is closed
            return False
        return not waiting.poll(0)  # the end, or bytes nobody asked for

    def rest(self, idle_s: float) -> None:
        """Wait in the pool, at most ``idle_s`` seconds."""
        self._listener = None
        if not self._reading:
            self.resume()
        self._deadline.set(idle_s)

    # -- from the attempt -------------------------------------------------------------------------

    def begin(
        self,
        listener: ResponseListener,
        to_head: bool,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        """Serve a new request; its bytes follow by :meth:`write`.

        :param to_head: it is a HEAD, whose response has no body.
        :param first_byte_timeout_s: silence allowed before the response's head.
        :param idle_timeout_s: silence allowed inside the response.
        """
        self._listener = listener
        self._to_head = to_head
        self._known = self._heads.to_head if to_head else self._heads.usual
        self._response = self._reader = None
        self._whole = self._surplus = self.responded = False
        self._interim = 0
        self._idle_timeout_s = idle_timeout_s
        self._deadline.set(first_byte_timeout_s)

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        self._send(data)

    def progress(self, first_byte_timeout_s: float) -> None:
        """The upload goes on: the response is not overdue yet."""
        if self._response is None and self._listener is not None:
            self._deadline.set(first_byte_timeout_s)

    def reusable(self) -> bool:
        """Whether the response came whole and the connection can take another request."""
        response: ParsedResponse | None = self._response
        return (
            self._open
            and self._whole
            and not self._surplus
            and response is not None
            and response.keep_alive
        )

    def pause(self) -> None:
        """Read no more for now: the client is slow or a gate holds."""
        if self._reading and self._open:
            self._reading = False
            self._deadline.clear()
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if not self._reading and self._open:
            self._reading = True
            if self._listener is not None:
                self._deadline.set(self._idle_timeout_s)
            self.transport.resumeProducing()

    def abort(self) -> None:
        """Cut the connection; its listener hears nothing any more."""
        self._listener = None
        self._deadline.stop()
        if self._open:
            self._open = False
            self.transport.abortConnection()

    # -- from the transport -----------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Be open, and slow the client when the upstream is slow."""
        self._open = True
        # Twisted's UNIX sockets say that they are TCP ones too.
        unix = IUNIXTransport.providedBy(self.transport)
        if ITCPTransport.providedBy(self.transport) and not unix:
            self.transport.setTcpNoDelay(True)
            notice_dead_peer(cast(Any, self.transport).getHandle())
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Read a response, or close an idle connection on which something comes."""
        if self._listener is None:
            self.abort()
            return
        self.responded = True
        try:
            if self._response is not None:
                self._read_body(None, data)
                return
            head, data = self._read_head(data)
            if head is not None:
                self._response = head
                self._read_first(head, data)
        except (BadResponse, BadBody) as error:
            self._fail(f"bad response: {error}", timed_out=False)
        except Rejected as error:
            self._fail(f"bad response: {error.rejection.message}", timed_out=False)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """The upstream closed, or the network did."""
        self._open = False
        self._deadline.stop()
        self._lost(self)
        listener, self._listener = self._listener, None
        if listener is None or self._whole:
            return
        if isinstance(self._reader, CloseReader) and reason.check(ConnectionDone):
            self._whole = True
            listener.response_received(None, b"", True)
            return
        listener.upstream_failed(f"connection lost: {reason.getErrorMessage()}", False)

    def pauseProducing(self) -> None:
        """The transport's send buffer is full."""
        if self._listener is not None:
            self._listener.upload_paused()

    def resumeProducing(self) -> None:
        """The transport's send buffer is empty."""
        if self._listener is not None:
            self._listener.upload_resumed()

    def stopProducing(self) -> None:
        """The transport is closed; ``connectionLost`` follows."""

    # -- inside -----------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> tuple[ParsedResponse | None, bytes]:
        if self._scanner.empty():
            raw, end, rest = data.partition(b"\r\n\r\n")
            known: Remembered = self._known
            head = known.known.get(raw) if end else None
            if head is not None:
                return head, rest
        while (found := self._scanner.feed(data)) is not None:
            raw, data = found
            head = parse_response(raw, self._to_head)
            if head.head.status >= 200:
                self._known.put(raw, head)
                return head, data
            self._interim += 1
            if head.head.status == 101 or self._interim > MAX_INTERIM:
                raise BadResponse("101 that nobody asked for, or too many interim responses")
            if self._listener is not None:
                self._listener.interim_response(head.head.status)
            if not data:
                break
        return None, b""

    def _read_first(self, head: ParsedResponse, data: bytes) -> None:
        """What came with the head: usually the whole body."""
        if len(data) == head.length:
            self._whole = True
            self._deadline.clear()
            listener: ResponseListener | None = self._listener
            if listener is not None:
                listener.response_received(head, data, True)
            return
        self._reader = head.reader()
        self._read_body(head, data)

    def _read_body(self, head: ParsedResponse | None, data: bytes) -> None:
        reader, listener = self._reader, self._listener
        if self._whole or reader is None:
            self._surplus = True  # more after the end, which was told
            return
        if reader.done:
            body, surplus = b"", data
        else:
            body, surplus = reader.feed(data)
        if surplus:
            self._surplus = True
        if reader.done:
            self._whole = True
            self._deadline.clear()
        else:
            self._deadline.set(self._idle_timeout_s)
        if listener is not None:
            listener.response_received(head, body, self._whole)

    def _expired(self) -> None:
        if self._listener is None:
            self.abort()
        elif self._response is None:
            self._fail("no response head in time", timed_out=True)
        else:
            self._fail("the response stood still for too long", timed_out=False)

    def _fail(self, error: str, timed_out: bool) -> None:
        listener = self._listener
        self.abort()
        if listener is not None:
            listener.upstream_failed(error, timed_out)


# A decorator would keep it from becoming an extension type (pbcluster.compiled).
classImplements(UpstreamConnection, IPushProducer)
