"""The way of the usual request as machine code: which modules, and whether they are in use.

The modules named here are plain Python, and run as such in a checkout. When pbcluster is *built*
(``pip install .``, a wheel) and a C compiler is there, Cython translates them, and their classes
become extension types whose attributes are places in a struct: a request then takes the gateway and
the node some two fifths less processor time (docs/decisions/0085).

What must hold: nothing can be told from the outside but by the time it takes; all of them are
compiled or none is; and who has no compiler gets the same platform, only slower. ``declarations``
says what the translated classes look like, ``direct_calls`` how they are called; ``setup.py`` does
the work. A service only asks whether it was done.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

from pbcluster import __version__

#: Modules that each request crosses, in the gateway and in the node. Others gain nothing.
MODULES = (
    "pbcluster.gateway.access_log",
    "pbcluster.gateway.admission",
    "pbcluster.gateway.breaker",
    "pbcluster.gateway.breakers",
    "pbcluster.gateway.figures",
    "pbcluster.gateway.flights",
    "pbcluster.gateway.forwarding",
    "pbcluster.gateway.limits",
    "pbcluster.gateway.lookups",
    "pbcluster.gateway.nodes",
    "pbcluster.gateway.parts",
    "pbcluster.gateway.passage",
    "pbcluster.gateway.proxy",
    "pbcluster.gateway.request_end",
    "pbcluster.gateway.request_ids",
    "pbcluster.gateway.routes",
    "pbcluster.gateway.shedding",
    "pbcluster.gateway.telling",
    "pbcluster.gateway.tenant_breakers",
    "pbcluster.gateway.tenant_holds",
    "pbcluster.gateway.tenant_id",
    "pbcluster.node.assignments",
    "pbcluster.node.cache",
    "pbcluster.node.durability",
    "pbcluster.node.figures",
    "pbcluster.node.front",
    "pbcluster.node.gates",
    "pbcluster.node.heads",
    "pbcluster.node.machine",
    "pbcluster.node.proofs",
    "pbcluster.node.prover",
    "pbcluster.node.quotas",
    "pbcluster.node.refusals",
    "pbcluster.node.status_page",
    "pbcluster.node.tenant",
    "pbcluster.node.tenant_process",
    "pbcluster.node.tenant_request",
    "pbcluster.node.tenants",
    "pbcluster.node.uses",
    "pbcluster.rates",
    "pbcluster.signing",
    "pbcluster.wall_clock",
    "pbcluster.web.answers",
    "pbcluster.web.attempt",
    "pbcluster.web.chunked",
    "pbcluster.web.client",
    "pbcluster.web.client_connection",
    "pbcluster.web.client_side",
    "pbcluster.web.closing",
    "pbcluster.web.deadline",
    "pbcluster.web.epoll.shortcut",
    "pbcluster.web.epoll.waiting",
    "pbcluster.web.exchange",
    "pbcluster.web.headers",
    "pbcluster.web.interfaces",
    "pbcluster.web.libuv.transport",
    "pbcluster.web.memory",
    "pbcluster.web.pool",
    "pbcluster.web.replay",
    "pbcluster.web.response_head",
    "pbcluster.web.rules",
    "pbcluster.web.server_connection",
    "pbcluster.web.server_side",
    "pbcluster.web.stream_protocol",
    "pbcluster.web.upstream_request",
)


def in_use() -> bool:
    """Whether this process runs the translated modules."""
    found = find_spec("pbcluster.rates")  # all are, or none
    origin = found.origin if found is not None else None
    return origin is not None and origin.endswith(tuple(EXTENSION_SUFFIXES))


def version() -> str:
    """The version, and whether it is compiled, for people."""
    return f"{__version__}, {'compiled' if in_use() else 'not compiled'}"
