"""The handler of all exchanges: makes a passage of each and counts those under way.

What is under way is bounded by ``admission``, and by the server's ``Limits.max_connections``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from pbcluster.gateway import retries
from pbcluster.gateway.admission import Admission
from pbcluster.gateway.breaker import Uniform
from pbcluster.gateway.flights import Flights
from pbcluster.gateway.holds import Holds
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.parts import Parts, Record
from pbcluster.gateway.passage import Passage
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.tenant_id import HostRule, TenantFinder
from pbcluster.gateway.waits import Waits
from pbcluster.web.interfaces import Exchange
from pbcluster.wire import Route


class Proxy:
    """Handles every exchange of the public listener.

    :ivar active: requests under way. :ivar holds: those that wait. :ivar budget: repeats.
    """

    def __init__(
        self,
        *,
        gateway_id: str,
        key: bytes,
        base_domains: Sequence[str],
        hold_s: float,
        clock: IReactorTime,
        random: Uniform,
        unix_ms: Callable[[], int],
        new_id: Callable[[], str],
        routes: RouteCache,
        lookups: Lookups,
        nodes: Nodes,
        told: Callable[[Record], None],
        admission: Admission | None = None,
    ) -> None:
        """
        :param key: HMAC key of this gateway. :param hold_s: longest wait of a request.
        :param unix_ms: wall clock. :param new_id: a fresh request id, 32 hex digits.
        :param told: gets the record of each request that is over.
        :param admission: turns requests away before anything is done for them; None: none.
        """
        self.active = 0
        self.holds = Holds()
        self.budget = retries.Budget()
        self._waits = Waits(clock)
        self._flights = Flights(clock)
        self._told = told
        self._admission = admission
        self._parts = Parts(
            gateway_id=gateway_id,
            key=key,
            hold_s=hold_s,
            clock=clock,
            random=random,
            unix_ms=unix_ms,
            new_id=new_id,
            tenants=TenantFinder((HostRule(base_domains),)),
            routes=routes,
            lookups=lookups,
            nodes=nodes,
            holds=self.holds,
            waits=self._waits,
            flights=self._flights,
            budget=self.budget,
            active=lambda: self.active,
            over=self._over,
        )

    def handle(self, exchange: Exchange) -> None:
        """The core's ``RequestHandler``."""
        admission = self._admission
        if admission is not None and not admission.admit(exchange, self.active):
            return
        self.active += 1
        passage = Passage(self._parts, exchange)
        try:
            passage.begin()
        except Exception:
            passage.broken(Failure())

    def moved(self, route: Route) -> None:
        """A tenant has a new route: its held requests look again at once, and nobody waits for a
        node that it left."""
        for name in {route.name, *route.hosts}:
            self._waits.wake(name)
        self._flights.moved(route)

    def _over(self, record: Record) -> None:
        self.active -= 1
        if self._admission is not None:
            self._admission.done(record.peer)
        self._told(record)
