"""Requests that nodes have in their hands, and what becomes of them when their tenant moves.

A node that lost its power, or is cut off, closes no connection: who waits for its answer would wait
for minutes. But its tenants get another node within seconds, and from then on nothing that it still
says can be right. So when a tenant moved to another node (or its node started anew), requests
toward the old one are given up: those that may be sent again at once, all others (writes, answers
and event streams under way) after the time in which a living old node finishes what it has.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from pbcluster.wire import Route

#: Longer than a living node lets open requests of a released tenant finish, and then stops it.
OVERTAKEN_GRACE_S = 8.0


class Flight(Protocol):
    """One request in the hands of a node (``passage.Passage``)."""

    def overtaken(self, by: Route, *, late: bool) -> None:
        """Its tenant has the route ``by`` now. :param late: the grace is over."""


class Flights:
    """Those of one gateway, by tenant. Bounded by the connections that the listener takes."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._of_tenant: dict[str, set[Flight]] = {}

    def began(self, tenant_id: str, flight: Flight) -> None:
        """It is about to be sent to a node."""
        flights: set[Flight] | None = self._of_tenant.get(tenant_id)
        if flights is None:
            self._of_tenant[tenant_id] = {flight}
        else:
            flights.add(flight)

    def ended(self, tenant_id: str, flight: Flight) -> None:
        """The attempt is over; harmless if it never began."""
        flights: set[Flight] | None = self._of_tenant.get(tenant_id)
        if flights is not None:
            flights.discard(flight)
            if not flights:
                del self._of_tenant[tenant_id]

    def moved(self, route: Route) -> None:
        """The tenant has this route now."""
        if route.tenant_id in self._of_tenant:
            self._tell(route, late=False)
        if route.tenant_id in self._of_tenant:
            self._clock.callLater(OVERTAKEN_GRACE_S, self._tell, route, late=True)

    def _tell(self, route: Route, *, late: bool) -> None:
        for flight in tuple(self._of_tenant.get(route.tenant_id, ())):
            flight.overtaken(route, late=late)
