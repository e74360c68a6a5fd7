"""The connecting side of the request sockets, without the sockets.

Takes frames, gives frames; ``control_plane_client`` and the in-memory transport put it on wires,
one to each member. One question is a loop: ``member_choice`` says whom to ask next, the frame goes
out under a new id with the same idempotency key, and the answer, the silence or the refusal goes
back into the choice. Messages from members (asked or told) run the handler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import Busy, DeadlineExceeded, LocalProtocolError, Unavailable
from pbcluster.transport.answering import Answering
from pbcluster.transport.envelopes import FrameChecks, seal, sorted_counts
from pbcluster.transport.gathering import Gathering
from pbcluster.transport.interfaces import Handler
from pbcluster.transport.member_choice import Attempt, Choice, Members, Uniform
from pbcluster.transport.pending import FIRST_ODD, PendingAnswers
from pbcluster.wire import STATE_CHANGING, Body, Envelope, ErrorReply, Ok

#: Questions of one process at once: a gateway with 200 tenants that all moved, and some room.
MAX_IN_FLIGHT = 512
#: A lost greeting (it makes the way back known to the member) is repaired by then.
GREETING_INTERVAL_S = 5.0


class AskingSide:
    """Asks the control plane, and answers members.

    :ivar checks: what was refused.
    :ivar late: answers that came after their attempt was given up.
    :ivar attempts: questions handed over to be sent, repetitions included.
    :ivar leader_unknown: called when a member names a leader that is none of ours.
    """

    def __init__(
        self,
        clock: IReactorTime,
        cluster_id: str,
        own_id: str,
        names: Sequence[Sequence[str]],
        send: Callable[[int, bytes], bool],
        random: Uniform,
    ) -> None:
        """
        :param names: for each member the words (endpoint, id) by which a hint may name it.
        :param send: takes a member's number and a frame; False if it is unreachable or full.
        :param random: for the jitter of the pauses.
        """
        log = self._log = Logger()
        self.checks = FrameChecks(cluster_id, lambda line: log.warn("{line}", line=line))
        self.late = 0
        self.attempts = 0
        self.leader_unknown: Callable[[], None] = lambda: None
        self._clock = clock
        self._cluster_id = cluster_id
        self._own_id = own_id
        self._gathering = Gathering(clock, send, self._unsent)
        self._members = Members(names, random)
        self._pending = PendingAnswers(clock, FIRST_ODD, MAX_IN_FLIGHT)
        self._pauses: set[Deferred[None]] = set()
        self._in_flight = 0
        self._started = False
        self._answering: Answering[int] = Answering(
            clock, cluster_id, own_id, self._gathering.send_alone
        )

    def start(self, handler: Handler) -> None:
        """Answer members with ``handler``; questions may be asked from now on."""
        self._started = True
        self._answering.start(handler)

    def stop(self) -> None:
        """What is under way fails with ``Unavailable``."""
        self._started = False
        self._answering.stop()
        self._gathering.stop()
        self._pending.fail(Unavailable, "the control-plane client was stopped")
        self._end_pauses()

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        junk = {f"junk_{cause.value}": n for cause, n in sorted_counts(self.checks.counts)}
        own = {"late": self.late, "attempts": self.attempts, "in_flight": self._in_flight}
        return {**junk, **self._answering.counts, **self._gathering.counts, **own}

    def add_member(self, words: Sequence[str]) -> int:
        """Ask a further member from now on; its number. :param words: as an entry of ``names``."""
        return self._members.add(words)

    def remove_members(self, members: Collection[int]) -> None:
        """Ask these no more; what is under way there goes to others, as at a lost session.

        :raises LocalProtocolError: there would be none left.
        """
        for member in members:
            self._members.remove(member)
        # Not before all are out of the choice, or it would go to one that is about to leave.
        for member in members:
            self._gathering.forget(member)
            self._pending.fail(DeadlineExceeded, "the member was removed", peer=member)

    def reachable(self, member: int, yes: bool) -> None:
        """The session to ``member`` was opened or lost."""
        if member not in self._members:
            return
        if not yes:
            self._members.reachable.discard(member)
            self._gathering.forget(member)
            self._pending.fail(DeadlineExceeded, "the session was lost", peer=member)
            return
        self._members.reachable.add(member)
        self.greet(member)
        self._end_pauses()

    def greet(self, member: int) -> None:
        """Tell ``member`` that we are here, so that it can ask us."""
        greeting = Envelope(self._cluster_id, self._own_id, 0, 0, "", Ok(), bundles=True)
        self._gathering.send_alone(member, seal(greeting))

    def frame(self, member: int, parts: Sequence[bytes], proven: str | None) -> int:
        """A frame arrived from ``member``; ``proven`` as in :meth:`FrameChecks.open`.

        :returns: how many messages were in it, bad ones included.
        """
        found = self.checks.open_all(parts, proven, self._clock.seconds())
        self._gathering.hold()
        try:
            for envelope in found:
                if not self._started or member not in self._members:
                    break  # one before it ended this
                if envelope is None:
                    continue
                try:
                    self._message(member, envelope, proven)
                except Exception:
                    self._log.failure("handling a message failed")
        finally:
            self._gathering.release()
        return len(found)

    def _message(self, member: int, envelope: Envelope, proven: str | None) -> None:
        # What is read after the session was lost says nothing of who comes next.
        up = member in self._members.reachable
        self._gathering.reads(member, envelope.bundles and up)
        if not self._pending.is_answer(envelope.request_id):
            self._answering.question(member, envelope, "" if proven is None else "member")
        elif not self._pending.answered(member, envelope.request_id, envelope.body):
            self.late += 1

    async def ask(
        self, body: Body, *, timeout_s: float, idempotency_key: str = "", any_member: bool = False
    ) -> Body:
        """As :meth:`ControlPlaneClient.ask`."""
        if isinstance(body, STATE_CHANGING) and not idempotency_key:
            raise LocalProtocolError(f"{type(body).__name__} needs an idempotency key")
        if not self._started:
            raise Unavailable("the control-plane client is not started")
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Busy(f"{MAX_IN_FLIGHT} questions to the control plane are under way already")
        deadline = self._clock.seconds() + timeout_s
        choice = Choice(self._members, deadline=deadline, any_member=any_member)
        self._in_flight += 1
        try:
            return await self._ask(choice, body, timeout_s, idempotency_key)
        finally:
            self._in_flight -= 1

    async def _ask(self, choice: Choice, body: Body, timeout_s: float, key: str) -> Body:
        refusal = ""
        while (attempt := choice.next(self._clock.seconds())) is not None:
            if attempt.pause_s > 0:
                await self._pause(attempt.pause_s)
            if not self._started:
                raise Unavailable("the control-plane client was stopped")
            reply = await self._attempt(choice, attempt, body, key)
            if isinstance(reply, ErrorReply):
                refusal = self._refused(choice, attempt.member, reply)
                if not refusal:
                    choice.answered(attempt.member)
                    raise reply.exception()
            elif reply is not None:
                choice.answered(attempt.member)
                return reply
        kind = type(body).__name__
        last = f"; the last refusal was {refusal}" if refusal else ""
        raise DeadlineExceeded(f"no member answered {kind} within {timeout_s:.3g} s{last}")

    async def _attempt(self, choice: Choice, attempt: Attempt, body: Body, key: str) -> Body | None:
        request_id, answer = self._pending.open(attempt.member, attempt.timeout_s)
        timeout_ms = max(1, math.ceil(attempt.timeout_s * 1000))
        envelope = Envelope(self._cluster_id, self._own_id, request_id, timeout_ms, key, body, True)
        try:
            if not self._gathering.send(attempt.member, seal(envelope), request_id):
                choice.silent(attempt.member)
                return None
            self.attempts += 1
            return await answer
        except DeadlineExceeded:
            choice.silent(attempt.member)
            return None
        finally:
            self._pending.forget(request_id)

    def _refused(self, choice: Choice, member: int, reply: ErrorReply) -> str:
        """Tell ``choice`` of an answer that means "not here, not now"; its code, else empty."""
        if reply.code == "not_leader":
            if choice.not_leader(member, reply.data.get("leader")):
                self.leader_unknown()
        elif reply.code == "busy":
            choice.busy(member)
        elif reply.code == "deadline":
            choice.silent(member)
        else:
            return ""
        return reply.code

    def _unsent(self, _: int, request_ids: Sequence[int]) -> None:
        for request_id in request_ids:
            self._pending.unsent(request_id)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until a member becomes reachable."""
        pause: Deferred[None] = Deferred()
        timer = self._clock.callLater(seconds, pause.callback, None)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            self._pauses.discard(pause)
            if timer.active():
                timer.cancel()

    def _end_pauses(self) -> None:
        for pause in list(self._pauses):
            if not pause.called:
                pause.callback(None)
