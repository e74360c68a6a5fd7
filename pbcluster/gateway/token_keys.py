"""Asks the control plane by which keys platform tokens are verified.

At the start, after each broadcast or gap until the answer is as new as that, and when a token names
an unknown key. One question is under way at a time, and questions for unknown keys are at least
:data:`UNKNOWN_EVERY_S` apart: a flood of made-up keys is no flood of questions. Who brings such a
token waits for the next answer. While nobody answers, the keys that are known stay.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import Busy, PBClusterError, Unavailable
from pbcluster.gateway.tokens import Tokens, UnknownKey
from pbcluster.transport.interfaces import ControlPlaneClient
from pbcluster.wire import ListTokenKeys, TokenKeys, expect

TIMEOUT_S = 3.0
#: After no answer, or one that is too old.
AGAIN_S = 0.5
UNKNOWN_EVERY_S = 1.0
#: Requests that wait for a key; more are refused: only made-up keys are that many.
MAX_WAITING = 1_000

log = Logger()


class TokenKeyQuestions:
    """See the module.

    :ivar asked: questions sent.
    """

    def __init__(self, clock: IReactorTime, client: ControlPlaneClient, tokens: Tokens) -> None:
        self.asked = 0
        self._clock = clock
        self._client = client
        self._tokens = tokens
        #: The answer must be as of this log index.
        self._wanted = 0
        self._waiting: list[Deferred[None]] = []
        self._not_before = float("-inf")
        self._loop: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None

    def start(self) -> None:
        """Ask for the first time."""
        self._go_on()

    def stop(self) -> None:
        """Ask no more; who waits is told so."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
        self._tell(Unavailable("this gateway is being stopped"))

    def changed(self, index: int) -> None:
        """The keys changed at this log index, or may have."""
        if index > self._wanted:
            self._wanted = index
            pause, self._pause = self._pause, None
            if pause is not None:
                pause.callback(None)
            self._go_on()

    async def learn(self, kid: str) -> None:
        """Wait until a key is known.

        :raises UnknownKey: there is none.
        :raises Unavailable: nobody can say, or too many ask.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Busy("too many requests bear tokens of unknown keys")
        waiting: Deferred[None] = Deferred(self._given_up)
        self._waiting.append(waiting)
        self._go_on()
        await waiting
        if not self._tokens.knows(kid):
            raise UnknownKey(kid)

    def _given_up(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    # -- asking -----------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self._loop is None:
            loop = self._loop = Deferred.fromCoroutine(self._ask_on())
            loop.addBoth(self._ended)

    def _ended(self, failure: object) -> None:
        self._loop = None
        if failure is not None and not isinstance(getattr(failure, "value", None), CancelledError):
            log.failure("asking for the keys of tokens failed", failure)  # type: ignore[arg-type]
            self._tell(Unavailable("the keys of platform tokens cannot be had"))

    async def _ask_on(self) -> None:
        # From outside, so that _loop is set before this ends.
        await self._sleep(0.0)
        while self._is_behind() or self._waiting:
            if not self._is_behind():
                await self._sleep(self._not_before - self._clock.seconds())
            await self._ask()
            if self._is_behind():
                await self._sleep(AGAIN_S)

    def _is_behind(self) -> bool:
        return self._tokens.index < self._wanted

    async def _ask(self) -> None:
        # Only these: who comes while the question is under way may know of a newer key.
        waiting, self._waiting = self._waiting, []
        newest = bool(waiting)
        self.asked += 1
        error: PBClusterError | None = None
        try:
            answer = await self._client.ask(
                ListTokenKeys(newest), timeout_s=TIMEOUT_S, any_member=not newest
            )
            self._tokens.learn(expect(answer, TokenKeys))
        except PBClusterError as refused:
            log.info("no keys of platform tokens: {error}", error=refused.message)
            error = Unavailable("whether the bearer token is valid cannot be told now")
        finally:
            self._not_before = self._clock.seconds() + UNKNOWN_EVERY_S
            self._tell(error, waiting)

    def _tell(
        self, error: PBClusterError | None, waiting: list[Deferred[None]] | None = None
    ) -> None:
        if waiting is None:
            waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.called:
                continue
            if error is None:
                each.callback(None)
            else:
                each.errback(error)

    async def _sleep(self, seconds: float) -> None:
        """Wait, but no longer than until a broadcast asks for haste."""
        pause: Deferred[None] = Deferred()
        timer = self._clock.callLater(max(0.0, seconds), pause.callback, None)
        self._pause = pause
        try:
            await pause
        finally:
            self._pause = None
            if timer.active():
                timer.cancel()
