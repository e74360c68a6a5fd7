"""Runs the handler for questions that arrive: bounded in number and in time.

Used by both sides of a session. A question beyond the bounds is answered with ``Busy`` at once, one
whose time is over is dropped, a handler that overruns its deadline is cancelled so that its place
is free again. What a handler raises goes back as ``wire.ErrorReply``. It keeps no idempotency
window: who changes state remembers what was done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.errors import Busy, PBClusterError, RemoteProtocolError
from pbcluster.transport.envelopes import seal
from pbcluster.transport.interfaces import Asked, Handler
from pbcluster.wire import STATE_CHANGING, Body, Envelope, ErrorReply

#: Handlers at once: 200 nodes and some gateways with a few questions each.
MAX_RUNNING = 1024
#: Of those for one process, so that one that runs wild leaves room for the others.
MAX_RUNNING_PER_PEER = 256
#: No question may hold its place longer, whatever it asks for.
MAX_TIMEOUT_S = 60.0
#: What a told message (no answer expected) may take.
TELL_TIMEOUT_S = 10.0


#: What leads back to the asker: a routing identity, or the number of a member.
S = TypeVar("S")


class Answering(Generic[S]):
    """The questions under way at one socket.

    :ivar counts: ``expired`` (dropped at arrival), ``busy``, ``overrun`` (cancelled at the
        deadline), ``unsent`` (answer ready, but session gone or full).
    """

    def __init__(
        self,
        clock: IReactorTime,
        cluster_id: str,
        own_id: str,
        send: Callable[[S, bytes], bool],
        *,
        max_running: int = MAX_RUNNING,
        max_running_per_peer: int = MAX_RUNNING_PER_PEER,
    ) -> None:
        """
        :param send: takes the session and an answer's frame; False if it could not be sent.
        """
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._cluster_id = cluster_id
        self._own_id = own_id
        self._send = send
        self._max_running = max_running
        self._max_per_peer = max_running_per_peer
        self._running: Counter[str] = Counter()
        self._works: set[Deferred[Body]] = set()
        self._handler: Handler | None = None
        self._log = Logger()

    def start(self, handler: Handler) -> None:
        """Answer with ``handler`` from now on; what came before was dropped."""
        self._handler = handler

    def stop(self) -> None:
        """Cancel what is under way; it is not answered."""
        self._handler = None
        for work in list(self._works):
            work.cancel()

    def question(self, session: S, envelope: Envelope, role: str = "") -> None:
        """Run the handler for ``envelope`` and send its answer to ``session``."""
        if self._handler is None:
            return
        if envelope.request_id and envelope.timeout_ms <= 0:
            self.counts["expired"] += 1
            return
        if isinstance(envelope.body, STATE_CHANGING) and not envelope.idempotency_key:
            kind = type(envelope.body).__name__
            error = RemoteProtocolError(f"{kind} changes state and needs an idempotency key")
            self._answer(session, envelope, ErrorReply.of(error))
            return
        full = len(self._works) >= self._max_running
        if full or self._running[envelope.sender] >= self._max_per_peer:
            self.counts["busy"] += 1
            self._answer(session, envelope, ErrorReply.of(Busy("too many questions at once")))
            return
        self._run(self._handler, session, envelope, role)

    def _run(self, handler: Handler, session: S, envelope: Envelope, role: str) -> None:
        now = self._clock.seconds()
        asked_s = envelope.timeout_ms / 1000 if envelope.request_id else TELL_TIMEOUT_S
        timeout_s = min(asked_s, MAX_TIMEOUT_S)
        asked = Asked(envelope.sender, envelope.idempotency_key, now + timeout_s, now, role)

        async def handled() -> Body:
            return await handler(asked, envelope.body)

        self._running[asked.sender] += 1
        work = Deferred.fromCoroutine(handled())
        self._works.add(work)
        timer = None if work.called else self._clock.callLater(timeout_s, work.cancel)

        def ended(result: Body | Failure) -> None:
            if timer is not None and timer.active():
                timer.cancel()
            self._works.discard(work)
            self._running[asked.sender] -= 1
            if not self._running[asked.sender]:
                del self._running[asked.sender]
            self._ended(session, envelope, asked, result)

        work.addBoth(ended)

    def _ended(self, session: S, envelope: Envelope, asked: Asked, result: Body | Failure) -> None:
        if self._handler is None:
            return  # stopped
        error = result.value if isinstance(result, Failure) else None
        if isinstance(error, CancelledError) or (
            envelope.request_id and self._clock.seconds() > asked.deadline
        ):
            self.counts["overrun"] += 1
            return
        if not isinstance(result, Failure):
            self._answer(session, envelope, result)
            return
        kind = type(envelope.body).__name__
        assert error is not None
        if not isinstance(error, PBClusterError):
            self._log.failure("handler of {kind} failed", failure=result, kind=kind)
        elif not envelope.request_id:
            self._log.info("told {kind}: {error}", kind=kind, error=str(error))
        self._answer(session, envelope, ErrorReply.of(error))

    def _answer(self, session: S, question: Envelope, body: Body) -> None:
        if not question.request_id:
            return
        try:
            frame = self._frame(question, body)
        except PBClusterError as error:
            self._log.error(
                "answer to {kind}: {e}", kind=type(question.body).__name__, e=str(error)
            )
            frame = self._frame(question, ErrorReply(error.code, error.message))
        if not self._send(session, frame):
            self.counts["unsent"] += 1

    def _frame(self, question: Envelope, body: Body) -> bytes:
        return seal(
            Envelope(self._cluster_id, self._own_id, question.request_id, 0, "", body, True)
        )
