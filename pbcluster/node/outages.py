"""Whether S3 is away for this node, and the committing of degraded flags.

*Away* means that a small PUT of the node's own is not answered within 2 s, or is answered with a
server's error. S3 that answers and refuses (403) is not away: that is for an operator to
repair, and acknowledging on one disk would hide it. What a probe found counts for a
moment, so that a node full of tenants asks once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import PBClusterError, S3Unavailable, SessionExpired, Unavailable
from pbcluster.node.degrading import Answer
from pbcluster.node.interfaces import ClaimStore
from pbcluster.node.s3 import S3Refused
from pbcluster.transport.interfaces import ControlPlaneClient
from pbcluster.wire import Ok, SetDegraded, expect

log = Logger()

PROBE_TIMEOUT_S = 2.0
#: What a probe found counts for so long from its end.
FRESH_S = 1.0
#: The control plane commits within milliseconds, or elects a leader within half a second.
COMMIT_TIMEOUT_S = 3.0


class Outages(Protocol):
    """What tenants ask about outages."""

    def suspect(self) -> None:
        """S3 is slow: find out whether it is away, so that the answer is there when needed."""

    async def away(self) -> bool:
        """Whether S3 is away. Ends within ``PROBE_TIMEOUT_S``; raises nothing."""

    def when_back(self, callback: Callable[[], None]) -> None:
        """``callback()`` when S3 answers that was away."""

    def prolong(self, goes_on: bool) -> None:
        """Until it is called with False, S3 counts as away: Litestream cannot use it yet."""

    async def commit_flag(self, tenant_id: str, epoch: int, *, degraded: bool, key: str) -> Answer:
        """Have the control plane commit a degraded flag. Raises nothing.

        :param key: the idempotency key; the same one for a repetition.
        """


class NeverAway:
    """``Outages`` of a node without an outside, for tests."""

    def suspect(self) -> None:
        """See :class:`Outages`."""

    async def away(self) -> bool:
        """See :class:`Outages`."""
        return False

    def when_back(self, callback: Callable[[], None]) -> None:
        """See :class:`Outages`."""

    def prolong(self, goes_on: bool) -> None:
        """See :class:`Outages`."""

    async def commit_flag(self, tenant_id: str, epoch: int, *, degraded: bool, key: str) -> Answer:
        """See :class:`Outages`."""
        return Answer.REFUSED


class NodeOutages:
    """See the module."""

    def __init__(
        self,
        clock: IReactorTime,
        claims: ClaimStore,
        client: ControlPlaneClient,
        node_id: str,
        incarnation: Callable[[], int],
    ) -> None:
        """
        :param incarnation: this node's, 0 before it is registered.
        """
        self._clock = clock
        self._claims = claims
        self._client = client
        self._node_id = node_id
        self._incarnation = incarnation
        self._waiting: list[Deferred[bool]] = []
        self._asking = False
        #: A probe whose answer was given up: no second one is sent while it hangs in its thread.
        self._hanging = False
        self._found: tuple[float, bool] | None = None
        self._prolonged = False
        self._back: list[Callable[[], None]] = []

    # -- S3 --

    def when_back(self, callback: Callable[[], None]) -> None:
        """See :class:`Outages`."""
        self._back.append(callback)

    def prolong(self, goes_on: bool) -> None:
        """See :class:`Outages`."""
        self._prolonged = goes_on

    def suspect(self) -> None:
        """See :class:`Outages`."""
        if not self._asking:
            self._asking = True
            Deferred.fromCoroutine(self._ask()).addErrback(
                lambda failure: log.failure("the probe of S3 failed", failure)
            )

    async def away(self) -> bool:
        """See :class:`Outages`."""
        if self._prolonged:
            return True
        if self._found is not None and self._clock.seconds() - self._found[0] <= FRESH_S:
            return self._found[1]
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        self.suspect()
        return await waiting

    async def _ask(self) -> None:
        before = self._found is not None and self._found[1]
        away = await self._probe()
        self._found, self._asking = (self._clock.seconds(), away), False
        if away != before:
            log.warn("S3 {how}", how="is away" if away else "answers")
        if before and not away:
            for callback in self._back:
                callback()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(away)

    async def _probe(self) -> bool:
        if self._hanging:
            return True
        self._hanging = True
        asked: Deferred[Any] = Deferred.fromCoroutine(self._claims.probe(self._node_id))
        result: Deferred[bool] = Deferred()

        def over(outcome: Any) -> None:
            self._hanging = False
            if result.called:
                return
            failed = getattr(outcome, "value", None)
            refused = isinstance(failed, S3Refused)
            if failed is not None and not isinstance(failed, S3Unavailable):
                log.failure("the probe of S3 failed", outcome)
            result.callback(isinstance(failed, S3Unavailable) and not refused)

        asked.addBoth(over)
        result.addTimeout(PROBE_TIMEOUT_S, self._clock)
        try:
            return await result
        except DeferredTimeout:
            return True

    # -- the control plane --

    async def commit_flag(self, tenant_id: str, epoch: int, *, degraded: bool, key: str) -> Answer:
        """See :class:`Outages`."""
        wanted = SetDegraded(self._node_id, self._incarnation(), tenant_id, epoch, degraded)
        try:
            answer = await self._client.ask(wanted, timeout_s=COMMIT_TIMEOUT_S, idempotency_key=key)
            expect(answer, Ok)
        except SessionExpired:
            return Answer.REFUSED  # it was carried out once; the assignment tells what it came to
        except Unavailable as error:
            log.warn("{tenant}: flag not committed: {error}", tenant=tenant_id, error=error)
            return Answer.UNKNOWN
        except PBClusterError as error:
            log.warn("{tenant}: flag refused: {error}", tenant=tenant_id, error=error)
            return Answer.REFUSED
        return Answer.COMMITTED
