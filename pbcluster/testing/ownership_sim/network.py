"""The ways between nodes and control plane: late, lost, doubled, cut in either direction."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pbcluster import wire
from pbcluster.errors import DeadlineExceeded, NotLeader, PBClusterError
from pbcluster.node.parts import pause, spawn
from pbcluster.testing.ownership_sim.clocks import ProcessClock
from pbcluster.transport.interfaces import Asked, Handler

LOSS = 0.02
DOUBLED = 0.01
#: A client that was told "not the leader" asks again after so long.
ASK_AGAIN_S = 0.1


class Network:
    """Carries questions and answers.

    :ivar cut_to: nodes whose messages do not reach the control plane. :ivar cut_from: nodes that
        its messages do not reach.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self.clock = clock
        self.cut_to: set[str] = set()
        self.cut_from: set[str] = set()
        self.random = random
        #: Node → the process that has its session, and what answers there.
        self._sessions: dict[str, tuple[ProcessClock, Handler]] = {}
        self._member: Handler | None = None

    def latency(self) -> float:
        """Seconds of one way."""
        usual: float = self.random.choice((0.001, 0.003, 0.01, 0.05, 0.2, 0.6))
        return usual * self.random.random()

    def _carry(self, lost: bool, what: Callable[[], None]) -> None:
        if not lost and self.random.random() >= LOSS:
            self.clock.callLater(self.latency(), what)

    def session(self, node_id: str, clock: ProcessClock, handler: Handler) -> None:
        """The process that the control plane reaches under this id now."""
        self._sessions[node_id] = (clock, handler)

    def member(self, handler: Handler) -> None:
        """Who answers for the control plane."""
        self._member = handler

    # -- node to control plane --

    def question(
        self,
        node_id: str,
        clock: ProcessClock,
        body: wire.Body,
        key: str,
        timeout_s: float,
        answered: Callable[[wire.Body], None],
    ) -> None:
        """One attempt to ask; ``answered`` is called at most once, or never."""

        def arrived() -> None:
            now = float(self.clock.seconds())
            asked = Asked(node_id, key, now + timeout_s, now)
            assert self._member is not None
            spawn(self._answer(self._member, asked, body, back), f"{type(body).__name__}")

        def back(reply: wire.Body) -> None:
            lost = node_id in self.cut_from
            self._carry(lost, lambda: clock.callLater(0, answered, reply))

        for _ in range(2 if self.random.random() < DOUBLED else 1):
            self._carry(node_id in self.cut_to, arrived)

    @staticmethod
    async def _answer(
        handler: Handler, asked: Asked, body: wire.Body, back: Callable[[wire.Body], None]
    ) -> None:
        try:
            back(await handler(asked, body))
        except PBClusterError as error:
            back(wire.ErrorReply.of(error))

    # -- control plane to node --

    def tell(self, node_id: str, body: wire.Body) -> bool:
        """``RequestServer.tell``."""
        self._to_node(node_id, body, lambda reply: None)
        return node_id in self._sessions

    async def ask(self, node_id: str, body: wire.Body, *, timeout_s: float) -> wire.Body:
        """``RequestServer.ask``."""
        waiting: Deferred[wire.Body] = Deferred()

        def answered(reply: wire.Body) -> None:
            if not waiting.called:
                waiting.callback(reply)

        def give_up() -> None:
            if not waiting.called:
                waiting.errback(DeadlineExceeded(f"{node_id} does not answer"))

        self.clock.callLater(timeout_s, give_up)
        self._to_node(
            node_id,
            body,
            lambda reply: self._carry(node_id in self.cut_to, lambda: answered(reply)),
        )
        return _checked(await waiting)

    def _to_node(self, node_id: str, body: wire.Body, back: Callable[[wire.Body], None]) -> None:
        def arrived() -> None:
            found = self._sessions.get(node_id)
            if found is not None:
                clock, handler = found
                asked = Asked("member_1", "", clock.seconds() + 1.0, clock.seconds())
                clock.callLater(0, lambda: spawn(self._answer(handler, asked, body, back), "told"))

        self._carry(node_id in self.cut_from, arrived)


def _checked(reply: wire.Body) -> wire.Body:
    if isinstance(reply, wire.ErrorReply):
        raise reply.exception()
    return reply


class SimControlPlaneClient:
    """``ControlPlaneClient`` of one process."""

    def __init__(self, network: Network, node_id: str, clock: ProcessClock) -> None:
        self._network = network
        self._node_id = node_id
        self._clock = clock
        self._numbers = itertools.count(1)

    def start(self, handler: Handler) -> None:
        """See ``ControlPlaneClient``."""
        self._network.session(self._node_id, self._clock, handler)

    def stop(self) -> None:
        """See ``ControlPlaneClient``."""

    async def ask(
        self,
        body: wire.Body,
        *,
        timeout_s: float,
        idempotency_key: str = "",
        any_member: bool = False,
    ) -> wire.Body:
        """See ``ControlPlaneClient``: who does not lead is asked again, under the same key."""
        until = self._clock.seconds() + timeout_s
        while True:
            try:
                return await self._attempt(body, idempotency_key, until - self._clock.seconds())
            except NotLeader:
                if self._clock.seconds() + ASK_AGAIN_S >= until:
                    raise
            await pause(self._clock, ASK_AGAIN_S)

    async def _attempt(self, body: wire.Body, key: str, timeout_s: float) -> wire.Body:
        waiting: Deferred[Any] = Deferred()

        def answered(reply: wire.Body) -> None:
            if not waiting.called:
                waiting.callback(reply)

        def give_up() -> None:
            if not waiting.called:
                waiting.errback(DeadlineExceeded("the control plane does not answer"))

        timer = self._clock.callLater(max(0.0, timeout_s), give_up)
        self._network.question(self._node_id, self._clock, body, key, timeout_s, answered)
        try:
            return _checked(await waiting)
        finally:
            if timer.active():
                timer.cancel()
