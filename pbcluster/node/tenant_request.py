"""One request in the hands of a tenant's PocketBase, from the hand-over to the end of its answer.

What holds:

* It is counted as open from :meth:`TenantRequest.forward` to its end, once, whatever happens.
* What comes back of a write is held until ``durability`` releases it; of a read too, if the tenant
  asks for durable reads and not all that it may show lasts.
* No request is repeated here but a safe one that met a dead pooled connection.

It opens no gate (``front`` does), and knows nothing of restores (``restore_request`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from pbcluster.errors import PBClusterError
from pbcluster.node.acks import Level, Withheld
from pbcluster.node.arrivals import Loading
from pbcluster.node.durability import Reason
from pbcluster.node.heads import SeenAnswer, marked, see_answer, upstream_lines
from pbcluster.node.quotas import Use
from pbcluster.node.refusals import NoAnswer, Refusals
from pbcluster.node.restoring import Restorer
from pbcluster.node.streams import Streams
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenant_replication import TenantReplication
from pbcluster.node.tenants import Tenants
from pbcluster.rates import Refusal
from pbcluster.web.interfaces import (
    Attempt,
    Exchange,
    Forward,
    Forwarding,
    Outcome,
    Refuse,
    ResponseHead,
)

#: PocketBase cuts a request after 5 minutes.
FIRST_BYTE_TIMEOUT_S = 310.0
CONNECT_TIMEOUT_S = 1.0
#: Withheld for these reasons, the client's connection is cut: what we say would not be ours.
_CUT = frozenset((Reason.OWNERSHIP_LOST, Reason.DATABASE_REPLACED))
#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_COMPLETED = Outcome.COMPLETED
_NO_RESPONSE = Outcome.NO_RESPONSE
_BROKEN = Outcome.BROKEN
_CLIENT_GONE = Outcome.CLIENT_GONE


class Door:
    """What all requests of a node share. Not to be changed.

    :ivar tenants: of this node. :ivar streams: their event streams.
    :ivar restorer: their restores of backups. :ivar refusals: answers the node's own errors.
    """

    def __init__(
        self, tenants: Tenants, streams: Streams, restorer: Restorer, refusals: Refusals
    ) -> None:
        self.tenants = tenants
        self.streams = streams
        self.restorer = restorer
        self.refusals = refusals


class TenantRequest(Forwarding):
    """See the module."""

    def __init__(
        self,
        door: Door,
        exchange: Exchange,
        tenant: Tenant,
        use: Use,
        request_id: str,
        write: bool,
    ) -> None:
        """
        :param use: what it uses of its tenant's quotas; ended with the request.
        :param request_id: 32 hex digits.
        """
        self._request_id = request_id
        self._door = door
        self._exchange = exchange
        self._tenant = tenant
        self._replication: TenantReplication = tenant.replication
        self._tenants: Tenants = door.tenants
        self._streams: Streams = door.streams
        self._use = use
        self._write = write
        self._again = write  # a write is never sent twice
        self._careful = tenant.assignment.durable_reads
        self._is_stream = self._endless = self._closed = False
        self._withheld: Withheld | None = None
        self._over: Refusal | None = None
        #: Names the write while PocketBase has it; 0: it has none.
        self._sent = 0

    def forward(self) -> None:
        """Hand it over; all gates are open at this moment."""
        self._tenants.uses.opened(self._tenant)
        try:
            self._send(True)
        except BaseException:
            self._ended()  # a bug of ours must not leave it counted
            raise

    def _send(self, reuse: bool) -> None:
        """:param reuse: whether a connection that idled may be used."""
        upstream = self._address()
        if upstream is None:
            self._use.untouched()
            self._ended()
            self._door.refusals.refuse(self._exchange, Loading("the tenant stopped"))
            return
        head = self._exchange.head
        lines = upstream_lines(head, self._request_id)
        host, port = upstream
        plan = Forward(
            host,
            port,
            head.method,
            head.target,
            lines,
            None,
            CONNECT_TIMEOUT_S,
            FIRST_BYTE_TIMEOUT_S,
        )
        plan.reuse = reuse
        if self._write:
            plan.on_end = self._last_chunk
            self._sent = self._replication.write_sent()
        elif self._careful:
            plan.on_data = self._part
        self._exchange.forward_for(plan, self)

    def _write_answered(self) -> None:
        if self._sent:
            self._replication.write_answered(self._sent)
            self._sent = 0

    def _address(self) -> tuple[str, int] | None:
        return self._tenant.upstream(self._write)

    def responded(self, head: ResponseHead) -> ResponseHead | Deferred[ResponseHead]:
        """See ``interfaces.Forwarding``."""
        self._write_answered()
        seen: SeenAnswer = head.memo or see_answer(head)
        clean = seen.passed
        if seen.stream:
            self._over = self._use.become_stream()
            if self._over is not None and not self._write:
                raise Refuse(self._over.message)
            self._is_stream = True
            self._tenants.uses.became_stream(self._tenant)
            self._streams.add(self._tenant, self._exchange)
        self._endless = seen.endless
        if not self._write:
            if not self._careful or self._replication.read_may_pass():
                return clean
            return Deferred.fromCoroutine(self._read_acknowledged(clean))
        level = self._replication.acknowledge_at_once()
        if level is not None:
            return marked(clean, level)
        return Deferred.fromCoroutine(self._acknowledged(clean))

    async def _acknowledged(self, head: ResponseHead) -> ResponseHead:
        level = await self._acknowledge(self._replication.acknowledge)
        return marked(head, level)

    async def _read_acknowledged(self, head: ResponseHead) -> ResponseHead:
        level = await self._acknowledge(self._replication.acknowledge_read)
        return marked(head, level) if level is Level.LOCAL else head

    def _part(self) -> Deferred[None] | None:
        """A part of what a read answers: an event, or a piece of a body that is made meanwhile."""
        if not self._endless or self._replication.read_may_pass():
            return None
        waiting = Deferred.fromCoroutine(self._acknowledge(self._replication.acknowledge_read))
        return waiting.addCallback(lambda _: None)

    def _last_chunk(self) -> Deferred[None] | None:
        # With a length the whole answer was made before its head was sent; streamed, it may tell of
        # what was written meanwhile.
        if not self._endless:
            return None
        waiting = Deferred.fromCoroutine(self._acknowledge(self._replication.acknowledge))
        return waiting.addCallback(lambda _: None)

    async def _acknowledge(self, wait: Callable[[], Coroutine[Any, Any, Level]]) -> Level:
        try:
            return await wait()
        except Withheld as error:
            self._withheld = error
            raise Refuse(str(error)) from None

    def forwarded(self, attempt: Attempt) -> None:
        """See ``interfaces.Forwarding``."""
        outcome, refusals = attempt.outcome, self._door.refusals
        dead_connection = outcome is _NO_RESPONSE and attempt.repeatable
        if dead_connection and not self._again and not self._exchange.client_gone:
            self._again = True
            self._send(False)
            return
        self._ended()
        if outcome in (_COMPLETED, _BROKEN, _CLIENT_GONE):
            return
        if outcome is Outcome.REFUSED and self._over is not None and not self._write:
            refusals.turn_away(self._exchange, self._over)
        elif outcome is Outcome.REFUSED:
            withheld = self._withheld or Withheld(Reason.STOPPED)
            if withheld.reason in _CUT:
                self._exchange.abort()
            else:
                refusals.refuse(self._exchange, withheld)
        elif outcome is Outcome.NOT_SENT:
            self._use.untouched()
            refusals.refuse(self._exchange, Loading("the tenant's PocketBase is not there"))
        elif outcome is Outcome.TIMEOUT:
            refusals.refuse(self._exchange, NoAnswer("PocketBase did not answer in time"))
        else:
            refusals.refuse(self._exchange, _BadAnswer("PocketBase broke off"))

    def _ended(self) -> None:
        self._write_answered()
        self._use.end()
        if self._is_stream:
            self._streams.remove(self._tenant, self._exchange)
        self._count_no_more()

    def _count_no_more(self) -> None:
        if not self._closed:
            self._closed = True
            self._tenants.uses.closed(self._tenant, self._is_stream)


class _BadAnswer(PBClusterError):
    """The tenant's PocketBase closed the connection without an answer."""

    status = 502
    code = "tenant_broke_off"
