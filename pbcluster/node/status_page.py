"""Health and figures of a node, on a listener of its own (loopback by default).

``/livez`` and ``/healthz``: the process answers. ``/readyz``: it would serve requests, else 503
with each reason. ``/isolation``: what tenants are kept in. ``/metrics``: Prometheus text from a
registry of this node alone. No label holds anything that a client chose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pbcluster.counts import Counts
from pbcluster.web.interfaces import Exchange

#: From a sync that found nothing (1.4 ms) to one that hits its bound (5 s).
SYNC_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: From a warm copy to a large restore.
LOAD_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of a node; ``parts.Observer``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to: dict[str, Any] = {"registry": self.registry, "namespace": "pbcluster_node"}
        self._loads = Histogram(
            "load_seconds", "Loads of tenants", ["how"], buckets=LOAD_BUCKETS_S, **to
        )
        self._load_failures = Counter("load_failures", "Loads that failed", ["cause"], **to)
        self._syncs = Histogram(
            "sync_seconds", "Syncs of a group of writes", buckets=SYNC_BUCKETS_S, **to
        )
        self._acks = Histogram(
            "ack_wait_seconds",
            "From a write's response to its acknowledgement",
            buckets=SYNC_BUCKETS_S,
            **to,
        )
        self._withheld = Counter(
            "withheld_acks", "Writes carried out but not acknowledged", ["reason"], **to
        )
        self._proofs: dict[str, int] = {}
        told = "Requests by the proof they had"
        proofs = Counts("pbcluster_node_proofs", told, "basis", lambda: self._proofs)
        self.registry.register(proofs)
        self._fences = Counter("fences", "Tenants found to be another node's", **to)
        self._answers = Counter(
            "own_answers", "Requests the node answered itself", ["status"], **to
        )
        self._limited = Counter(
            "limited_requests", "Requests refused at a limit of their tenant", ["reason"], **to
        )
        self._tenants = Gauge("tenants", "Assigned tenants by state", ["state"], **to)
        self._isolation = Gauge(
            "isolation_active", "Whether a part of the tenants' isolation is on", ["part"], **to
        )
        self._gauges = {
            name: Gauge(name, help, **to)
            for name, help in (
                ("lease_age_seconds", "Age of the newest lease proof, -1: none yet"),
                ("assignments_index", "Log index of the assignments obeyed"),
                ("list_changes_obeyed", "Changes of the list of tenants that were taken over"),
                ("list_changes_refused", "Those that were late or of another list"),
                ("streams", "Open event streams"),
                ("open_requests", "Requests in PocketBase's hands, streams left out"),
                ("full_tenants", "Tenants whose database is over its quota"),
                ("waiting_writes", "Writes held until they are durable"),
                ("degraded_tenants", "Tenants whose acknowledged writes are perhaps here only"),
                ("replication_lag_seconds", "Age of the oldest acknowledged write not yet in S3"),
                ("unreplicated_tenants", "Tenants with acknowledged writes not yet in S3"),
                ("cache_hits", "Requests whose tenant was loaded"),
                ("cache_misses", "Requests whose tenant was not loaded"),
                ("cache_evictions", "Tenants stopped to make room"),
                ("warm_bytes", "Bytes of copies of stopped tenants"),
                ("copies_removed", "Copies removed from the disk since the start"),
                ("epochs_removed", "Old epochs removed from S3 since the start"),
                ("tls_certificate_days_left", "Days to the expiry of the front door's own"),
                ("tls_handshakes", "Handshakes of gateways at the front door"),
                ("tls_handshakes_refused", "Handshakes at the front door that came to nothing"),
                ("file_bytes_received", "Bytes of files received from tenants"),
                ("file_bytes_sent", "Bytes of files sent to tenants"),
                ("file_requests_refused", "Requests of tenants for files that were refused"),
                ("file_deletions_waiting", "Deleted files that are not removed yet"),
                ("files_removed", "Deleted files removed for good"),
                ("secrets_reloads", "Times the secrets were read again"),
                ("secrets_reload_failed", "1: the last time they were not used"),
                ("away_gaps", "Times this process was away until its leases ran out"),
            )
        }

    # -- parts.Observer --

    def loaded(self, how: str, duration_s: float) -> None:
        """See ``parts.Observer``."""
        self._loads.labels(how).observe(duration_s)

    def load_failed(self, cause: str) -> None:
        """See ``parts.Observer``."""
        self._load_failures.labels(cause).inc()

    def synced(self, duration_s: float) -> None:
        """See ``parts.Observer``."""
        self._syncs.observe(duration_s)

    def acknowledged(self, waited_s: float) -> None:
        """See ``parts.Observer``."""
        self._acks.observe(waited_s)

    def withheld(self, reason: str) -> None:
        """See ``parts.Observer``."""
        self._withheld.labels(reason).inc()

    def proof(self, basis: str) -> None:
        """See ``parts.Observer``."""
        self._proofs[basis] = self._proofs.get(basis, 0) + 1  # with every request

    def fenced(self) -> None:
        """See ``parts.Observer``."""
        self._fences.inc()

    # -- the rest --

    def answered(self, status: int) -> None:
        """The node itself answered a request."""
        self._answers.labels(str(status)).inc()

    def limited(self, reason: str) -> None:
        """A request was refused because its tenant is at a limit."""
        self._limited.labels(reason).inc()

    def isolated(self, parts: Mapping[str, str]) -> None:
        """What tenants are kept in: part → "on" or its kind, or "off" and why."""
        for part, state in parts.items():
            self._isolation.labels(part).set(is_active(state))

    def show(self, states: Mapping[str, int], gauges: Mapping[str, float]) -> bytes:
        """The page.

        :param states: state → number of tenants. :param gauges: by the names above.
        """
        for state, count in states.items():
            self._tenants.labels(state).set(count)
        for name, value in gauges.items():
            self._gauges[name].set(value)
        return generate_latest(self.registry)


def is_active(state: str) -> bool:
    """Whether a part of the isolation is on: what is off begins with that word."""
    return not state.startswith("off")


class StatusPage:
    """The ``RequestHandler`` of the listener."""

    def __init__(
        self,
        *,
        not_ready: Callable[[], list[str]],
        metrics: Callable[[], bytes],
        isolation: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """
        :param not_ready: why requests are not served now; empty if they are.
        :param metrics: the Prometheus text.
        :param isolation: part → "on" or its kind, or "off" and why.
        """
        self._isolation = isolation
        self._not_ready = not_ready
        self._metrics = metrics

    def handle(self, exchange: Exchange) -> None:
        """Take a request."""
        path = exchange.head.target.partition(b"?")[0]
        if exchange.head.method not in (b"GET", b"HEAD"):
            self._answer(exchange, 405, {"message": "only GET"})
        elif path in (b"/livez", b"/healthz"):
            self._answer(exchange, 200, {"status": "ok"})
        elif path == b"/readyz":
            reasons = self._not_ready()
            word = "not ready" if reasons else "ready"
            self._answer(exchange, 503 if reasons else 200, {"status": word, "reasons": reasons})
        elif path == b"/isolation":
            self._answer(exchange, 200, self._isolation())
        elif path == b"/metrics":
            exchange.respond(200, self._metrics(), content_type=CONTENT_TYPE_LATEST.encode())
        else:
            known = "/livez, /healthz, /readyz, /isolation, /metrics"
            self._answer(exchange, 404, {"message": f"there is nothing here but {known}"})

    def _answer(self, exchange: Exchange, status: int, body: Mapping[str, object]) -> None:
        exchange.respond(status, json.dumps(body).encode())
