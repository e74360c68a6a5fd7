"""The listening side of the request sockets, without the socket.

Takes frames, gives frames; ``request_server`` and the in-memory transport put it on a wire. A
*session* is the way back to one process: for ZeroMQ its routing identity, ``ID.TOKEN``, where the
token is random for each start of the process. Where it is, is learnt from frames that passed all
checks only, so that nobody can draw another's messages to himself by choosing its identity.

Answers that arise in one turn of the reactor leave together (``gathering``), to those who read
bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import DeadlineExceeded, LocalProtocolError, Unavailable
from pbcluster.transport.answering import MAX_RUNNING, MAX_RUNNING_PER_PEER, Answering
from pbcluster.transport.envelopes import FrameChecks, Junk, seal, sorted_counts
from pbcluster.transport.gathering import Gathering
from pbcluster.transport.interfaces import Handler
from pbcluster.transport.pending import FIRST_EVEN, PendingAnswers
from pbcluster.wire import STATE_CHANGING, Body, Envelope, ErrorReply, Ok

#: Processes with a way back. A cluster has hundreds; the oldest are forgotten beyond this.
MAX_SESSIONS = 10_000
#: Questions of ours that wait for processes: one probe a node at the same time is plenty.
MAX_PENDING = 4096


def session_name(process_id: str, token: str) -> bytes:
    """The routing identity by which a process opens its sessions."""
    return f"{process_id}.{token}".encode()


class ServingSide:
    """Answers questions and asks processes that have opened a session.

    :ivar checks: what was refused.
    :ivar late: answers that came after their question was given up.
    """

    def __init__(
        self,
        clock: IReactorTime,
        cluster_id: str,
        own_id: str,
        send: Callable[[bytes, bytes], bool],
        *,
        max_running: int = MAX_RUNNING,
        max_running_per_peer: int = MAX_RUNNING_PER_PEER,
    ) -> None:
        """
        :param send: takes a session and a frame; False if it is gone or full.
        """
        log = self._log = Logger()
        self.checks = FrameChecks(cluster_id, lambda line: log.warn("{line}", line=line))
        self.late = 0
        self._clock = clock
        self._cluster_id = cluster_id
        self._own_id = own_id
        self._started = False
        self._gathering = Gathering(clock, send, self._unsent)
        self._sessions: dict[str, bytes] = {}
        #: Every session, since a gateway has one for each of its workers → whose it is.
        self._all_sessions: dict[bytes, str] = {}
        self._pending = PendingAnswers(clock, FIRST_EVEN, MAX_PENDING)
        self._answering: Answering[bytes] = Answering(
            clock,
            cluster_id,
            own_id,
            lambda session, frame: self._gathering.send(session, frame, 0),
            max_running=max_running,
            max_running_per_peer=max_running_per_peer,
        )

    def start(self, handler: Handler) -> None:
        """Answer with ``handler`` from now on."""
        self._started = True
        self._answering.start(handler)

    def stop(self) -> None:
        """Forget all sessions; what is under way fails with ``Unavailable``."""
        self._started = False
        self._answering.stop()
        self._gathering.stop()
        self._sessions.clear()
        self._all_sessions.clear()
        self._pending.fail(Unavailable, "the request server was stopped")

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name: of what was not done."""
        junk = {f"junk_{cause.value}": n for cause, n in sorted_counts(self.checks.counts)}
        return {**junk, **self._answering.counts, "late": self.late}

    def frame(
        self, session: bytes, parts: Sequence[bytes], proven: str | None, role: str = ""
    ) -> int:
        """A frame arrived over ``session``; ``proven`` as in :meth:`FrameChecks.open`.

        :returns: how many messages were in it, bad ones included.
        """
        now = self._clock.seconds()
        found = self.checks.open_all(parts, proven, now)
        name = session.partition(b".")[0]
        for envelope in found:
            if not self._started:
                break  # one before it ended this
            if envelope is None:
                continue
            if name != envelope.sender.encode():
                self.checks.refuse(Junk.SENDER, now)
                continue
            try:
                self._message(session, envelope, role)
            except Exception:
                self._log.failure("handling a message failed")
        return len(found)

    def _message(self, session: bytes, envelope: Envelope, role: str) -> None:
        self._learn(envelope.sender, session, envelope.bundles)
        if self._pending.is_answer(envelope.request_id):
            if not self._pending.answered(envelope.sender, envelope.request_id, envelope.body):
                self.late += 1
        elif envelope.request_id or not isinstance(envelope.body, Ok):  # Ok unasked: a greeting
            self._answering.question(session, envelope, role)

    async def ask(self, peer: str, body: Body, *, timeout_s: float) -> Body:
        """As :meth:`RequestServer.ask`; an ``ErrorReply`` is raised as its exception."""
        session = self._sessions.get(peer)
        if session is None:
            raise DeadlineExceeded(f"{peer} has no session here")
        request_id, answer = self._pending.open(peer, timeout_s)
        try:
            if not self._gathering.send_alone(session, self._frame(request_id, timeout_s, body)):
                raise DeadlineExceeded(f"the session of {peer} is gone or full")
            reply = await answer
        finally:
            self._pending.forget(request_id)
        if isinstance(reply, ErrorReply):
            raise reply.exception()
        return reply

    async def survey(
        self, body: Body, *, timeout_s: float, among: Callable[[str], bool]
    ) -> dict[str, list[Body]]:
        """As :meth:`RequestServer.survey`."""
        asked = [
            (peer, Deferred.fromCoroutine(self._ask_session(session, peer, body, timeout_s)))
            for session, peer in list(self._all_sessions.items())
            if among(peer)
        ]
        found: dict[str, list[Body]] = {}
        for peer, answer in asked:
            reply = await answer
            if reply is not None:
                found.setdefault(peer, []).append(reply)
        return found

    async def _ask_session(
        self, session: bytes, peer: str, body: Body, timeout_s: float
    ) -> Body | None:
        """The answer over one session; None: there is none."""
        try:
            request_id, answer = self._pending.open(peer, timeout_s)
        except Unavailable:
            return None
        try:
            if not self._gathering.send_alone(session, self._frame(request_id, timeout_s, body)):
                self._forget(session)
                return None
            return await answer
        except Unavailable:
            return None
        finally:
            self._pending.forget(request_id)

    def tell(self, peer: str, body: Body) -> bool:
        """As :meth:`RequestServer.tell`."""
        session = self._sessions.get(peer)
        if session is None:
            return False
        return self._gathering.send_alone(session, self._frame(0, 0.0, body))

    def peers(self) -> list[str]:
        """Ids of the processes that have opened a session, perhaps gone since."""
        return list(self._sessions)

    def _frame(self, request_id: int, timeout_s: float, body: Body) -> bytes:
        if isinstance(body, STATE_CHANGING):
            raise LocalProtocolError(f"{type(body).__name__} is no question of a member")
        timeout_ms = max(1, int(timeout_s * 1000)) if request_id else 0
        return seal(
            Envelope(self._cluster_id, self._own_id, request_id, timeout_ms, "", body, True)
        )

    def _unsent(self, _: bytes, answers: Sequence[int]) -> None:
        self._answering.counts["unsent"] += len(answers)

    def _forget(self, session: bytes) -> None:
        self._all_sessions.pop(session, None)
        self._gathering.forget(session)

    def _learn(self, peer: str, session: bytes, bundles: bool) -> None:
        if session not in self._all_sessions:
            if len(self._all_sessions) >= MAX_SESSIONS:
                self._forget(next(iter(self._all_sessions)))
            self._all_sessions[session] = peer
            self._gathering.reads(session, bundles)
        if self._sessions.get(peer) == session:
            return
        self._sessions.pop(peer, None)
        if len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[peer] = session
