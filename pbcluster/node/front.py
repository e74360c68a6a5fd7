"""The node's front door: requests that a gateway signed, handed to the tenant's PocketBase.

A request goes through these gates, in this order; each refusal before the hand-over carries the
mark "not processed", so that the gateway may send it elsewhere whatever its method:

1. the gateway's signature, else 401;
2. it is for the tenant, not for the platform's own routes in PocketBase, else 404; the tenant is
   within its quotas (``quotas``, ``gates``), else 429 or 507: these go to the client, unmarked;
3. the tenant is assigned here, under the request's epoch or a newer one, and the Host is one of its
   names, else 421;
4. it is loaded: the request waits, its body unread, else 503;
5. a proof of ownership is held at the very moment of the hand-over, else 503.

What comes back of a write is held until ``durability`` releases it. Marks of the platform are
removed in both directions, so that neither a client nor a tenant's hook can speak in the node's
name. No request is repeated here but a safe one that met a dead pooled connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster import signing
from pbcluster.errors import (
    Busy,
    Limited,
    OwnershipLost,
    PBClusterError,
    StorageFull,
    Unauthorized,
    Unavailable,
)
from pbcluster.node.acks import Level, Withheld
from pbcluster.node.durability import Reason
from pbcluster.node.gates import Gates
from pbcluster.node.parts import spawn
from pbcluster.node.prover import NoProof
from pbcluster.node.quotas import Defaults, Quotas, Use
from pbcluster.node.restoring import Restore, Restorer
from pbcluster.node.streams import Streams
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenants import Loading, Tenants
from pbcluster.rates import Refusal
from pbcluster.web.headers import encode_lines, end_to_end
from pbcluster.web.interfaces import (
    Attempt,
    Exchange,
    Forward,
    Outcome,
    Refuse,
    RequestHead,
    ResponseHead,
)

log = Logger()

#: A request waits so long for its tenant to load.
HOLD_S = 30.0
#: Requests that wait on this node in all; of one tenant: ``quotas.MAX_HELD_PER_TENANT``.
MAX_HELD = 10_000
#: A tenant that comes and goes between two gates: more rounds would mean that it flaps.
MAX_ROUNDS = 5
SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))
#: PocketBase cuts a request after 5 minutes.
FIRST_BYTE_TIMEOUT_S = 310.0
#: Answers that end with their head (RFC 9112, section 6.3).
_BODILESS = frozenset((204, 304))
#: PocketBase's in-place restore, in every spelling that its router takes for it.
_RESTORE = re.compile(rb"/+api/+backups/+(.*)/restore/*", re.DOTALL)
#: Made anew: Host by us, the length by the core.
_OWN_FIELDS = frozenset((b"host", b"content-length"))
#: Withheld for these reasons, the client's connection is cut: what we say would not be ours.
_CUT = frozenset((Reason.OWNERSHIP_LOST, Reason.DATABASE_REPLACED))


class Front:
    """See the module; :meth:`handle` is the ``RequestHandler``.

    :ivar starting: the node does not know yet what it owns: nothing is taken.
    :ivar draining: the node ends: nothing new is taken.
    :ivar tenants: of this node. :ivar streams: their event streams.
    """

    def __init__(
        self,
        *,
        tenants: Tenants,
        streams: Streams,
        gateway_keys: Mapping[str, bytes],
        clock: IReactorTime,
        unix_ms: Callable[[], int],
        answered: Callable[[int], None],
        hold_s: float = HOLD_S,
        quotas: Quotas | None = None,
        limited: Callable[[str], None] = lambda reason: None,
        gates: Gates | None = None,
    ) -> None:
        """
        :param gateway_keys: gateway id → HMAC key. :param unix_ms: wall clock.
        :param answered: counts the statuses that this node itself answered.
        :param quotas: what tenants may use; None: as much as they like.
        :param limited: counts requests refused because of a tenant's limit, by reason.
        :param gates: what else a request must pass.
        """
        self.starting = True
        self.draining = False
        self.tenants = tenants
        self.streams = streams
        self.restorer = Restorer(tenants.parts, tenants)
        self._keys = gateway_keys
        self._clock = clock
        self._unix_ms = unix_ms
        self._answered = answered
        self._hold_s = hold_s
        self._quotas = quotas if quotas is not None else Quotas(Defaults())
        self._limited = limited
        self._gates = gates if gates is not None else Gates()
        self._held = 0

    def handle(self, exchange: Exchange) -> None:
        """Take a request."""
        head = exchange.head
        try:
            seen = _seen(head)
            value = head.first or seen.signed
            if head.first and seen.signed:
                raise Unauthorized("a gateway's signature stands twice")
            if not value and head.target == b"/healthz":
                exchange.respond(200, b'{"status":"ok"}')
                return
            signed = signing.verify(self._keys, head.method, head.target, value, self._unix_ms())
        except Unauthorized as error:
            self.refuse(exchange, error)
            return
        write = head.method not in SAFE_METHODS
        known = self.tenants.find(signed.tenant_id)
        closed = self._gates.refusal(known, head, write=write)
        if closed is not None:
            self.refuse(exchange, closed)
            return
        quotas = known.assignment.quotas if known is not None else None
        use = self._quotas.enter(signed.tenant_id, quotas, self._clock.seconds())
        if isinstance(use, Refusal):
            self.turn_away(exchange, use)
        elif known is not None and self._open(known, head, signed, write=write):
            self.tenants.cache.asked(signed.tenant_id)
            self._hand_over(exchange, known, signed, use, write=write)
        else:
            serving = self._serve(exchange, signed, use, write=write)
            spawn(serving, f"a request for {signed.tenant_id}")

    def _open(
        self, tenant: Tenant, head: RequestHead, signed: signing.Signed, *, write: bool
    ) -> bool:
        """Whether all further gates are open at this moment: nothing has to be waited for."""
        return (
            not (self.draining or self.starting)
            and tenant.epoch >= signed.epoch
            and tenant.upstream(write=write) is not None
            and tenant.proven()
            and head.host.decode("latin-1") in tenant.assignment.hosts
        )

    def _hand_over(
        self, exchange: Exchange, tenant: Tenant, signed: signing.Signed, use: Use, *, write: bool
    ) -> None:
        restores = write and _restores_a_backup(exchange.head) is not None
        kind = _RestoreHandover if restores else _Handover
        kind(self, exchange, tenant, use, request_id=signed.request_id, write=write).forward()

    def refuse(self, exchange: Exchange, error: PBClusterError) -> None:
        """Answer an error, with the mark if nothing was processed."""
        if exchange.client_gone:
            return
        self._answered(error.status)
        headers: list[tuple[bytes, bytes]] = []
        mark = _mark_of(error)
        if self.draining and mark:
            mark = b"draining"
        if mark:
            headers.append((signing.NOT_PROCESSED, mark))
        if mark == b"moved":
            headers.append((signing.NODE_EPOCH, b"%d" % int(error.data.get("epoch", 0))))
        if isinstance(error, Unavailable) and error.status == 503:
            headers.append((b"Retry-After", b"%d" % max(1, round(error.retry_after_s))))
        more = error.data if isinstance(error, StorageFull) else {}
        data = {"code": error.code, **more}
        body = {"status": error.status, "message": error.message, "data": data}
        exchange.respond(error.status, json.dumps(body).encode(), headers=headers)

    def turn_away(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer a request over a tenant's limit. No mark: this is for the client, and no trouble
        of the node."""
        if exchange.client_gone:
            return
        self._answered(refusal.status)
        self._limited(refusal.reason)
        data = {"code": Limited.code if refusal.status == Limited.status else Busy.code}
        body = {"status": refusal.status, "message": refusal.message, "data": data}
        exchange.respond(refusal.status, json.dumps(body).encode(), headers=refusal.headers())

    async def _serve(
        self, exchange: Exchange, signed: signing.Signed, use: Use, *, write: bool
    ) -> None:
        handed_over = False
        try:
            admitted = Deferred.fromCoroutine(self._admit(exchange.head, signed, write=write))
            tenant = await (admitted if admitted.called else self._wait(exchange, admitted, use))
            # Nothing may wait between the last gate and the hand-over.
            if tenant is not None and not exchange.client_gone:
                self._hand_over(exchange, tenant, signed, use, write=write)
                handed_over = True
        except CancelledError:
            return
        except PBClusterError as error:
            if _mark_of(error):
                use.untouched()
            self.refuse(exchange, error)
        finally:
            if not handed_over:
                use.end()

    async def _wait(
        self, exchange: Exchange, admitted: Deferred[Tenant], use: Use
    ) -> Tenant | None:
        """Wait for all gates; None: too many wait, and the request was answered."""
        crowded = use.begin_waiting()
        if crowded is not None or self._held >= MAX_HELD:
            # Only its waiting ends: the load goes on, for whoever comes next.
            admitted.addErrback(lambda failure: failure.trap(CancelledError, PBClusterError))
            admitted.cancel()
            if crowded is None:
                raise Busy(f"{MAX_HELD} requests wait on this node")
            self.turn_away(exchange, crowded)
            return None
        self._held += 1
        try:
            # Who is gone takes no other's place; only its waiting ends, never a load.
            exchange.when_gone(admitted.cancel)
            return await admitted
        finally:
            self._held -= 1
            use.end_waiting()

    async def _admit(self, head: RequestHead, signed: signing.Signed, *, write: bool) -> Tenant:
        """All gates; when it returns, each is open at this moment."""
        if self.draining:
            raise Loading("this node is being stopped")
        if self.starting:
            raise Loading("this node is starting")
        deadline = self._clock.seconds() + self._hold_s
        self.tenants.cache.asked(signed.tenant_id)
        for _ in range(MAX_ROUNDS):
            tenant = await self.tenants.assigned(signed.tenant_id, signed.epoch)
            if head.host.decode("latin-1") not in tenant.assignment.hosts:
                raise OwnershipLost("this host name is not the tenant's", epoch=tenant.epoch)
            tenant = await self.tenants.ready(signed.tenant_id, write=write, deadline=deadline)
            if tenant.proven():
                return tenant
            await tenant.prove()
            if tenant.upstream(write=write) is not None and tenant.proven():
                return tenant
        raise Loading("the tenant comes and goes")


#: Error → mark; the first that fits counts. ``Withheld`` was processed, so it has none.
_MARKS: tuple[tuple[type[PBClusterError], bytes], ...] = (
    (Unauthorized, b"unsigned"),
    (OwnershipLost, b"moved"),
    (NoProof, b"no-proof"),
    (Busy, b"busy"),
    (Withheld, b""),
    (Unavailable, b"loading"),
)


def _restores_a_backup(head: RequestHead) -> str | None:
    """The name of the backup by which PocketBase would replace its database in place, under the
    replication: it would say that it did, and everything since would never become durable. None:
    this is another request."""
    path = unquote_to_bytes(head.target.partition(b"?")[0])
    found = _RESTORE.fullmatch(path) if head.method == b"POST" else None
    return None if found is None else found[1].decode("utf-8", "replace")


def _mark_of(error: PBClusterError) -> bytes:
    """The reason of the mark "not processed", empty: no mark."""
    return next((mark for kind, mark in _MARKS if isinstance(error, kind)), b"")


class _Handover:
    """One request in PocketBase's hands; what holds at the start of each stands in the class."""

    _is_stream = False
    _endless = False
    _closed = False
    _withheld: Withheld | None = None
    _over: Refusal | None = None

    def __init__(
        self,
        front: Front,
        exchange: Exchange,
        tenant: Tenant,
        use: Use,
        *,
        request_id: str,
        write: bool,
    ) -> None:
        self._request_id = request_id
        self._front = front
        self._exchange = exchange
        self._tenant = tenant
        self._replication = tenant.replication
        self._tenants = front.tenants
        self._streams = front.streams
        self._use = use
        self._write = write
        self._again = write  # a write is never sent twice
        self._careful = tenant.assignment.durable_reads

    def forward(self) -> None:
        self._tenants.opened(self._tenant)
        try:
            self._send(reuse=True)
        except BaseException:
            self._ended()  # a bug of ours must not leave it counted
            raise

    def _send(self, *, reuse: bool) -> None:
        upstream = self._address()
        if upstream is None:
            self._use.untouched()
            self._ended()
            self._front.refuse(self._exchange, Loading("the tenant stopped"))
            return
        head = self._exchange.head
        plan = Forward(
            upstream[0],
            upstream[1],
            head.method,
            head.target,
            lines=upstream_lines(head, self._request_id),
            first_byte_timeout_s=FIRST_BYTE_TIMEOUT_S,
            on_response=self._responded,
            on_end=self._last_chunk if self._write else None,
            on_data=self._part if not self._write and self._careful else None,
            reuse=reuse,
        )
        self._exchange.forward(plan, self._done)

    def _address(self) -> tuple[str, int] | None:
        return self._tenant.upstream(write=self._write)

    def _responded(self, head: ResponseHead) -> ResponseHead | Deferred[ResponseHead]:
        clean, is_stream = head.memo or _see_answer(head)
        if is_stream:
            self._over = self._use.become_stream()
            if self._over is not None and not self._write:
                raise Refuse(self._over.message)
            self._is_stream = True
            self._tenants.became_stream(self._tenant)
            self._streams.add(self._tenant, self._exchange)
        self._endless = head.get(b"content-length") is None and head.status not in _BODILESS
        if not self._write:
            if not self._careful or self._replication.read_may_pass():
                return clean
            return Deferred.fromCoroutine(self._read_acknowledged(clean))
        return Deferred.fromCoroutine(self._acknowledged(clean))

    async def _acknowledged(self, head: ResponseHead) -> ResponseHead:
        level = await self._acknowledge(self._replication.acknowledge)
        return _marked(head, level)

    async def _read_acknowledged(self, head: ResponseHead) -> ResponseHead:
        level = await self._acknowledge(self._replication.acknowledge_read)
        return _marked(head, level) if level is Level.LOCAL else head

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

    def _done(self, attempt: Attempt) -> None:
        outcome = attempt.outcome
        dead_connection = outcome is Outcome.NO_RESPONSE and attempt.repeatable
        if dead_connection and not self._again and not self._exchange.client_gone:
            self._again = True
            self._send(reuse=False)
            return
        self._ended()
        if outcome in (Outcome.COMPLETED, Outcome.BROKEN, Outcome.CLIENT_GONE):
            return
        if outcome is Outcome.REFUSED and self._over is not None and not self._write:
            self._front.turn_away(self._exchange, self._over)
        elif outcome is Outcome.REFUSED:
            withheld = self._withheld or Withheld(Reason.STOPPED)
            if withheld.reason in _CUT:
                self._exchange.abort()
            else:
                self._front.refuse(self._exchange, withheld)
        elif outcome is Outcome.NOT_SENT:
            self._use.untouched()
            self._front.refuse(self._exchange, Loading("the tenant's PocketBase is not there"))
        elif outcome is Outcome.TIMEOUT:
            self._front.refuse(self._exchange, _NoAnswer("PocketBase did not answer in time"))
        else:
            self._front.refuse(self._exchange, _BadAnswer("PocketBase broke off"))

    def _ended(self) -> None:
        self._use.end()
        if self._is_stream:
            self._streams.remove(self._tenant, self._exchange)
        self._count_no_more()

    def _count_no_more(self) -> None:
        if not self._closed:
            self._closed = True
            self._tenants.closed(self._tenant, stream=self._is_stream)


class _RestoreHandover(_Handover):
    """PocketBase is asked to restore a backup; see ``restoring``."""

    _restore: Restore | None = None
    _failed: PBClusterError | None = None

    def forward(self) -> None:
        spawn(self._begin(), f"restore of a backup of {self._tenant.tenant_id}")

    async def _begin(self) -> None:
        token = self._exchange.head.get(b"authorization") or b""
        if not await self._tenant.process.knows(token):
            super().forward()  # PocketBase says why not
            return
        try:
            self._restore = await self._front.restorer.begin(
                self._tenant, _restores_a_backup(self._exchange.head) or ""
            )
        except PBClusterError as error:
            self._use.end()
            self._front.refuse(self._exchange, error)
            return
        self._tenants.opened(self._tenant)
        self._send(reuse=False)
        if self._closed and self._restore is not None:  # PocketBase was gone: it was not asked
            await self._restore.abandon()

    def _address(self) -> tuple[str, int] | None:
        return self._restore.upstream if self._restore is not None else super()._address()

    def _responded(self, head: ResponseHead) -> ResponseHead | Deferred[ResponseHead]:
        restore = self._restore
        if restore is None:
            return super()._responded(head)
        clean, _ = head.memo or _see_answer(head)
        if not 200 <= head.status < 300:
            return clean  # PocketBase refused: ``_done`` lets the tenant go on
        self._restore = None
        # It is no open request any more: the epoch that ends would wait for it.
        self._count_no_more()
        return Deferred.fromCoroutine(self._finish(restore, clean))

    async def _finish(self, restore: Restore, head: ResponseHead) -> ResponseHead:
        try:
            await restore.finish()
        except PBClusterError as error:
            self._failed = error
            raise Refuse(str(error)) from None
        return _marked(head, Level.S3)

    def _done(self, attempt: Attempt) -> None:
        if self._restore is not None:
            spawn(self._restore.abandon(), f"end of a restore of {self._tenant.tenant_id}")
            self._restore = None
        if self._failed is None:
            super()._done(attempt)
        else:
            self._ended()
            self._front.refuse(self._exchange, self._failed)


class _NoAnswer(PBClusterError):
    """The tenant's PocketBase took too long: its fault, not the node's."""

    status = 504
    code = "tenant_timeout"


class _BadAnswer(PBClusterError):
    """The tenant's PocketBase closed the connection without an answer."""

    status = 502
    code = "tenant_broke_off"


class _Seen(NamedTuple):
    """What was read from a request's fields; requests with the same lines share it.

    :ivar lines: for PocketBase: the Host that came, no marks, nothing of the connection.
    """

    lines: bytes
    traced: bool
    signed: bytes


def _seen(head: RequestHead) -> _Seen:
    """What is to be known of its fields.

    :raises Unauthorized: it is signed twice.
    """
    memo = head.memo
    if memo is not None and memo.value is not None:
        known: _Seen = memo.value
        return known
    fields = end_to_end(signing.without_marks(head.headers), _OWN_FIELDS)
    fields.insert(0, (b"Host", head.get(b"host") or head.host))
    traced = head.get(b"traceparent") is not None
    seen = _Seen(encode_lines(fields), traced, signing.found_in(head.headers))
    if memo is not None:
        memo.value = seen
    return seen


def upstream_lines(head: RequestHead, request_id: str) -> bytes:
    """The field lines for PocketBase.

    :param request_id: 32 hex digits; of a trace that began here, its id.
    """
    seen, number = _seen(head), request_id.encode()
    if seen.traced:
        return b"%bX-Request-ID: %b\r\n" % (seen.lines, number)
    trace = (seen.lines, number, number, number[:16])
    return b"%bX-Request-ID: %b\r\ntraceparent: 00-%b-%b-00\r\n" % trace


def _marked(head: ResponseHead, level: Level) -> ResponseHead:
    """The head with the word on how durable the write is."""
    mark = (signing.DURABILITY, level.value.encode())
    return ResponseHead(head.status, head.reason, [*head.headers, mark])


def _see_answer(head: ResponseHead) -> tuple[ResponseHead, bool]:
    """PocketBase's head without marks, and whether it begins an event stream; remembered."""
    content_type = head.get(b"content-type") or b""
    head.memo = (
        ResponseHead(head.status, head.reason, signing.without_marks(head.headers)),
        content_type.lower().startswith(b"text/event-stream"),
    )
    answer: tuple[ResponseHead, bool] = head.memo
    return answer
