"""What an attempt says of its node and its tenant: to their breakers, and to a client at the end.

==================================================  ==========================================
any answer without the node's mark                  success, a tenant's 5xx included
503 marked ``no-proof`` or ``busy``                 failure: the node as a whole is in trouble
401 marked ``unsigned``                             the same: keys or clocks differ
421 or 503 marked ``moved, loading, draining``      nothing: it is about one tenant, or planned
no connection; no byte or junk before the answer    failure
a pooled connection that ended without an answer    nothing: it was stale
no answer in time                                   slow: counts if several tenants see it, or the
                                                    node does not answer for its health either
client gone, refused by ourselves                   nothing
==================================================  ==========================================

To the breaker of the tenant no answer in time is a failure, also in the node's own words (504);
every other answer without a mark is a success, and nothing else says anything.

It decides nothing: whether the request is sent again is for ``retries`` to say, what the breaker
makes of it for ``breaker``.
"""

from __future__ import annotations

from pbcluster.errors import PBClusterError, Unavailable
from pbcluster.gateway.breaker import Ticket
from pbcluster.gateway.forwarding import mark_of
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.tenant_breakers import TenantBreakers
from pbcluster.web.interfaces import Attempt, Outcome
from pbcluster.wire import Route

#: These marks mean that the node as a whole is in trouble.
_NODE_IN_TROUBLE = (b"no-proof", b"busy", b"unsigned")


class _NoAnswer(PBClusterError):
    """The tenant took too long."""

    status = 504
    code = "gateway_timeout"


class _BrokenOff(PBClusterError):
    """The node went away with the request in its hands."""

    status = 502
    code = "broken_off"


def tell_of_mark(nodes: Nodes, route: Route, ticket: Ticket, mark: bytes) -> None:
    """The node answered with its mark "not processed"."""
    if mark in _NODE_IN_TROUBLE:
        nodes.failed(route, ticket, f"marked {mark.decode()}", unreachable=False)
    else:
        nodes.dropped(route, ticket)


def tell_of_failure(nodes: Nodes, route: Route, ticket: Ticket, attempt: Attempt) -> None:
    """An attempt ended without an answer that could be judged."""
    why = attempt.error or attempt.outcome.value
    if attempt.outcome is Outcome.NOT_SENT:
        nodes.failed(route, ticket, why, unreachable=True)
    elif attempt.outcome is Outcome.NO_RESPONSE and (attempt.junk or not attempt.reused):
        nodes.failed(route, ticket, why, unreachable=False)
    elif attempt.outcome is Outcome.TIMEOUT:
        nodes.slow(route, ticket)
    else:
        nodes.dropped(route, ticket)


def tell_of_tenant(
    tenants: TenantBreakers, tenant_id: str, ticket: Ticket, now: float, *, late: bool | None
) -> None:
    """What an attempt says of its tenant.

    :param late: it did not answer in time; None: nothing is known.
    """
    if late is None:
        tenants.dropped(tenant_id, ticket, now)
    elif late:
        tenants.timed_out(tenant_id, ticket, now)
    else:
        tenants.answered(tenant_id, ticket, now)


def reason_of(attempt: Attempt, *, marked: bool) -> PBClusterError:
    """What the client is told if this was the last attempt.

    :param marked: its answer carried the node's mark.
    """
    if attempt.outcome is Outcome.TIMEOUT:
        return _NoAnswer("the tenant did not answer in time")
    if marked and attempt.head is not None:
        mark = (mark_of(attempt.head) or b"").decode("latin-1")
        return Unavailable(f"the tenant is not ready ({mark})")
    if attempt.outcome is Outcome.NOT_SENT:
        return Unavailable("the tenant's node cannot be reached")
    return _BrokenOff(
        "the connection to the tenant broke; whether the request was carried out is not known"
    )
