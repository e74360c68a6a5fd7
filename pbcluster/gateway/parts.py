"""What the requests of a gateway share, and what is told of each when it is over."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorTime

from pbcluster.gateway.breaker import Uniform
from pbcluster.gateway.flights import Flights
from pbcluster.gateway.holds import Holds
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.retries import Budget
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.tenant_id import TenantFinder
from pbcluster.gateway.token_keys import TokenKeyQuestions
from pbcluster.gateway.waits import Waits


@attrs.define
class Record:
    """What is told of one request when it is over: to the log and the metrics.

    :ivar source: where its route was from. :ivar outcome: how its last attempt ended, or
        ``answered`` by the gateway itself. :ivar held_s: how long it waited.
    """

    request_id: str
    method: str
    path: str
    peer: str
    tenant: str = ""
    node: str = ""
    source: str = ""
    breaker: str = ""
    status: int = 0
    outcome: str = ""
    attempts: int = 0
    held_s: float = 0.0
    duration_s: float = 0.0
    first_byte_s: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    stream: bool = False


@attrs.frozen(kw_only=True)
class Parts:
    """What all requests of a gateway share.

    :ivar key: the gateway's HMAC key. :ivar hold_s: longest wait of a request.
    :ivar unix_ms: wall clock, for signatures. :ivar new_id: a fresh request id, 32 hex digits.
    :ivar active: requests under way. :ivar over: told of each request's end.
    """

    gateway_id: str
    key: bytes = attrs.field(repr=False)
    hold_s: float
    clock: IReactorTime
    random: Uniform
    unix_ms: Callable[[], int]
    new_id: Callable[[], str]
    tenants: TenantFinder
    token_keys: TokenKeyQuestions
    routes: RouteCache
    lookups: Lookups
    nodes: Nodes
    holds: Holds
    waits: Waits
    flights: Flights
    budget: Budget
    active: Callable[[], int]
    over: Callable[[Record], None]
