"""One life of a member: its clock, its reactor, its threads and its sockets, all simulated.

A process runs until it is killed; nothing that it began happens afterwards. While it is stopped
(SIGSTOP, a paused machine) time goes on and everything waits for it: messages in its sockets,
timers, what its threads did. When it goes on, sockets and timers take turns as the reactor pleases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from pbcluster.controlplane.raft_intervals import TICK_S
from pbcluster.raft import MemberId
from pbcluster.raft.messages import AnyMessage

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.world import World

#: Messages that wait for a stopped process; its socket takes no more.
MAX_INBOX = 200
#: What waits for the process: its kind, what is to be called, with what.
Due = tuple[str, Callable[..., Any], tuple[Any, ...]]


class Killed(BaseException):
    """The process ends in the middle of something. No handler of errors stops it."""


@implementer(IDelayedCall)
class SimCall:
    """A timer."""

    __slots__ = ("_active", "_arguments", "_function", "_time_s")

    def __init__(
        self, time_s: float, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self._time_s = time_s
        self._function = function
        self._arguments = arguments
        self._active = True

    def run(self) -> None:
        """Its time came."""
        if self._active:
            self._active = False
            self._function(*self._arguments)

    def active(self) -> bool:
        """As ``IDelayedCall``."""
        return self._active

    def cancel(self) -> None:
        """As ``IDelayedCall``."""
        self._active = False

    def getTime(self) -> float:
        """As ``IDelayedCall``."""
        return self._time_s

    def delay(self, secondsLater: float) -> None:
        """Not simulated."""
        raise NotImplementedError

    def reset(self, secondsFromNow: float) -> None:
        """Not simulated."""
        raise NotImplementedError


@implementer(IReactorTime, IReactorFromThreads)
class SimProcess:
    """See the module."""

    def __init__(self, world: World, member_id: MemberId, tick_length: int) -> None:
        """
        :param tick_length: the world's time that this clock takes for a tick of the driver.
        """
        self.world = world
        self.member_id = member_id
        self.alive = True
        self.paused = False
        #: Further messages that this life may still send; None: no end in sight.
        self.last_words: int | None = None
        self.received: Callable[[AnyMessage], None] | None = None
        self.lost: Callable[[MemberId], None] | None = None
        self._tick_length = tick_length
        self._late: list[Due] = []

    # -- the reactor ------------------------------------------------------------------------------

    def seconds(self) -> float:
        """As ``IReactorTime``: goes on while the process is stopped."""
        return self.world.now / self._tick_length * TICK_S

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> SimCall:
        """As ``IReactorTime``."""
        assert not kwargs
        call = SimCall(self.seconds() + delay, callable, args)
        # However short, a delay that is one lets time pass.
        wait = max(math.ceil(delay * self._tick_length / TICK_S - 1e-6), delay > 0)
        self.world.after(wait, self.in_turn, ("timer", call.run, ()))
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Not simulated."""
        raise NotImplementedError

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """As ``IReactorFromThreads``."""
        assert not kwargs
        if self.last_words is None:
            self.world.after(0, self.in_turn, ("thread", callable, args))
        else:
            callable(*args)

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Like ``deferToThreadPool``: the function runs somewhat later, and the answer comes
        somewhat after that."""
        answer: Deferred[Any] = Deferred()

        def work() -> None:
            try:
                result = function(*args)
            except Exception:
                result = Failure()
            wait = self.world.disk_random.randrange(4)
            self.world.after(wait, self.in_turn, ("thread", answer.callback, (result,)))

        wait = self.world.disk_random.randrange(5)
        self.world.after(wait, self.in_turn, ("thread", work, ()))
        return answer

    def in_turn(self, due: Due) -> None:
        """Call it now, or when the process goes on, or never if it is gone."""
        if not self.alive:
            return
        if self.paused:
            self._late.append(due)
        else:
            due[1](*due[2])

    # -- sockets ----------------------------------------------------------------------------------

    def receive(self, message: AnyMessage) -> None:
        """A message reached the socket."""
        if not self.paused or sum(due[0] == "socket" for due in self._late) < MAX_INBOX:
            self.in_turn(("socket", self._deliver, (message,)))

    def _deliver(self, message: AnyMessage) -> None:
        if self.received is not None:
            self.received(message)

    def ask(self, question: Callable[[], None]) -> None:
        """A client's question reached the socket."""
        self.in_turn(("socket", question, ()))

    def connection_lost(self, member: MemberId) -> None:
        """The connection to ``member`` ended."""
        if self.lost is not None:
            self.in_turn(("socket", self.lost, (member,)))

    # -- stopped, going on, killed ----------------------------------------------------------------

    def go_on(self) -> None:
        """After a pause: threads first or sockets first, and timers after or before them."""
        self.paused = False
        late, self._late = self._late, []
        sockets_first = self.world.disk_random.randrange(3) > 0
        order = ("socket", "thread", "timer") if sockets_first else ("thread", "timer", "socket")
        for kind in order:
            for due in late:
                if due[0] == kind:
                    self.in_turn(due)

    def kill(self) -> None:
        """It is gone."""
        self.alive = False
        self._late = []
        self.received = self.lost = None
