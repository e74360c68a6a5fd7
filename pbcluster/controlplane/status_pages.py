"""Health and figures of a member, on a listener of its own (loopback by default).

``/livez``: the process answers. ``/readyz``: it would answer nodes, gateways and operators, else
503 with each reason. ``/metrics``: Prometheus text, from a registry of this member alone. No label
holds anything that a client chose. Numbers that live elsewhere are read when somebody looks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.raft_member import RaftMember

_SPACE = "pbcluster_member"
TIMEOUT_S = 30
#: From a look into applied state to a creation that waits for its tenant.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)


class Figures:
    """What is counted while it happens."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to: dict[str, Any] = {"registry": self.registry, "namespace": _SPACE}
        self._requests = Counter(
            "admin_requests",
            "Requests of the admin API, by operation",
            ["operation", "status"],
            **to,
        )
        self._seconds = Histogram(
            "admin_seconds", "How long they took", ["operation"], buckets=BUCKETS_S, **to
        )

    def watch(self, values: Callable[[], Mapping[str, float]]) -> None:
        """Show further gauges, read when somebody looks."""
        self.registry.register(_Further(values))

    def answered(self, operation: str, status: int, duration_s: float) -> None:
        """A request of the admin API was answered."""
        self._requests.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(duration_s)


class _Further(Collector):
    def __init__(self, values: Callable[[], Mapping[str, float]]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """As ``prometheus_client`` wants it."""
        for name, value in self._values().items():
            yield _gauge(name, name.replace("_", " "), value)


class _State(Collector):
    """What a member is and knows."""

    def __init__(
        self,
        member: RaftMember,
        liveness: Liveness,
        storm: Callable[[], bool],
        counts: Callable[[], Mapping[str, Mapping[str, int]]],
    ) -> None:
        self._member = member
        self._liveness = liveness
        self._storm = storm
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """As ``prometheus_client`` wants it."""
        yield from self._group()
        yield from self._known()
        dropped = CounterMetricFamily(
            f"{_SPACE}_dropped", "Frames dropped and connections refused", labels=["at", "reason"]
        )
        for place, reasons in self._counts().items():
            for reason, count in reasons.items():
                dropped.add_metric([place, reason], count)
        yield dropped

    def _group(self) -> Iterator[Metric]:
        status = self._member.status()
        leads = self._member.is_leader
        yield _gauge("leader", "1: this member leads", leads)
        yield _gauge("leader_known", "1: it knows who leads", bool(self._member.leader_endpoint))
        yield _gauge("votes", "1: it has a vote", self._member.votes)
        if status is None:
            return
        yield _gauge("term", "Raft term", status.term)
        for name, value in (
            ("last", status.last_index),
            ("commit", status.commit),
            ("applied", status.applied),
        ):
            yield _gauge(f"{name}_index", f"Raft: {name} index", value)
        if leads:
            behind = GaugeMetricFamily(
                f"{_SPACE}_behind_entries", "Entries that a member lacks", labels=["member"]
            )
            for member, (index, _) in status.progress.items():
                behind.add_metric([member], max(0, status.last_index - index))
            yield behind

    def _known(self) -> Iterator[Metric]:
        registry = self._member.registry
        tenants = GaugeMetricFamily(f"{_SPACE}_tenants", "Tenants by status", labels=["status"])
        for status, count in registry.tenant_counts().items():
            tenants.add_metric([status], count)
        yield tenants
        nodes: dict[str, int] = {}
        for node in registry.nodes():
            nodes[node.status.value] = nodes.get(node.status.value, 0) + 1
        shown = GaugeMetricFamily(f"{_SPACE}_nodes", "Nodes by status", labels=["status"])
        for status, count in nodes.items():
            shown.add_metric([status], count)
        yield shown
        yield _gauge("audit_entries", "Entries of the audit trail", len(registry.audit))
        if self._member.is_leader:
            suspected = len(self._liveness.suspected())
            yield _gauge("suspected_nodes", "Nodes that do not answer", suspected)
            yield _gauge("storm", "1: too many nodes do not answer", self._storm())


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_SPACE}_{name}", text, value=float(value))


class _Page(Resource):
    isLeaf = True

    def __init__(self, answer: Callable[[], tuple[int, bytes, bytes]]) -> None:
        super().__init__()
        self._answer = answer

    def render_GET(self, request: Request) -> bytes:
        """Answer."""
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


def not_ready(member: RaftMember, *, stopping: bool) -> list[str]:
    """Why this member would not answer now; empty: it would."""
    if stopping:
        return ["it is being stopped"]
    reasons = []
    status = member.status()
    if status is None:
        return ["its part of the group does not run"]
    if not member.votes:
        reasons.append("it has no vote: it has not caught up yet, or it was removed")
    if not (member.is_leader or member.leader_endpoint):
        reasons.append("no leader is known")
    return reasons


def site(
    figures: Figures,
    member: RaftMember,
    liveness: Liveness,
    storm: Callable[[], bool],
    counts: Callable[[], Mapping[str, Mapping[str, int]]],
    stopping: Callable[[], bool],
) -> Site:
    """The site of the metrics listener."""
    figures.registry.register(_State(member, liveness, storm, counts))

    def ready() -> tuple[int, bytes, bytes]:
        reasons = not_ready(member, stopping=stopping())
        return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    def metrics() -> tuple[int, bytes, bytes]:
        return 200, CONTENT_TYPE_LATEST.encode(), generate_latest(figures.registry)

    root = Resource()
    root.putChild(b"livez", _Page(lambda: _json(200, {"status": "ok"})))
    root.putChild(b"healthz", _Page(lambda: _json(200, {"status": "ok"})))
    root.putChild(b"readyz", _Page(ready))
    root.putChild(b"metrics", _Page(metrics))
    return _QuietSite(root, timeout=TIMEOUT_S)


def _json(status: int, value: Any) -> tuple[int, bytes, bytes]:
    return status, b"application/json", json.dumps(value).encode() + b"\n"
