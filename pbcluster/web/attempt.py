"""One attempt to forward an exchange: from taking a connection to the response's last byte.

connecting → sent → (held by ``responded``) → streaming → (held by ``on_end``) → over. From the
moment response bytes were passed to the client nothing can be repeated: a later failure cuts the
client's connection, since a clean end would make a torn response look whole. Before that, a failure
is reported and the exchange goes on (``interfaces.Attempt`` says when it can be repeated).

A reused connection that ends before any response byte is taken as stale, once, if the method is
safe and the body is whole: the attempt goes on with a new connection and nobody hears of it.
A response that cannot be passed on, or breaks off while ``responded`` holds it, counts as
NO_RESPONSE. A gate that is still waiting when its attempt ends is left to end by itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.web.answers import passed_on_head
from pbcluster.web.chunked import LAST_CHUNK, encode_chunk
from pbcluster.web.client import ResponseListener, UpstreamConnection
from pbcluster.web.client_side import ClientSide
from pbcluster.web.interfaces import (
    Attempt,
    Forward,
    Forwarding,
    Outcome,
    Refuse,
    ResponseHead,
)
from pbcluster.web.limits import HIGH_WATER_BYTES
from pbcluster.web.pool import UpstreamPool
from pbcluster.web.replay import NO_BODY
from pbcluster.web.response_head import ParsedResponse
from pbcluster.web.rules import SAFE_METHODS
from pbcluster.web.upstream_request import framed, request_head
from pbcluster.web.waiting import as_deferred

_log = Logger(__name__)
#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_COMPLETED = Outcome.COMPLETED
_CLIENT_GONE = Outcome.CLIENT_GONE


class ForwardAttempt(ResponseListener):
    """Carries out one ``Forward``.

    :ivar passed: response bytes went to the client.
    :ivar over: its client is told that it is, or was.
    """

    def __init__(
        self,
        client: ClientSide,
        pool: UpstreamPool,
        plan: Forward,
        who: Forwarding,
    ) -> None:
        self._client = client
        self._pool = pool
        self._plan = plan
        self._who = who
        self._request_head = request_head(plan, client)
        self.passed = self.over = False
        self._connecting: Deferred[Any] | None = None
        self._connection: UpstreamConnection | None = None
        self._reused = False
        #: Bytes came that were no answer.
        self._junk = False
        self._upload_paused = False
        self._parsed: ParsedResponse | None = None
        self._prefix = b""
        self._holding = False
        self._held: list[bytes] | None = None
        self._received_all = self._chunk_response = False
        self._held_bytes = self._request_bytes = self._response_bytes = 0

    @property
    def upload_blocked(self) -> bool:
        """Whether the upstream takes no more of the body for now."""
        return self._upload_paused and not self.over

    def start(self) -> None:
        """Take a connection and send."""
        plan, idle = self._plan, None
        if plan.reuse:
            # What may be sent again needs no certainty.
            certain = plan.method not in SAFE_METHODS or not self._client.body.whole
            idle = self._pool.take(plan.host, plan.port, plan.identity, certain)
        if idle is None:
            self._connect()
        else:
            self._reused = True
            self._send(idle)

    def cancel(self, outcome: Outcome, error: str) -> None:
        """Stop at once: the upstream's connection is cut, the client is told."""
        if not self.over:
            self._end(outcome, error)

    def give_up(self, error: str) -> None:
        """The upstream is not waited for any longer."""
        if self.over:
            return
        if self.passed:
            self._client.cut()
            self._end(Outcome.BROKEN, error)
        else:
            sent = self._connection is not None
            self._end(Outcome.NO_RESPONSE if sent else Outcome.NOT_SENT, error)

    def client_slow(self) -> None:
        """The client takes no more bytes: neither do we."""
        if self._connection is not None:
            self._connection.pause()

    def client_ready(self) -> None:
        """The client takes bytes again."""
        if self._connection is not None and self._held_bytes < HIGH_WATER_BYTES:
            self._connection.resume()

    # -- the request ------------------------------------------------------------------------------

    def _connect(self) -> None:
        plan = self._plan
        self._reused = False
        connecting = self._pool.connect(plan.host, plan.port, plan.connect_timeout_s, plan.identity)
        self._connecting = connecting
        connecting.addCallbacks(self._send, self._not_connected)
        connecting.addErrback(self._bug)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if not self.over and not failure.check(CancelledError):
            self._end(Outcome.NOT_SENT, f"cannot connect: {failure.getErrorMessage()}")

    def _send(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        if self.over:
            connection.abort()
            return
        plan, client = self._plan, self._client
        self._connection = connection
        to_head = plan.method == b"HEAD" or client.head.method == b"HEAD"
        connection.begin(self, to_head, plan.first_byte_timeout_s, plan.idle_timeout_s)
        if client.slow():
            connection.pause()
        body = client.body
        if body is NO_BODY:
            connection.write(self._request_head)
            return
        kept = body.open(self._upload)
        self._request_bytes = len(kept)
        connection.write(self._request_head + framed(kept, body.complete, client.head.chunked))
        client.update_reading()

    def _upload(self, data: bytes, complete: bool) -> None:
        connection = self._connection
        if connection is None:
            return
        self._request_bytes += len(data)
        sent = framed(data, complete, self._client.head.chunked)
        if sent:
            connection.write(sent)
            connection.progress(self._plan.first_byte_timeout_s)

    def upload_paused(self) -> None:
        """See :class:`ResponseListener`."""
        self._upload_paused = True
        self._client.update_reading()

    def upload_resumed(self) -> None:
        """See :class:`ResponseListener`."""
        self._upload_paused = False
        self._client.update_reading()

    # -- the response -----------------------------------------------------------------------------

    def interim_response(self, status: int) -> None:
        """See :class:`ResponseListener`; all but 100 are dropped."""
        if status == 100:
            self._client.send_continue()

    def response_received(self, head: ParsedResponse | None, data: bytes, done: bool) -> None:
        """See :class:`ResponseListener`."""
        self._response_bytes += len(data)
        self._received_all = done
        if head is not None:
            self._parsed = head
            self._ask_gate(head.head, data)
        elif self._holding:
            self._hold(data)
        else:
            self._pass_on(data)

    def upstream_failed(self, error: str, timed_out: bool) -> None:
        """See :class:`ResponseListener`."""
        if self.over:
            return
        connection, self._connection = self._connection, None
        responded = connection is not None and connection.responded
        if self.passed:
            self._client.cut()
            self._end(Outcome.BROKEN, error)
        elif timed_out:
            self._end(Outcome.TIMEOUT, error)
        elif self._reused and not responded and self._silently_repeatable():
            self._client.body.close()
            self._connect()
        else:
            self._junk = responded
            self._end(Outcome.NO_RESPONSE, error)

    def _silently_repeatable(self) -> bool:
        return self._plan.method in SAFE_METHODS and self._client.body.whole

    def _hold(self, data: bytes) -> None:
        if data:
            if self._held is None:
                self._held = []
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes >= HIGH_WATER_BYTES and self._connection is not None:
                self._connection.pause()

    def _take_held(self) -> bytes:
        held = b"".join(self._held or ())
        self._held = None
        self._held_bytes = 0
        self._holding = False
        return held

    def _ask_gate(self, head: ResponseHead, data: bytes) -> None:
        try:
            answer = self._who.responded(head)
        except Exception:
            self._refused(Failure())
            return
        if isinstance(answer, ResponseHead):
            self._pass_head(answer, data)
            return
        self._holding = True
        self._hold(data)
        as_deferred(answer).addCallbacks(self._head_allowed, self._refused).addErrback(self._bug)

    def _head_allowed(self, head: ResponseHead) -> None:
        self._pass_head(head, self._take_held())
        connection = self._connection
        if connection is not None and not (self.over or self._holding or self._client.slow()):
            connection.resume()

    def _pass_head(self, head: ResponseHead, data: bytes) -> None:
        client = self._client
        parsed: ParsedResponse | None = self._parsed
        if self.over or parsed is None:
            return
        until_close = False
        if parsed.length is None and parsed.has_body:
            until_close = client.head.http_10
            self._chunk_response = not until_close
        close = client.choose_close(until_close)
        self._prefix = passed_on_head(head, parsed, client.head, close)
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        plan = self._plan
        gate = plan.on_end if self._received_all and plan.on_end is not None else plan.on_data
        if gate is None:
            self._release(data)
            return
        self._held = [data]
        self._held_bytes = len(data)
        self._holding = True
        try:
            answer = gate()
        except Exception:
            self._end_refused(Failure())
            return
        ended = self._received_all
        if answer is None:
            self._part_allowed(ended)
        else:
            waiting = as_deferred(answer).addCallback(self._waited_for, ended)
            waiting.addErrback(self._end_refused).addErrback(self._bug)

    def _waited_for(self, _: object, ended: bool) -> None:
        self._part_allowed(ended)

    def _part_allowed(self, ended: bool) -> None:
        """The first part that is held may go; what came after it was not asked about."""
        if self.over:
            return
        first, *rest = self._held or [b""]
        self._take_held()
        more = b"".join(rest)
        if self._received_all and not ended:
            self._release_part(first)
            self._pass_on(more)
            return
        self._release(first)
        if more:
            self._pass_on(more)
        connection = self._connection
        if connection is not None and not (self.over or self._holding or self._client.slow()):
            connection.resume()

    def _release(self, data: bytes) -> None:
        """Give bytes to the client, with the head before them and the end after them."""
        if self._chunk_response:
            framed = encode_chunk(data) if data else b""
            data = framed + LAST_CHUNK if self._received_all else framed
        if self._prefix:
            data = self._prefix + data
            self._prefix = b""
            self.passed = True
            if self._client.body is not NO_BODY:
                self._client.body.stop_keeping()
        if data:
            self._client.write(data)
        if self._received_all and not self.over:
            self._end(_COMPLETED, "")

    def _release_part(self, data: bytes) -> None:
        """As :meth:`_release`, though the end has been received behind it."""
        self._received_all = False
        try:
            self._release(data)
        finally:
            self._received_all = True

    # -- the end ----------------------------------------------------------------------------------

    def _refused(self, failure: Failure) -> None:
        if self.over:
            return
        if not failure.check(Refuse):
            _log.failure("the gate of a response failed", failure=failure)
        self._end(Outcome.REFUSED, _text(failure))

    def _end_refused(self, failure: Failure) -> None:
        if self.over:
            return
        if not failure.check(Refuse):
            _log.failure("the gate of a response's end failed", failure=failure)
        self.passed = True
        self._client.cut()
        self._end(Outcome.BROKEN, _text(failure))

    def _bug(self, failure: Failure) -> None:
        """A callback of ours failed: nothing is certain about this exchange any more."""
        _log.failure("forwarding failed", failure=failure)
        if not self.over:
            self.passed = True
            self._client.cut()
            self._end(Outcome.BROKEN, "internal error")

    def _end(self, outcome: Outcome, error: str) -> None:
        self.over = True
        body = self._client.body
        body.close()
        self._let_go(outcome)
        parsed: ParsedResponse | None = self._parsed
        head = parsed.head if parsed is not None else None
        repeatable = not self.passed and body.whole and outcome is not _CLIENT_GONE
        self._held = None
        self._client.attempt_over(
            Attempt(
                outcome,
                repeatable,
                head,
                error,
                self._request_bytes,
                self._response_bytes,
                self._reused,
                self._junk,
            )
        )

    def _let_go(self, outcome: Outcome) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection: UpstreamConnection | None = self._connection
        self._connection = None
        if connection is None:
            return
        # An upload that is not over, or not sent, would run into the next request.
        if outcome is _COMPLETED and self._client.body.complete and not self._upload_paused:
            self._pool.give_back(connection)
        else:
            connection.abort()


def _text(failure: Failure) -> str:
    return failure.getErrorMessage() or type(failure.value).__name__
