"""Frames to one session that leave in one: bundles, for those who read them.

What a frame costs by itself (a signal to ZeroMQ's thread, a system call there, a box of CURVE, and
the same again at the other side) is more than what its message costs. Where many messages to one
session arise in one turn of the reactor, as answers to 64 writes that one commit settled, they go
as one ``wire.bundle``.

What holds: what is given here for a session leaves in its order, and when this turn of the reactor
ends at the latest; the first of a turn leaves at once, unless more is known to come
(:meth:`Gathering.hold`); a session that never said that it reads bundles gets none; a frame larger
than ``wire.MAX_BUNDLED_BYTES`` goes alone, behind those that were given before it. It knows no
socket, and nothing of questions and answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pbcluster.wire import MAX_BUNDLED_BYTES, bundle

#: What leads to a process: a routing identity, or the number of a member.
S = TypeVar("S")
#: A bundle leaves when it has so many: so that the other side works while this one goes on.
GATHERED = 32


class Gathering(Generic[S]):
    """See the module.

    :ivar counts: ``bundles`` sent, and frames that were ``bundled`` in them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        send: Callable[[S, bytes], bool],
        unsent: Callable[[S, Sequence[int]], None],
    ) -> None:
        """
        :param send: takes a session and a frame; False if it is unreachable or full.
        :param unsent: told the numbers of frames for which :meth:`send` had said True, and that
            could not be sent after all.
        """
        self.counts = {"bundles": 0, "bundled": 0}
        self._clock = clock
        self._send = send
        self._unsent = unsent
        self._readers: set[S] = set()
        #: Sessions of this turn, or of this hold → what waits for its end.
        self._waiting: dict[S, list[tuple[bytes, int]]] = {}
        self._held = 0
        self._flush: IDelayedCall | None = None
        self._log = Logger()

    def reads(self, session: S, bundles: bool) -> None:
        """Whoever is at ``session`` said whether it reads bundles."""
        if bundles:
            self._readers.add(session)
        elif session in self._readers:
            self._readers.discard(session)
            for each in self._waiting.pop(session, []):
                self._bundle(session, [each])

    def forget(self, session: S) -> None:
        """``session`` is over; who comes there next may read no bundles."""
        self._readers.discard(session)
        self._bundle(session, self._waiting.pop(session, []))

    def hold(self) -> None:
        """More will come: from now on the first one waits too, all until :meth:`release`. May be
        nested."""
        self._held += 1

    def release(self) -> None:
        """What was gathered leaves."""
        try:
            if self._held == 1 and self._waiting:
                self.flush()
        finally:
            self._held -= 1

    def stop(self) -> None:
        """Send what waits, if it still can be sent, and gather no more."""
        self._readers.clear()
        self.flush()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def send(self, session: S, frame: bytes, number: int) -> bool:
        """Send, now or at the end of the turn.

        :param number: names the frame if it cannot be sent after all.
        :returns: False if ``session`` is known to be unreachable or full.
        """
        if session not in self._readers or len(frame) > MAX_BUNDLED_BYTES:
            return self.send_alone(session, frame)
        waiting = self._waiting.get(session)
        if waiting is None:
            waiting = self._waiting[session] = []
            if not self._held:
                # What comes alone does not wait; only what comes behind it in the same turn does.
                if self._flush is None:
                    self._flush = self._clock.callLater(0, self._turn_over)
                return self._send(session, frame)
        waiting.append((frame, number))
        if len(waiting) == GATHERED:
            self._leave(session)
        return True

    def send_alone(self, session: S, frame: bytes) -> bool:
        """Send at once, behind what waits for ``session``."""
        self._leave(session)
        return self._send(session, frame)

    def flush(self) -> None:
        """Send what waits, and what comes of it (questions that go elsewhere)."""
        while self._waiting:
            session = next(iter(self._waiting))
            self._bundle(session, self._waiting.pop(session))

    def _turn_over(self) -> None:
        self._flush = None
        self.flush()

    def _leave(self, session: S) -> None:
        waiting = self._waiting.get(session)
        if waiting:
            self._waiting[session] = []
            self._bundle(session, waiting)

    def _bundle(self, session: S, waiting: list[tuple[bytes, int]]) -> None:
        if not waiting:
            return
        try:
            sent = self._send(session, bundle([frame for frame, _ in waiting]))
        except Exception:
            self._log.failure("sending failed")
            sent = False
        if not sent:
            self._unsent(session, [number for _, number in waiting])
        elif len(waiting) > 1:
            self.counts["bundles"] += 1
            self.counts["bundled"] += len(waiting)
