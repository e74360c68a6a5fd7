"""How a request ends at the gateway: answered by an error of ours, given up, or over.

What holds: a request ends once, and its record is handed over complete. Why it ends is for
``passage`` to say.
"""

from __future__ import annotations

from pbcluster.errors import PBClusterError, Unavailable
from pbcluster.gateway.breaker import Breaker
from pbcluster.gateway.forwarding import HSTS
from pbcluster.gateway.pages import error_page
from pbcluster.gateway.parts import Parts, Record
from pbcluster.web.interfaces import Exchange, Forwarding, Outcome, RequestHead
from pbcluster.wire import Route


class RequestEnd(Forwarding):
    """A request, as far as its end is concerned.

    :ivar record: filled in as the request goes on.

    What it has is set by the class below it: a call less for each request. ``_started`` is when it
    came, by the clock of the parts; ``_breaker`` that of the node that was to get it last.
    """

    record: Record
    _parts: Parts
    _exchange: Exchange
    _head: RequestHead
    _started: float
    _route: Route | None
    _breaker: Breaker | None
    _finished: bool

    def _refuse(self, error: PBClusterError) -> None:
        """Answer with an error."""
        if self._finished:
            return
        record = self.record
        if self._exchange.client_gone:
            self._finish_gone()
            return
        record.status, record.outcome = error.status, record.outcome or "answered"
        retry_after_s = error.retry_after_s if isinstance(error, Unavailable) else 0.0
        page = error_page(self._head, error.status, error.message, record.request_id, retry_after_s)
        headers = [*page.headers, (HSTS, self._hsts)] if self._hsts else page.headers
        self._exchange.respond(
            page.status, page.body, content_type=page.content_type, headers=headers
        )
        self._finish()

    @property
    def _hsts(self) -> bytes:
        return self._parts.hsts if self._head.secure else b""

    def _finish_gone(self) -> None:
        self.record.outcome = Outcome.CLIENT_GONE
        self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        parts = self._parts
        self.record.duration_s = parts.seconds() - self._started
        breaker: Breaker | None = self._breaker
        if breaker is not None:
            self.record.breaker = breaker.state
        parts.over(self.record)
