"""One client connection of HTTP/1.1, on the server's side.

It reads a head, has it judged by ``rules``, makes an exchange, feeds it the body and goes on when
its response is complete; further requests of the client wait (serial pipelining). Refused requests
get their error and the connection ends. Every wait has its deadline (``limits.Limits``), every
buffer its bound: bytes that came too early at most 64 KiB and one read. A client that closes its
sending side counts as gone, as with most proxies.

No objects of ``twisted.web`` are involved. Only ordinary stream transports are used, so that TCP,
TLS and other streams behind Twisted's endpoints serve alike. What a request is answered is the
handler's affair, and how it is forwarded ``exchange``'s.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from pbcluster.web.answers import error_body, local_response, refusal_headers
from pbcluster.web.chunked import BadBody, BodyReader, ChunkedReader, LengthReader
from pbcluster.web.client_connection import ClientConnection
from pbcluster.web.exchange import ServerExchange
from pbcluster.web.interfaces import RequestHead
from pbcluster.web.limits import HIGH_WATER_BYTES, Limits
from pbcluster.web.rules import HeadScanner, Rejected, Rejection, parse_request
from pbcluster.web.server_side import ServerSide

_log = Logger(__name__)

_MISDIRECTED = Rejection(421, "this connection was opened for another host")


class HTTPServerConnection(ClientConnection):
    """See the module.

    :ivar peer_host: the client's IP address as text, from when it connected.
    """

    def __init__(self, factory: ServerSide) -> None:
        super().__init__(factory.clock, factory.limits)
        self._factory = factory
        self.peer_host = ""
        #: Whether a request for a host came on the wrong TLS connection.
        self._misdirected: Callable[[bytes], bool] | None = None
        self._scanner = HeadScanner(self._limits.head)
        self._exchange: ServerExchange | None = None
        #: Finds the end of the current request's body; None when it is complete.
        self._reader: BodyReader | None = None
        self._body_bytes = 0
        self._max_body_bytes = 0
        self._window_bytes = 0
        #: Bytes behind the current request.
        self._pending = b""
        self._parsing = False

    # -- from the transport -----------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Expect a request within the header deadline."""
        self.peer_host = getattr(self.transport.getPeer(), "host", "")
        self._secure = ISSLTransport.providedBy(self.transport)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if not self._factory.admit(self):
            self._closing = True
            self.transport.abortConnection()
            return
        self.transport.registerProducer(self, True)
        self._deadline.set(self._limits.header_timeout_s)

    def handshakeCompleted(self) -> None:
        """Over TLS (``web.tls``): requests may come now; the deadline of the first one stands."""
        over = getattr(self.transport, "handshake_over", None)
        self._misdirected = over() if over is not None else None

    def dataReceived(self, data: bytes) -> None:
        """Bytes of a head, of a body, or of a request whose turn has not come."""
        if self._closing:
            self._linger(len(data))
            return
        if self._reader is not None:
            data = self._read_body(data)
            if not data or self._closing:
                return
        if self._exchange is not None or self._parsing or self._pending:
            self._pending += data
            self.update_reading()
        else:
            self._read_heads(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone: whatever was done for it is cancelled."""
        self._closing = True
        self._deadline.stop()
        self._stall.stop()
        self._pending = b""
        self._reader = None
        exchange, self._exchange = self._exchange, None
        self._factory.forget(self)
        if exchange is not None:
            exchange.client_lost("the client closed the connection")

    def pauseProducing(self) -> None:
        """The transport's send buffer is full: the client is slow."""
        self.slow = True
        self._stall.set(self._limits.send_stall_s)
        if self._exchange is not None:
            self._exchange.client_slow()

    def resumeProducing(self) -> None:
        """The send buffer is empty again."""
        self.slow = False
        self._stall.clear()
        if self._exchange is not None:
            self._exchange.client_ready()
        elif not self._closing and self._reader is None:
            self._next_request()

    def stopProducing(self) -> None:
        """The transport is closed; ``connectionLost`` follows."""

    # -- from the exchange ------------------------------------------------------------------------

    def draining(self) -> bool:
        """See ``client_connection.ClientConnection``."""
        return self._factory.draining

    def write(self, data: bytes) -> None:
        """See ``client_connection.ClientConnection``."""
        self._send(data)

    def cut(self) -> None:
        """See ``client_connection.ClientConnection``."""
        self._closing = True
        self._exchange = None
        self._reader = None
        self._deadline.stop()
        self.transport.abortConnection()

    def exchange_over(self, keep: bool) -> None:
        """See ``client_connection.ClientConnection``."""
        self._exchange = None
        if self._closing:
            return
        if not keep:
            self._close(unread=self._reader is not None or bool(self._pending))
        elif self._reader is None:
            if self._pending or self._paused or self.slow:
                self._next_request()
            elif not self._parsing:
                self._await_request()
        else:
            self.update_reading()  # the rest of the body is read and thrown away

    def update_reading(self) -> None:
        """See ``client_connection.ClientConnection``."""
        if self._closing:
            return
        exchange = self._exchange
        pause = len(self._pending) >= HIGH_WATER_BYTES or (
            self._reader is not None and exchange is not None and exchange.wants_pause
        )
        if pause == self._paused:
            return
        self._paused = pause
        if pause:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def limit_body(self, max_bytes: int) -> None:
        """See ``client_connection.ClientConnection``."""
        self._max_body_bytes = max_bytes

    # -- for the factory --------------------------------------------------------------------------

    def close_if_idle(self, quiet_s: float = 0.0) -> None:
        """End the connection unless it serves a request or began to receive one.

        :param quiet_s: only after it stayed idle for so long from now: a request that is on its way
            is still answered.
        """
        busy = self._exchange is not None or self._reader is not None or self._closing
        if not busy and self._scanner.empty() and not self._pending:
            if quiet_s:
                self._deadline.set(quiet_s)
            else:
                self._close(unread=False)

    def use_limits(self, limits: Limits) -> None:
        """Other limits hold from the next request on, but for the size of a head."""
        self._limits = limits

    # -- heads ------------------------------------------------------------------------------------

    def _next_request(self) -> None:
        if self._parsing:
            return  # the loop below goes on by itself
        data, self._pending = self._pending, b""
        self._read_heads(data)
        self.update_reading()

    def _read_heads(self, data: bytes) -> None:
        """Serve the requests in ``data``, one after the other, as far as they can be served now."""
        self._parsing = True
        try:
            while data and self._exchange is None and self._reader is None and not self.slow:
                found = self._scanner.feed(data)
                if found is None:
                    data = b""
                    break
                raw, data = found
                data = self._begin(raw, data)
                if self._closing:
                    return
        except Rejected as error:
            self._reject(error.rejection)
            return
        finally:
            self._parsing = False
        if self._pending or data:
            self._pending = data + self._pending
        self._await_more()

    def _await_more(self) -> None:
        """Set the deadline of what is expected next."""
        if self._exchange is not None or self._reader is not None:
            return
        if self._pending:
            self._deadline.clear()  # the client is slow; its stall has a deadline of its own
        elif self._scanner.empty():
            self._await_request()
        elif not self._scanner.timed:
            self._scanner.timed = True
            self._deadline.set(self._limits.header_timeout_s)

    def _await_request(self) -> None:
        """Nothing of a further request came yet."""
        factory = self._factory
        if not factory.draining:
            if not self._deadline.pending():  # an empty line alone moves no deadline
                self._deadline.set(self._limits.keep_alive_s)
        elif factory.quiet_s:
            # Its last answer began before the drain and did not say that it was the last.
            self._deadline.set(factory.quiet_s)
        else:
            self._close(unread=False)

    def _begin(self, raw: bytes, data: bytes) -> bytes:
        """Start the exchange of one request.

        :param raw: its head. :param data: what followed it.
        :return: what follows the request.
        """
        factory, limits = self._factory, self._limits
        found = parse_request(
            raw, limits.head, self.peer_host, self._secure, factory.remembered, factory.apart
        )
        if isinstance(found, Rejection):
            self._reject(found)
            return b""
        head: RequestHead = found
        if self._misdirected is not None and self._misdirected(head.host):
            self._reject(_MISDIRECTED)
            return b""
        length = head.content_length
        if length is not None and length > limits.max_body_bytes:
            told = f"the request body is larger than {limits.max_body_bytes} bytes"
            self._reject(Rejection(413, told), head)
            return b""
        factory.requests += 1
        self._deadline.clear()
        exchange: ServerExchange = ServerExchange(self, head, factory.pool, factory.replay)
        self._exchange = exchange
        if head.has_body():
            data = self._begin_body(head, data)
            if self._exchange is not exchange:
                return b""
        try:
            factory.handler(exchange)
        except Exception:
            _log.failure("the handler of a request failed")
            if self._exchange is exchange:
                exchange.fail(500, "internal error")
        return data

    def _reject(self, rejection: Rejection, head: RequestHead | None = None) -> None:
        status = rejection.status
        self._factory.rejected[status] += 1
        body, more = error_body(status, rejection.message), refusal_headers(status)
        answer = local_response(status, body, b"application/json", more, request=head, close=True)
        self.transport.write(answer)
        self._close(unread=True)

    # -- bodies -----------------------------------------------------------------------------------

    def _begin_body(self, head: RequestHead, data: bytes) -> bytes:
        self._reader = ChunkedReader() if head.chunked else LengthReader(head.content_length or 0)
        self._body_bytes = self._window_bytes = 0
        self._max_body_bytes = self._limits.max_body_bytes
        self._deadline.set(self._limits.body_idle_s)
        return self._read_body(data) if data else data

    def _read_body(self, data: bytes) -> bytes:
        """Take body bytes; give what follows the body."""
        reader = self._reader
        if reader is None:
            return data
        try:
            body, rest = reader.feed(data)
        except BadBody as error:
            self._bad_body(400, str(error))
            return b""
        self._body_bytes += len(body)
        if self._body_bytes > self._max_body_bytes:
            limit = self._max_body_bytes
            self._bad_body(413, f"the request body is larger than {limit} bytes")
            return b""
        done = reader.done
        if done:
            self._reader = None
            self._deadline.clear()
        exchange = self._exchange
        if exchange is not None:
            exchange.body.received(body, done)
            self.update_reading()
        elif done:
            self._await_more()
        return rest

    def _bad_body(self, status: int, message: str) -> None:
        self._factory.rejected[status] += 1
        if self._exchange is not None:
            self._exchange.fail(status, message)
        else:  # its request was answered already
            self._close(unread=True)

    def _check_body_progress(self) -> None:
        """A window of the body's time is over."""
        received = self._body_bytes - self._window_bytes
        self._window_bytes = self._body_bytes
        if self._paused or received >= self._limits.min_body_bytes:
            self._deadline.set(self._limits.body_idle_s)
        else:
            self._bad_body(408, "the request body came too slowly")

    # -- the end ----------------------------------------------------------------------------------

    def _expired(self) -> None:
        if self._closing:
            self.transport.abortConnection()
        elif self._reader is not None:
            self._check_body_progress()
        elif self._scanner.empty():
            self._close(unread=False)
        else:
            self._reject(Rejection(408, "the request's head did not come in time"))

    def _close(self, unread: bool) -> None:
        """End the connection when all is sent (see ``closing``)."""
        self._reader = None
        self._exchange = None
        self._pending = b""
        self.close_in_order(unread)


# A decorator would keep it from becoming an extension type (pbcluster.compiled).
classImplements(HTTPServerConnection, IPushProducer, IHandshakeListener)
