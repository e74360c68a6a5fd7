"""One request on its way through the gateway, from its head to its end.

tenant → route → leave of the node's breaker → signed and forwarded. If all of that is at hand (the
usual case) nothing waits and no coroutine is made. Otherwise the request is *held*, its body
unread: the control plane is asked, pauses are made, attempts repeated as ``retries`` allows, until
an answer begins, the client goes, or ``hold_s`` is over.

What an attempt says of its node stands in ``breaker_words``, how a request ends in ``request_end``.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.errors import Busy, NotFound, PBClusterError, TooLarge, Unavailable
from pbcluster.gateway import retries
from pbcluster.gateway.breaker import Breaker, Ticket
from pbcluster.gateway.breaker_words import (
    reason_of,
    tell_of_failure,
    tell_of_mark,
    tell_of_tenant,
)
from pbcluster.gateway.forwarding import epoch_of, mark_of, seen_of, to_client
from pbcluster.gateway.parts import Parts, Record
from pbcluster.gateway.request_end import RequestEnd
from pbcluster.gateway.retries import Verdict
from pbcluster.gateway.rewriting import rewritten_lines
from pbcluster.gateway.tenant_breakers import FREE
from pbcluster.gateway.tenant_id import UNKNOWN_HOST, Found, TenantKey, objection
from pbcluster.gateway.tokens import UnknownKey
from pbcluster.web.interfaces import Attempt, Exchange, Forward, Outcome, Refuse, ResponseHead
from pbcluster.wire import Route

#: PocketBase cuts a request after 5 minutes; the node, which waits as long, answers first.
FIRST_BYTE_TIMEOUT_S = 315.0
CONNECT_TIMEOUT_S = 1.0
#: Methods of which one may find out whether a node answers again.
_PROBES = frozenset((b"GET", b"HEAD"))
_NOTHING = Found(TenantKey("name", ""))
_UNAVAILABLE = Unavailable("the tenant is not available")
#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_COMPLETED = Outcome.COMPLETED
#: The hash of an enum's member, by which it is counted, is a call as well.
_COMPLETED_TEXT = Outcome.COMPLETED.value

log = Logger(__name__)


class Passage(RequestEnd):
    """See the module."""

    def __init__(self, parts: Parts, exchange: Exchange, now: float) -> None:
        """
        :param now: when the request came, by the clock of ``parts``.
        """
        self._parts = parts
        self._exchange = exchange
        self._head = head = self._exchange.head
        self.record = Record(self._parts.new_id(), head)
        self._started = now
        self._route = None
        self._breaker = None
        self._finished = False
        self._found = _NOTHING
        self._key = _NOTHING.key
        self._ticket: Ticket | None = None
        self._tenant_ticket = FREE
        self._why: PBClusterError = _UNAVAILABLE
        #: Ask the control plane before the next attempt.
        self._fresh = False
        #: The life of a node, and the epoch, with which the last attempt failed.
        self._failed_on: tuple[str, int, int] | None = None
        self._marked = self._budgeted = self._limited = False
        self._repeats = self._pauses = 0

    @property
    def _deadline(self) -> float:
        return self._started + self._parts.hold_s

    def begin(self) -> None:
        """Take the request on its way."""
        parts = self._parts
        try:
            found = parts.tenants.find(self._head)
        except UnknownKey as unknown:
            self._wait(self._learn(unknown.kid))
            return
        except PBClusterError as error:
            self._refuse(error)
            return
        if found is None:
            self._refuse(NotFound(UNKNOWN_HOST))
            return
        self._found, self._key = found, found.key
        self._go()

    async def _learn(self, kid: str) -> None:
        """Wait for the key by which the request's token is signed, then begin again."""
        try:
            await self._parts.token_keys.learn(kid)
        except CancelledError:
            self._finish_gone()
        except PBClusterError as error:
            self._refuse(error)
        else:
            self.begin()

    def _go(self) -> None:
        parts, key = self._parts, self._key
        route = parts.lookups.cached(key, self._started)
        if route is None:
            if parts.routes.is_absent(key, self._started):
                if self._otherwise():
                    self._go()
                else:
                    archived = parts.routes.archived(key)
                    self._refuse(archived or NotFound(self._found.unknown))
                return
        else:
            self.record.source = "cache"
            held = parts.moving and parts.moving.is_held(route, self._started)
            if not held and self._dispatch(route):
                return
            self._fresh = True
        self._hold()

    def _otherwise(self) -> bool:
        """No tenant has the key: go on with what else names one; False: nothing does."""
        found = self._found.otherwise()
        if found is None:
            return False
        self._found, self._key = found, found.key
        self._fresh = False
        return True

    # -- attempts ---------------------------------------------------------------------------------

    def _dispatch(self, route: Route) -> bool:
        """Send the request to ``route``, or answer it; False: not now."""
        parts, exchange, head = self._parts, self._exchange, self._head
        self._route = route
        record = self.record
        tenant_id = route.tenant_id
        record.tenant, record.node = tenant_id, route.node_id
        found: Found = self._found
        foreign = bool(route.hosts) and head.host.decode("latin-1") not in route.hosts
        if foreign or found.others:
            error = objection(found, route)
            if error is not None:
                self._refuse(error)
                return True
        if route.max_body_bytes and not self._limited and not self._within_quota(route):
            return True
        try:
            host, port, identity = parts.forwarder.place(route)
        except Unavailable as error:
            self._why = error
            return False
        if self._failed_on is not None and not self._take_budget(route):
            self._why = Busy("too many requests are being repeated")
            return False
        # A first attempt is made in the moment in which the request came.
        now = parts.seconds() if record.attempts else self._started
        method = head.method
        if not self._may_go(route, now, method in _PROBES):
            self._return_budget()
            return False
        record.attempts += 1
        parts.flights.began(tenant_id, self)
        lines = parts.forwarder.lines(head, route, record.request_id, parts.unix_ms())
        if foreign or found.token:
            lines = rewritten_lines(
                lines, host=route.hosts[0] if foreign else "", token=found.token
            )
        plan = Forward(
            host,
            port,
            method,
            head.target,
            lines,
            None,
            CONNECT_TIMEOUT_S,
            FIRST_BYTE_TIMEOUT_S,
        )
        if identity:
            plan.identity = identity
        exchange.forward_for(plan, self)
        return True

    def _may_go(self, route: Route, now: float, safe: bool) -> bool:
        """Take leave of both breakers, the tenant's and the node's."""
        parts = self._parts
        tenants = parts.tenant_breakers
        if tenants.known:
            leave = tenants.admit(route.tenant_id, now, safe=safe)
            if leave is None:
                self._why = Unavailable("the tenant does not answer")
                return False
            self._tenant_ticket = leave
        breaker: Breaker = parts.nodes.breaker(route, now)
        self._breaker = breaker
        self._ticket = breaker.admit(now, safe)
        if self._ticket is not None:
            return True
        self._say_of_tenant(route, now, late=None)
        self._why = Unavailable("the tenant's node does not answer")
        return False

    def _say_of_tenant(self, route: Route, now: float, *, late: bool | None) -> None:
        tenants = self._parts.tenant_breakers
        if late or tenants.known:
            tell_of_tenant(tenants, route.tenant_id, self._tenant_ticket, now, late=late)
        self._tenant_ticket = FREE

    def _take_budget(self, route: Route) -> bool:
        """Whether the next attempt may be made, if it goes toward what just failed."""
        if self._failed_on == _life(route) and not self._marked:
            self._budgeted = self._parts.budget.take(self._parts.active())
            return self._budgeted
        return True

    def _within_quota(self, route: Route) -> bool:
        """Apply the tenant's own bound of the body's size; False: it was answered 413."""
        limit = route.max_body_bytes
        if not self._head.has_body():
            return True
        self._limited = True
        if (self._head.content_length or 0) > limit:
            self._refuse(TooLarge(f"the request body is larger than {limit} bytes"))
            return False
        if self._exchange.limit_body(limit):
            return True
        self.record.status, self.record.outcome = 413, "answered"
        self._finish()
        return False

    def responded(self, head: ResponseHead) -> ResponseHead:
        """The answer's head came: pass it on, or refuse it when the request may go on."""
        parts, ticket, record = self._parts, self._ticket, self.record
        route = self._route
        breaker: Breaker | None = self._breaker
        assert route is not None
        assert ticket is not None
        assert breaker is not None
        self._ticket = None
        self._return_budget()
        now = parts.seconds()
        seen = seen_of(head)
        mark = seen.mark
        if mark is None:
            change = breaker.succeeded(ticket, now)
            if change is not None:
                parts.nodes.changed(route, change)
        else:
            tell_of_mark(parts.nodes, route, ticket, mark)
        if seen.late or parts.tenant_breakers.known:
            self._say_of_tenant(route, now, late=seen.late if mark is None else None)
        # At the end of its time a request gets the node's own reason, if that is one for clients.
        if mark is not None and (now < self._deadline or head.status != 503):
            raise Refuse(mark.decode("latin-1"))
        record.first_byte_s = now - self._started
        record.stream = seen.stream
        record.status = head.status
        hsts = parts.hsts if self._head.secure else b""
        return to_client(seen, record.request_id, hsts)

    def forwarded(self, attempt: Attempt) -> None:
        """The attempt is over."""
        record = self.record
        self._parts.flights.ended(record.tenant, self)
        completed = attempt.outcome is _COMPLETED
        record.outcome = _COMPLETED_TEXT if completed else attempt.outcome
        record.request_bytes = attempt.request_bytes
        record.response_bytes = attempt.response_bytes
        if completed:
            self._finish()
            return
        self._return_budget()
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._route is not None:
            tell_of_failure(self._parts.nodes, self._route, ticket, attempt)
            late = True if attempt.outcome is Outcome.TIMEOUT else None
            self._say_of_tenant(self._route, self._parts.clock.seconds(), late=late)
        self._marked = attempt.head is not None and mark_of(attempt.head) is not None
        verdict = retries.judge(
            attempt, self._head.method, marked=self._marked, repeats=self._repeats
        )
        if verdict is Verdict.OVER:
            self._finish()
        elif verdict is Verdict.FAILED:
            self._refuse(reason_of(attempt, marked=self._marked))
        else:
            self._prepare_again(attempt)
            self._hold()

    def overtaken(self, by: Route, *, late: bool) -> None:
        """See ``flights.Flight``."""
        route = self._route
        if route is None or by.epoch <= route.epoch:
            return
        if (by.node_id, by.incarnation) == (route.node_id, route.incarnation):
            return  # it lives, and ends by itself what it has
        unanswered = self._ticket is not None
        if late or (unanswered and self._head.method in retries.SAFE_METHODS):
            self._exchange.give_up("the tenant has another node now")

    def _return_budget(self) -> None:
        if self._budgeted:
            self._budgeted = False
            self._parts.budget.give_back()

    def _prepare_again(self, attempt: Attempt) -> None:
        """Remember what the attempt taught, for the next one."""
        route = self._route
        assert route is not None
        self._fresh = True
        self._failed_on = _life(route)
        self._why = reason_of(attempt, marked=self._marked)
        if attempt.outcome is Outcome.NO_RESPONSE:
            self._repeats += 1
        if self._marked and attempt.head is not None and mark_of(attempt.head) == b"moved":
            self._parts.routes.doubt(route.tenant_id, epoch_of(attempt.head))

    # -- holding ----------------------------------------------------------------------------------

    def _hold(self) -> None:
        """Wait for a way, then go on."""
        self._wait(self._held())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        task = Deferred.fromCoroutine(work)
        task.addErrback(self.broken)
        if not task.called:
            self._exchange.when_gone(task.cancel)

    def broken(self, failure: Failure) -> None:
        """A bug of ours: the client gets an error if it can, and nothing stays counted."""
        log.failure("a request failed", failure=failure)
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._route is not None:
            self._parts.nodes.dropped(self._route, ticket)
            self._say_of_tenant(self._route, self._parts.clock.seconds(), late=None)
        self._return_budget()
        if not self._finished:
            self._exchange.abort()
            self.record.outcome = "broken"
            self._finish()

    async def _held(self) -> None:
        parts, name = self._parts, self._holder()
        if not parts.holds.enter(name):
            self._refuse(Busy("too many requests wait for this tenant"))
            return
        since = parts.clock.seconds()
        try:
            error = await self._seek()
        except CancelledError:
            error = None
            self._finish_gone()
        finally:
            parts.holds.leave(name)
            self.record.held_s += parts.clock.seconds() - since
        if error is not None:
            self._refuse(error)

    def _holder(self) -> str:
        """For whom it waits: one name of a tenant that is known, however many it has."""
        entry = self._parts.routes.peek(self._key)
        return entry.route.tenant_id if entry is not None else self._key.value

    async def _seek(self) -> PBClusterError | None:
        """Until the request is on its way or answered (None), or cannot be (the reason)."""
        parts = self._parts
        while not self._exchange.client_gone:
            try:
                while self._is_moving() and parts.clock.seconds() < self._deadline:
                    await self._pause()
                route = await self._next_route()
                if self._failed_on == _life(route):
                    await self._pause()
                    route = self._newest(route)
                if self._is_moving():
                    self._why = Unavailable("the tenant is being moved")
                elif self._dispatch(route):
                    return None
                self._fresh = True
            except NotFound as error:
                if self._otherwise():
                    continue
                return error
            except Unavailable as error:
                if parts.lookups.control_plane_away and self._otherwise():
                    continue
                self._why = error
            if parts.clock.seconds() >= self._deadline:
                return self._why
            await self._pause()
        self._finish_gone()
        return None

    def _is_moving(self) -> bool:
        """Whether its tenant is about to get another node: nobody need be asked before."""
        entry = self._parts.routes.peek(self._key) if self._parts.moving else None
        return entry is not None and self._parts.moving.is_held(
            entry.route, self._parts.clock.seconds()
        )

    def _newest(self, route: Route) -> Route:
        """What a broadcast may have told during the pause."""
        entry = self._parts.routes.peek(self._key)
        return entry.route if entry is not None and entry.usable else route

    async def _next_route(self) -> Route:
        lookups = self._parts.lookups
        if self._fresh:
            found = await lookups.renew(self._key)
        else:
            found = await lookups.find(self._key)
        self.record.source = found.source
        return found.route

    async def _pause(self) -> None:
        parts = self._parts
        left = max(0.0, self._deadline - parts.clock.seconds())
        pause = min(retries.pause_s(self._pauses, parts.random), left)
        self._pauses += 1
        await parts.waits.pause(self._key.value, pause)


def _life(route: Route) -> tuple[str, int, int]:
    """What a failure is held against: this node, in this life, as owner under this epoch."""
    return route.node_id, route.incarnation, route.epoch
