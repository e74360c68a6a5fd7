"""One request and its response on a server connection: implements ``interfaces.Exchange``.

It stands between the connection (``server_connection``), the handler and the attempts
(``attempt``), and holds what outlives an attempt: the request's body and whether the client is
still there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pbcluster.errors import LocalProtocolError
from pbcluster.web.answers import error_body, local_response, refusal_headers
from pbcluster.web.attempt import ForwardAttempt
from pbcluster.web.client_connection import ClientConnection
from pbcluster.web.client_side import ClientSide
from pbcluster.web.interfaces import (
    Attempt,
    Forward,
    Forwarding,
    Headers,
    OnResponse,
    Outcome,
    RequestHead,
    ResponseHead,
)
from pbcluster.web.limits import DISCARD_BYTES
from pbcluster.web.pool import UpstreamPool
from pbcluster.web.replay import NO_BODY, ReplayBudget, RequestBody

_log = Logger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_COMPLETED = Outcome.COMPLETED


class _Whole:
    """Collects a body for whoever waits for all of it."""

    def __init__(self) -> None:
        self.deferred: Deferred[bytes] = Deferred()
        self._parts: list[bytes] = []

    def take(self, data: bytes, complete: bool) -> None:
        """A part of it, and whether it is the last."""
        self._parts.append(data)
        if complete and not self.deferred.called:
            self.deferred.callback(b"".join(self._parts))


class _Callbacks(Forwarding):
    """Calls functions instead."""

    def __init__(self, on_response: OnResponse | None, done: Callable[[Attempt], None]) -> None:
        self._on_response = on_response
        self._done = done

    def responded(self, head: ResponseHead) -> Awaitable[ResponseHead] | ResponseHead:
        """See ``interfaces.Forwarding``."""
        return self._on_response(head) if self._on_response is not None else head

    def forwarded(self, attempt: Attempt) -> None:
        """See ``interfaces.Forwarding``."""
        self._done(attempt)


class ServerExchange(ClientSide):
    """See ``interfaces.Exchange`` and ``client_side.ClientSide``."""

    def __init__(
        self,
        connection: ClientConnection,
        head: RequestHead,
        pool: UpstreamPool,
        budget: ReplayBudget,
    ) -> None:
        self.head = head
        self.body = NO_BODY
        if self.head.has_body():
            self.body = RequestBody(budget, False)
        self._connection = connection
        self._pool = pool
        self._attempt: ForwardAttempt | None = None
        self._who: Forwarding | None = None
        self._on_gone: list[Callable[[], None]] | None = None
        self._close = self._continued = self._finished = self.client_gone = False

    # -- for the handler --------------------------------------------------------------------------

    def forward(self, plan: Forward, done: Callable[[Attempt], None]) -> None:
        """See ``interfaces.Exchange``, and :meth:`forward_for`."""
        self.forward_for(plan, _Callbacks(plan.on_response, done))

    def forward_for(self, plan: Forward, who: Forwarding) -> None:
        """See ``interfaces.Exchange``.

        :raises LocalProtocolError: another attempt is under way, the response is complete, the body
            was given away by an earlier attempt, or the plan cannot be written as a request.
        """
        if self.client_gone:
            who.forwarded(Attempt(Outcome.CLIENT_GONE, False, error="the client is gone"))
            return
        if self._finished or self._attempt is not None or not self.body.whole:
            raise LocalProtocolError("this exchange cannot be forwarded (again)")

        self._who = who
        attempt: ForwardAttempt = ForwardAttempt(self, self._pool, plan, who)
        self._attempt = attempt
        attempt.start()

    def attempt_over(self, attempt: Attempt) -> None:
        """See ``client_side.ClientSide``."""
        self._attempt = None
        who: Forwarding | None = self._who
        self._who = None
        completed = attempt.outcome is _COMPLETED
        if completed:
            self._finish()
        else:
            self._connection.update_reading()
        try:
            if who is not None:
                who.forwarded(attempt)
        except Exception:
            _log.failure("the handler of a forward's end failed")
            self.fail(500, "internal error")
        if completed:
            self._connection.exchange_over(not self._close)

    def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: Headers = (),
        close: bool = False,
    ) -> None:
        """See ``interfaces.Exchange``; an attempt under way ends as REFUSED.

        :raises LocalProtocolError: a response was already begun.
        """
        if self.client_gone:
            return
        if self._finished or (self._attempt is not None and self._attempt.passed):
            raise LocalProtocolError("this exchange was already answered")
        keep = not self.choose_close(close)
        answer = local_response(
            status, body, content_type, headers, request=self.head, close=not keep
        )
        self._finish()
        if self._attempt is not None:
            self._attempt.cancel(Outcome.REFUSED, "answered locally")
        self._connection.write(answer)
        self._connection.exchange_over(keep)

    def read_body(self, max_bytes: int) -> Deferred[bytes]:
        """See ``interfaces.Exchange``.

        :raises LocalProtocolError: an attempt had it.
        """
        if self._finished or self._attempt is not None or not self.body.whole:
            raise LocalProtocolError("the body of this exchange was given away")
        whole = _Whole()
        self.when_gone(whole.deferred.cancel)
        if self.limit_body(max_bytes):
            whole.take(self.body.open(whole.take), self.body.complete)
            self._connection.update_reading()
        return whole.deferred

    def abort(self) -> None:
        """See ``interfaces.Exchange``."""
        if self._finished or self.client_gone:
            return
        self.cut()
        if self._attempt is not None:
            self._attempt.cancel(Outcome.CLIENT_GONE, "aborted")

    def give_up(self, error: str) -> None:
        """See ``interfaces.Exchange``."""
        if self._attempt is not None:
            self._attempt.give_up(error)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """See ``interfaces.Exchange``; called at once if the client is gone already."""
        if self.client_gone:
            callback()
        elif not self._finished:
            if self._on_gone is None:
                self._on_gone = []
            self._on_gone.append(callback)

    def limit_body(self, max_bytes: int) -> bool:
        """See ``interfaces.Exchange``."""
        if (self.head.content_length or self.body.received_bytes) > max_bytes:
            self.fail(413, f"the request body is larger than {max_bytes} bytes")
            return False
        self._connection.limit_body(max_bytes)
        return True

    # -- for the connection -----------------------------------------------------------------------

    @property
    def wants_pause(self) -> bool:
        """Whether no more of the body should be read for now."""
        attempt = self._attempt
        return self.body.crowded() or (attempt is not None and attempt.upload_blocked)

    def client_lost(self, error: str) -> None:
        """The client is gone: cancel everything at once."""
        if self._finished or self.client_gone:
            return
        callbacks, self._on_gone = self._on_gone, None
        self.client_gone = True
        if self._attempt is not None:
            self._attempt.cancel(Outcome.CLIENT_GONE, error)
        self.body.forget()
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                _log.failure("the handler of a client's end failed")

    def fail(self, status: int, message: str) -> None:
        """The request turned out bad in its body: answer if that is still possible, and close."""
        if self._finished or self.client_gone:
            return
        begun = self._attempt is not None and self._attempt.passed
        if not begun:
            self._connection.write(
                local_response(
                    status,
                    error_body(status, message),
                    b"application/json",
                    refusal_headers(status),
                    request=self.head,
                    close=True,
                )
            )
        self.client_lost(message)
        if begun:
            self._connection.cut()
        else:
            self._connection.exchange_over(False)

    def client_slow(self) -> None:
        """The client takes no more bytes for now."""
        if self._attempt is not None:
            self._attempt.client_slow()

    def client_ready(self) -> None:
        """It does again."""
        if self._attempt is not None:
            self._attempt.client_ready()

    # -- for the attempt --------------------------------------------------------------------------

    def awaits_continue(self) -> bool:
        """See ``client_side.ClientSide``."""
        return self.head.expects_continue and not self._continued and not self.body.received_bytes

    def slow(self) -> bool:
        """See ``client_side.ClientSide``."""
        return self._connection.slow

    def send_continue(self) -> None:
        """See ``client_side.ClientSide``."""
        if self.awaits_continue():
            self._continued = True
            self._connection.write(CONTINUE)

    def choose_close(self, forced: bool) -> bool:
        """See ``client_side.ClientSide``."""
        self._close = (
            forced
            or not self.head.keep_alive
            or self._connection.draining()
            or not self._discardable()
        )
        return self._close

    def write(self, data: bytes) -> None:
        """See ``client_side.ClientSide``."""
        self._connection.write(data)

    def cut(self) -> None:
        """See ``client_side.ClientSide``."""
        self._on_gone = None
        self.client_gone = True
        self.body.forget()
        self._connection.cut()

    def update_reading(self) -> None:
        """See ``client_side.ClientSide``."""
        self._connection.update_reading()

    # -- inside -----------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._finished = True
        self._on_gone = None
        if self.body is NO_BODY:
            return
        self.body.forget()
        if not self.body.complete and not self._discardable():
            self._close = True

    def _discardable(self) -> bool:
        """Whether the rest of the body is worth reading to keep the connection."""
        if self.body.complete:
            return True
        if self.awaits_continue() or self.head.content_length is None:
            return False  # it may never come, or without end
        return self.head.content_length - self.body.received_bytes <= DISCARD_BYTES
