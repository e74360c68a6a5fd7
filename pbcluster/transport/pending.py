"""Questions that wait for their answer: matched by id and by peer, each with a deadline.

Both sides of a session ask questions over it. The connecting side uses odd ids, the listening side
even ones, and an answer bears the id of its question: so the id alone says which of the two a
message is. Ids are never used twice by one process; an answer that comes after its question was
given up finds nothing here and is counted by the caller.
"""

from __future__ import annotations

from collections.abc import Hashable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pbcluster.errors import Busy, DeadlineExceeded, PBClusterError
from pbcluster.wire import Body

FIRST_ODD = 1
FIRST_EVEN = 2


@attrs.frozen(eq=False)
class _Waiting:
    peer: Hashable
    answer: Deferred[Body]
    timer: IDelayedCall


class PendingAnswers:
    """The open questions of one side."""

    def __init__(self, clock: IReactorTime, first_id: int, max_pending: int) -> None:
        """
        :param first_id: ``FIRST_ODD`` for the connecting side, ``FIRST_EVEN`` for the listening.
        :param max_pending: more at once are refused with ``Busy``.
        """
        self._clock = clock
        self._next_id = first_id
        self._max_pending = max_pending
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def is_answer(self, request_id: int) -> bool:
        """Whether a message with this id answers one of our questions (ours have our parity)."""
        return request_id > 0 and request_id % 2 == self._next_id % 2

    def open(self, peer: Hashable, timeout_s: float) -> tuple[int, Deferred[Body]]:
        """A new question to ``peer``: its id, and what fires with the answer's body.

        The Deferred fails with ``DeadlineExceeded`` after ``timeout_s``, and with what
        :meth:`fail` is told. Cancelling it gives the question up.

        :raises Busy: too many are open.
        """
        if len(self._waiting) >= self._max_pending:
            raise Busy(f"{self._max_pending} questions wait for their answer already")
        request_id, self._next_id = self._next_id, self._next_id + 2
        answer: Deferred[Body] = Deferred(lambda _: self.forget(request_id))
        timer = self._clock.callLater(timeout_s, self._timed_out, request_id, timeout_s)
        self._waiting[request_id] = _Waiting(peer, answer, timer)
        return request_id, answer

    def answered(self, peer: Hashable, request_id: int, body: Body) -> bool:
        """Hand in an answer. False: nobody waits for it (any more), or another peer was asked."""
        waiting = self._waiting.get(request_id)
        if waiting is None or waiting.peer != peer:
            return False
        self.forget(request_id)
        waiting.answer.callback(body)
        return True

    def forget(self, request_id: int) -> None:
        """Give a question up; its Deferred never fires."""
        waiting = self._waiting.pop(request_id, None)
        if waiting is not None and waiting.timer.active():
            waiting.timer.cancel()

    def fail(
        self, kind: type[PBClusterError], message: str, *, peer: Hashable | None = None
    ) -> None:
        """Fail all open questions, or those to ``peer``, each with an error of its own."""
        for request_id, waiting in list(self._waiting.items()):
            if request_id in self._waiting and (peer is None or waiting.peer == peer):
                self.forget(request_id)
                waiting.answer.errback(kind(message))

    def unsent(self, request_id: int) -> None:
        """The question could not be sent after all: fail it, if it is open."""
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            self.forget(request_id)
            waiting.answer.errback(DeadlineExceeded("the session is gone or full"))

    def _timed_out(self, request_id: int, timeout_s: float) -> None:
        waiting = self._waiting.pop(request_id)
        waiting.answer.errback(DeadlineExceeded(f"no answer within {timeout_s:.3g} s"))
