"""Whether a request may begin: limits of its address, of all requests, and of the gateway's load.

The one place that stands before every passage. Who is turned away gets 429 (its address is at a
limit) or 503 (the gateway is), with Retry-After, before anything else is done for it; requests
under way go on. Health and metrics have a listener of their own and never come here.

Who is turned away is counted by reason and has no line of its own in the access log: a flood would
fill the disk. Instead the log says at most once in :data:`TELL_S` how many there were, and each
change of the overload once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pbcluster import descriptors
from pbcluster.gateway.limits import AddressLimits
from pbcluster.gateway.pages import error_page
from pbcluster.gateway.shedding import Overload, Shedding
from pbcluster.rates import Refusal
from pbcluster.web.interfaces import Exchange

#: The loop's lateness, and the number of descriptors, are looked at so often.
WATCH_S = 0.1
#: Who was turned away is told of at most so often.
TELL_S = 60.0
#: Addresses shown to operators.
SHOWN = 50

_FULL = Refusal("requests", "too many requests are under way; come back soon", status=503)
_OVERLOADED = {
    Overload.LAG: Refusal("lag", "this gateway is overloaded; come back soon", status=503),
    Overload.DESCRIPTORS: Refusal(
        "descriptors", "this gateway has too many connections; come back soon", status=503
    ),
}
#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_NONE = Overload.NONE

log = Logger(__name__)


class Admission:
    """See the module.

    :ivar refused: requests and connections turned away since the start, by reason.
    """

    def __init__(
        self,
        *,
        limits: AddressLimits,
        shedding: Shedding,
        max_requests: int,
        clock: IReactorTime,
        new_id: Callable[[], str],
    ) -> None:
        """
        :param max_requests: under way at once, event streams included.
        :param new_id: a fresh request id.
        """
        self.refused: Counter[str] = Counter()
        self._limits = limits
        self._shedding = shedding
        self._max_requests = max_requests
        self._clock = clock
        self._new_id = new_id
        self._untold: Counter[str] = Counter()
        self._told_at: float | None = None

    # -- requests ---------------------------------------------------------------------------------

    def admit(self, exchange: Exchange, active: int, now: float) -> bool:
        """A request comes. True: it may begin, and :meth:`done` must follow; False: answered.

        :param active: requests under way. :param now: by the clock.
        """
        refusal: Refusal | None
        if self._shedding.state is not _NONE:
            refusal = _OVERLOADED[self._shedding.state]
        elif active >= self._max_requests:
            refusal = _FULL
        else:
            refusal = self._limits.admit(exchange.head.peer_host, now)
            if refusal is None:
                return True
        self._refuse(exchange, refusal)
        return False

    def done(self, peer_host: str) -> None:
        """A request that was admitted is over."""
        self._limits.done(peer_host)

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._count(refusal.reason)
        page = error_page(exchange.head, refusal.status, refusal.message, self._new_id())
        own = refusal.headers()
        names = {name for name, _ in own}
        exchange.respond(
            page.status,
            page.body,
            content_type=page.content_type,
            headers=[*(field for field in page.headers if field[0] not in names), *own],
            # What is short must be given back.
            close=self._shedding.state is Overload.DESCRIPTORS,
        )

    # -- connections ------------------------------------------------------------------------------

    def connected(self, host: str) -> bool:
        """A connection comes; False: close it. True: :meth:`disconnected` must follow."""
        if self._limits.connected(host, self._clock.seconds()):
            return True
        self._count("address_connections")
        return False

    def disconnected(self, host: str) -> None:
        """A connection that was let in is over."""
        self._limits.disconnected(host)

    # -- for operators ----------------------------------------------------------------------------

    def show(self) -> Mapping[str, Any]:
        """What is limited now, and who."""
        shedding, now = self._shedding, self._clock.seconds()
        return {
            "overload": shedding.state.value,
            "loopLag": round(shedding.lag_s, 4),
            "descriptorShare": round(shedding.share, 4),
            "refused": dict(self.refused),
            "addressesKnown": len(self._limits),
            "addresses": [attrs.asdict(row) for row in self._limits.show(SHOWN, now)],
        }

    def _count(self, reason: str) -> None:
        self.refused[reason] += 1
        self._untold[reason] += 1
        now = self._clock.seconds()
        if self._told_at is None or not 0 <= now - self._told_at < TELL_S:
            self._tell(now)

    def _tell(self, now: float) -> None:
        worst = self._limits.show(3, now)
        log.warn(
            "turned away since the last such line: {counts}; addresses with most refusals: {who}",
            counts=", ".join(f"{count} {reason}" for reason, count in self._untold.items()),
            who=", ".join(f"{row.address} ({row.refused})" for row in worst) or "none",
        )
        self._untold.clear()
        self._told_at = now


class LoadWatch:
    """Looks at the loop's lateness and the number of descriptors, each :data:`WATCH_S`."""

    def __init__(
        self,
        clock: IReactorTime,
        shedding: Shedding,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        in_use: Callable[[], int] = descriptors.in_use,
        limit: Callable[[], int] = descriptors.limit,
    ) -> None:
        """
        :param monotonic: seconds of a clock that does not jump, unlike the reactor's.
        :param in_use: descriptors open. :param limit: descriptors allowed.
        """
        self._clock = clock
        self._shedding = shedding
        self._monotonic = monotonic
        self._in_use = in_use
        self._limit = limit
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        self._due = self._monotonic() + WATCH_S
        self._call = self._clock.callLater(WATCH_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _look(self) -> None:
        before = self._shedding.state
        self._shedding.late(self._monotonic() - self._due)
        self._shedding.descriptors(self._in_use(), self._limit())
        if self._shedding.state is not before:
            self._tell()
        self.start()

    def _tell(self) -> None:
        shedding = self._shedding
        if shedding.state is _NONE:
            log.info("new requests are served again")
            return
        log.warn(
            "new requests are turned away ({why}): the loop is {lag:.0f} ms late, {share:.0%} of "
            "the descriptors are in use",
            why=shedding.state.value,
            lag=shedding.lag_s * 1000,
            share=shedding.share,
        )
