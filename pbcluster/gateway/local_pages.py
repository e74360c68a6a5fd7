"""The pages of the metrics listener: for operators and supervisors, never on the public one.

``/healthz`` (the process answers), ``/readyz`` (it should get requests, else 503 and why),
``/metrics`` (Prometheus), ``/debug/breakers``, ``/debug/routes`` and ``/debug/limits`` (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from pbcluster.gateway.breakers import Shown
from pbcluster.gateway.routes import RouteCache

#: Routes shown: the most recently used.
MAX_SHOWN = 500
TIMEOUT_S = 30

Answer = tuple[int, bytes, bytes]


class _Page(Resource):
    isLeaf = True

    def __init__(self, answer: Callable[[], Answer]) -> None:
        super().__init__()
        self._answer = answer

    def render_GET(self, request: Request) -> bytes:
        status, content_type, body = self._answer()
        request.setResponseCode(status)
        request.setHeader(b"content-type", content_type)
        request.setHeader(b"cache-control", b"no-store")
        return body


class _QuietSite(Site):
    displayTracebacks = False
    noisy = False

    def log(self, request: Any) -> None:
        """Nothing: scrapes are no news."""


def _json(status: int, value: Any) -> Answer:
    return status, b"application/json", json.dumps(value, indent=1).encode() + b"\n"


def site(
    *,
    registry: CollectorRegistry,
    breakers: Callable[[float], Sequence[Shown]],
    routes: RouteCache,
    now: Callable[[], float],
    not_ready: Callable[[], list[str]],
    limits: Callable[[], Mapping[str, Any]] = dict,
) -> Site:
    """The site of the metrics listener.

    :param breakers: all breakers as they are at a moment.
    :param now: seconds of the clock that breakers and routes use.
    :param not_ready: why the gateway should get no requests; empty: it should.
    :param limits: what is limited now, and who.
    """

    def readyz() -> Answer:
        reasons = not_ready()
        return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    def shown_breakers() -> Answer:
        return _json(200, [attrs.asdict(shown) for shown in breakers(now())])

    def shown_routes() -> Answer:
        at = now()
        rows = [
            {
                "tenantID": entry.route.tenant_id,
                "name": entry.route.name,
                "hosts": list(entry.route.hosts),
                "nodeID": entry.route.node_id,
                "nodeAddr": entry.route.address,
                "incarnation": entry.route.incarnation,
                "epoch": entry.route.epoch,
                "cachedAgo": round(at - entry.cached_at, 3),
                "hits": entry.hits,
                "state": entry.state(at).value,
            }
            for entry in routes.entries(MAX_SHOWN)
        ]
        return _json(200, {"total": len(routes), "routes": rows})

    root, debug = Resource(), Resource()
    content_type = CONTENT_TYPE_LATEST.encode()
    root.putChild(b"livez", _Page(lambda: _json(200, {"status": "ok"})))
    root.putChild(b"healthz", _Page(lambda: _json(200, {"status": "ok"})))
    root.putChild(b"readyz", _Page(readyz))
    root.putChild(b"metrics", _Page(lambda: (200, content_type, generate_latest(registry))))
    root.putChild(b"debug", debug)
    debug.putChild(b"breakers", _Page(shown_breakers))
    debug.putChild(b"routes", _Page(shown_routes))
    debug.putChild(b"limits", _Page(lambda: _json(200, limits())))
    return _QuietSite(root, timeout=TIMEOUT_S)
