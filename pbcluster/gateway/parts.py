"""What the requests of a gateway share, and what is told of each when it is over."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from pbcluster.gateway.breaker import Uniform
from pbcluster.gateway.flights import Flights
from pbcluster.gateway.forwarding import Forwarder
from pbcluster.gateway.holds import Holds
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.retries import Budget
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.tenant_breakers import TenantBreakers
from pbcluster.gateway.tenant_holds import TenantHolds
from pbcluster.gateway.tenant_id import TenantFinder
from pbcluster.gateway.token_keys import TokenKeyQuestions
from pbcluster.gateway.waits import Waits
from pbcluster.web.interfaces import RequestHead


class Record:
    """What is told of one request when it is over: to the log and the metrics.

    :ivar source: where its route was from. :ivar outcome: how its last attempt ended, or
        ``answered`` by the gateway itself. :ivar held_s: how long it waited.
    """

    def __init__(self, request_id: str, head: RequestHead) -> None:
        """
        :param head: of the request; in its target's query secrets may stand.
        """
        self.request_id = request_id
        self.head = head
        self.tenant = self.node = self.source = self.breaker = self.outcome = ""
        self.status = self.attempts = self.request_bytes = self.response_bytes = 0
        self.held_s = self.duration_s = self.first_byte_s = 0.0
        self.stream = False


class Parts:
    """What all requests of a gateway share. Not to be changed.

    :ivar hold_s: longest wait of a request. :ivar seconds: the clock's.
    :ivar unix_ms: wall clock, for signatures. :ivar new_id: a fresh request id, 32 hex digits.
    :ivar hsts: value of Strict-Transport-Security over TLS; empty: none.
    :ivar moving: tenants that are held since they move.
    :ivar active: requests under way. :ivar over: told of each request's end.
    """

    def __init__(
        self,
        *,
        forwarder: Forwarder,
        hold_s: float,
        clock: IReactorTime,
        random: Uniform,
        unix_ms: Callable[[], int],
        new_id: Callable[[], str],
        tenants: TenantFinder,
        token_keys: TokenKeyQuestions,
        routes: RouteCache,
        lookups: Lookups,
        nodes: Nodes,
        tenant_breakers: TenantBreakers,
        holds: Holds,
        waits: Waits,
        flights: Flights,
        budget: Budget,
        active: Callable[[], int],
        over: Callable[[Record], None],
        hsts: bytes,
        moving: TenantHolds,
    ) -> None:
        self.forwarder = forwarder
        self.hold_s = hold_s
        self.clock = clock
        self.seconds: Callable[[], float] = clock.seconds
        self.random = random
        self.unix_ms = unix_ms
        self.new_id = new_id
        self.tenants = tenants
        self.token_keys = token_keys
        self.routes = routes
        self.lookups = lookups
        self.nodes = nodes
        self.tenant_breakers = tenant_breakers
        self.holds = holds
        self.waits = waits
        self.flights = flights
        self.budget = budget
        self.active = active
        self.over = over
        self.hsts = hsts
        self.moving = moving
