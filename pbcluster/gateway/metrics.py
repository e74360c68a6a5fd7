"""The figures of a gateway in Prometheus's form, in a registry of its own.

What is counted with each request stands in ``figures``; numbers that live elsewhere are asked for
when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pbcluster.counts import Counts
from pbcluster.gateway.breaker import State
from pbcluster.gateway.breakers import Shown
from pbcluster.gateway.figures import BUCKETS_S, CLASSES, Durations, Figures

_STATE_VALUES = {State.CLOSED.value: 0, State.HALF_OPEN.value: 1, State.OPEN.value: 2}
_SPACE = "pbcluster_gateway"


class Metrics:
    """What the metrics listener shows."""

    def __init__(self, figures: Figures) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Requests(figures))

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that lives elsewhere."""
        gauge = Gauge(name, text, namespace=_SPACE, registry=self.registry)
        gauge.set_function(value)

    def watch_breakers(self, show: Callable[[], list[Shown]]) -> None:
        """Show the breakers' states: 0 closed, 1 half open, 2 open."""
        self.registry.register(_BreakerStates(show))

    def watch_counts(
        self, name: str, text: str, label: str, counts: Callable[[], Mapping[str, int]]
    ) -> None:
        """Show counters that live elsewhere, by the values of one label."""
        self.registry.register(Counts(f"{_SPACE}_{name}", text, label, counts))


class _Requests(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """As ``prometheus_client`` wants it."""
        figures = self._figures
        requests = _counter(
            "requests",
            "Requests, by node (empty: none was asked) and class of status",
            ["node", "status"],
        )
        first_byte = HistogramMetricFamily(
            f"{_SPACE}_first_byte_seconds",
            "From a request's head to its answer's head, holds included, by node",
            labels=["node"],
        )
        for node, counted in figures.nodes.items():
            for status, count in zip(CLASSES, counted.classes, strict=True):
                if count:
                    requests.add_metric([node, status], count)
            first_byte.add_metric([node], *_buckets(counted.first_byte))
        yield requests
        yield first_byte
        held = HistogramMetricFamily(f"{_SPACE}_held_seconds", "How long requests waited that did")
        held.add_metric([], *_buckets(figures.held))
        yield held
        further = _counter("further_attempts", "Attempts after a request's first")
        further.add_metric([], figures.further_attempts)
        yield further
        sources = _counter("routes_used", "Requests by where their route was from", ["source"])
        for source, count in figures.sources.items():
            if source:
                sources.add_metric([source], count)
        yield sources
        outcomes = _counter("outcomes", "Requests by how they ended", ["outcome"])
        for outcome, count in figures.outcomes.items():
            outcomes.add_metric([outcome], count)
        yield outcomes
        passed = _counter("bytes", "Bytes of bodies forwarded, by direction", ["direction"])
        passed.add_metric(["in"], figures.bytes_in)
        passed.add_metric(["out"], figures.bytes_out)
        yield passed


def _counter(name: str, text: str, labels: list[str] | None = None) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_SPACE}_{name}", text, labels=labels or [])


def _buckets(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    counts = accumulate(durations.counts)
    return list(zip(bounds, counts, strict=True)), durations.total_s


class _BreakerStates(Collector):
    def __init__(self, show: Callable[[], list[Shown]]) -> None:
        self._show = show

    def collect(self) -> list[GaugeMetricFamily]:
        """As ``prometheus_client`` wants it."""
        family = GaugeMetricFamily(
            f"{_SPACE}_breaker_state",
            "0 closed, 1 half open, 2 open",
            labels=["node"],
        )
        # The newest life of a node stands last and is the one that counts.
        for node, state in {shown.node: shown.state for shown in self._show()}.items():
            family.add_metric([node], _STATE_VALUES[state])
        return [family]
