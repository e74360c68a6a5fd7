"""The handler of all exchanges: makes a passage of each and counts those under way.

What is under way is bounded by ``admission``, and by the server's ``Limits.max_connections``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.errors import RemoteProtocolError
from pbcluster.gateway import retries
from pbcluster.gateway.admission import Admission
from pbcluster.gateway.breaker import Change, Uniform
from pbcluster.gateway.flights import Flights
from pbcluster.gateway.forwarding import Forwarder, NodeTLS
from pbcluster.gateway.holds import Holds
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.parts import Parts, Record
from pbcluster.gateway.passage import Passage
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.tenant_breakers import TenantBreakers
from pbcluster.gateway.tenant_holds import TenantHolds
from pbcluster.gateway.tenant_id import TenantFinder
from pbcluster.gateway.token_keys import TokenKeyQuestions
from pbcluster.gateway.waits import Waits
from pbcluster.transport.interfaces import Asked
from pbcluster.web.interfaces import Exchange
from pbcluster.wire import Body, HoldTenant, Ok, Route

log = Logger(__name__)


class Proxy:
    """Handles every exchange of the public listener.

    :ivar active: requests under way. :ivar holds: those that wait. :ivar budget: repeats.
    :ivar tenant_breakers: of tenants that do not answer.
    """

    def __init__(
        self,
        *,
        gateway_id: str,
        key: bytes,
        tenants: TenantFinder,
        token_keys: TokenKeyQuestions,
        hold_s: float,
        clock: IReactorTime,
        random: Uniform,
        unix_ms: Callable[[], int],
        new_id: Callable[[], str],
        routes: RouteCache,
        lookups: Lookups,
        nodes: Nodes,
        told: Callable[[Record], None],
        node_tls: NodeTLS = NodeTLS.OFF,
        hsts: bytes = b"",
        holds: Holds | None = None,
        admission: Admission | None = None,
    ) -> None:
        """
        :param key: signing key of this gateway. :param hold_s: longest wait of a request.
        :param unix_ms: wall clock. :param new_id: a fresh request id, 32 hex digits.
        :param told: gets the record of each request that is over.
        :param node_tls: whether nodes are spoken to by TLS.
        :param hsts: value of Strict-Transport-Security for clients over TLS; empty: none.
        :param holds: how many may wait; None: the usual bounds.
        :param admission: turns requests away before anything is done for them; None: none.
        """
        self.active = 0
        self.holds = holds if holds is not None else Holds()
        self.budget = retries.Budget()
        self.moving = TenantHolds()
        self.tenant_breakers = TenantBreakers(random, _tell_change)
        self._waits = Waits(clock)
        self._flights = Flights(clock)
        self._told = told
        self._gateway_id = gateway_id
        self._node_tls = node_tls
        self._admission = admission
        #: All but what :meth:`use` is given.
        self._new_parts = functools.partial(
            Parts,
            clock=clock,
            random=random,
            unix_ms=unix_ms,
            new_id=new_id,
            token_keys=token_keys,
            routes=routes,
            lookups=lookups,
            nodes=nodes,
            tenant_breakers=self.tenant_breakers,
            holds=self.holds,
            waits=self._waits,
            flights=self._flights,
            budget=self.budget,
            active=lambda: self.active,
            over=self._over,
            hsts=hsts,
            moving=self.moving,
        )
        self.use(tenants=tenants, hold_s=hold_s, key=key)

    def use(self, *, tenants: TenantFinder, hold_s: float, key: bytes) -> None:
        """Other settings hold for requests that begin from now on."""
        forwarder = Forwarder(self._gateway_id, key, self._node_tls)
        self._parts = self._new_parts(tenants=tenants, hold_s=hold_s, forwarder=forwarder)

    def handle(self, exchange: Exchange) -> None:
        """The core's ``RequestHandler``."""
        parts: Parts = self._parts
        admission = self._admission
        now = parts.seconds()
        if admission is not None and not admission.admit(exchange, self.active, now):
            return
        self.active += 1
        passage: Passage = Passage(parts, exchange, now)
        try:
            passage.begin()
        except Exception:
            passage.broken(Failure())

    def moved(self, route: Route) -> None:
        """A tenant has a new route: its held requests look again at once, and nobody waits for a
        node that it left."""
        self.confirmed(route)
        self._flights.moved(route)

    def confirmed(self, route: Route) -> None:
        """A tenant's route is this one, new or not: its held requests look again at once."""
        self.moving.release(route.tenant_id, route.epoch)
        for name in {route.name, route.tenant_id, *route.hosts}:
            self._waits.wake(name)

    async def asked(self, asked: Asked, body: Body) -> Body:
        """Answer what a member asks: to hold a tenant. :raises RemoteProtocolError: else."""
        if not isinstance(body, HoldTenant):
            raise RemoteProtocolError(f"{type(body).__name__} is not asked of a gateway")
        now = self._parts.clock.seconds()
        self.moving.hold(body.tenant_id, body.epoch, body.limit_ms / 1000, now)
        return Ok()

    def _over(self, record: Record) -> None:
        self.active -= 1
        if self._admission is not None:
            self._admission.done(record.head.peer_host)
        self._told(record)


def _tell_change(tenant_id: str, change: Change) -> None:
    log.info(
        "breaker of tenant {tenant}: {before} to {after}: {why}",
        tenant=tenant_id,
        before=change.before.value,
        after=change.after.value,
        why=change.why,
    )
