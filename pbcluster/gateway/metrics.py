"""What is counted, in a registry of this gateway's own, and the access log.

No label holds anything that a client chose: hosts, paths and tenants may be any number. Node ids
come from the control plane and are few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from twisted.logger import Logger

from pbcluster.gateway.breaker import State
from pbcluster.gateway.breakers import Shown
from pbcluster.gateway.parts import Record

#: From a request on a warm connection to one that was held for its whole time.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STATE_VALUES = {State.CLOSED.value: 0, State.HALF_OPEN.value: 1, State.OPEN.value: 2}

access = Logger("pbcluster.gateway.access")


class Metrics:
    """The figures of a gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        space, registry = "pbcluster_gateway", self.registry
        self._requests = Counter(
            "requests",
            "Requests, by node (empty: none was asked) and class of status",
            ["node", "status"],
            namespace=space,
            registry=registry,
        )
        self._duration = Histogram(
            "first_byte_seconds",
            "From a request's head to its answer's head, holds included",
            buckets=BUCKETS_S,
            namespace=space,
            registry=registry,
        )
        self._held = Histogram(
            "held_seconds",
            "How long requests waited that did",
            buckets=BUCKETS_S,
            namespace=space,
            registry=registry,
        )
        self._retries = Counter(
            "further_attempts",
            "Attempts after a request's first",
            namespace=space,
            registry=registry,
        )
        self._sources = Counter(
            "routes_used",
            "Requests by where their route was from",
            ["source"],
            namespace=space,
            registry=registry,
        )
        self._bytes = Counter(
            "bytes",
            "Bytes of bodies forwarded, by direction",
            ["direction"],
            namespace=space,
            registry=registry,
        )
        # Looking labels up costs more than counting.
        self._in, self._out = self._bytes.labels("in"), self._bytes.labels("out")
        self._children: dict[tuple[str, int], Counter] = {}

    def over(self, record: Record) -> None:
        """Count one request that is over, and log it."""
        key = (record.node, record.status // 100)
        child = self._children.get(key)
        if child is None:
            status = f"{key[1]}xx" if key[1] else "none"
            child = self._children[key] = self._requests.labels(record.node, status)
        child.inc()
        if record.first_byte_s:
            self._duration.observe(record.first_byte_s)
        if record.held_s:
            self._held.observe(record.held_s)
        if record.attempts > 1:
            self._retries.inc(record.attempts - 1)
        if record.source:
            self._sources.labels(record.source).inc()
        self._in.inc(record.request_bytes)
        self._out.inc(record.response_bytes)
        access.info("{line}", line=access_line(record))

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that lives elsewhere."""
        gauge = Gauge(name, text, namespace="pbcluster_gateway", registry=self.registry)
        gauge.set_function(value)

    def watch_breakers(self, show: Callable[[], list[Shown]]) -> None:
        """Show the breakers' states: 0 closed, 1 half open, 2 open."""
        self.registry.register(_BreakerStates(show))

    def watch_counts(
        self, name: str, text: str, label: str, counts: Callable[[], Mapping[str, int]]
    ) -> None:
        """Show counters that live elsewhere, by the values of one label."""
        self.registry.register(_Counts(f"pbcluster_gateway_{name}", text, label, counts))


class _Counts(Collector):
    def __init__(
        self, name: str, text: str, label: str, counts: Callable[[], Mapping[str, int]]
    ) -> None:
        self._about = (name, text)
        self._label = label
        self._counts = counts

    def collect(self) -> list[CounterMetricFamily]:
        """As ``prometheus_client`` wants it."""
        family = CounterMetricFamily(*self._about, labels=[self._label])
        for value, count in self._counts().items():
            family.add_metric([value], count)
        return [family]


class _BreakerStates(Collector):
    def __init__(self, show: Callable[[], list[Shown]]) -> None:
        self._show = show

    def collect(self) -> list[GaugeMetricFamily]:
        """As ``prometheus_client`` wants it."""
        family = GaugeMetricFamily(
            "pbcluster_gateway_breaker_state",
            "0 closed, 1 half open, 2 open",
            labels=["node"],
        )
        # The newest life of a node stands last and is the one that counts.
        for node, state in {shown.node: shown.state for shown in self._show()}.items():
            family.add_metric([node], _STATE_VALUES[state])
        return [family]


def access_line(record: Record) -> str:
    """One line of JSON. No query and no header stands in it: they may hold secrets."""
    return msgspec.json.encode(
        {
            "request_id": record.request_id,
            "peer": record.peer,
            "method": record.method,
            "path": record.path,
            "status": record.status,
            "tenant": record.tenant,
            "node": record.node,
            "route": record.source,
            "breaker": record.breaker,
            "outcome": record.outcome,
            "attempts": record.attempts,
            "stream": record.stream,
            "held_ms": round(record.held_s * 1000),
            "first_byte_ms": round(record.first_byte_s * 1000, 1),
            "duration_ms": round(record.duration_s * 1000, 1),
            "bytes_in": record.request_bytes,
            "bytes_out": record.response_bytes,
        }
    ).decode()
