"""One answer from the answers of all workers of a gateway. Pure.

Metrics: every sample gets the label ``worker``; families stay whole. A worker that was started
again begins at 0, as any process does: ``rate`` and ``increase`` of Prometheus know that. Nothing
is summed here, since only whoever asks knows what may be: counters and most gauges may, histograms
by bucket, and ``breaker_state`` not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """As ``prometheus_client`` wants it."""
        return self._families

    def describe(self) -> list[Metric]:
        """Nothing is known before."""
        return []


def metrics(pages: Mapping[int, str]) -> bytes:
    """The metrics of all workers.

    :param pages: worker → its own page. A page that is none is left out.
    """
    merged: dict[tuple[str, str], Metric] = {}
    for worker, page in sorted(pages.items()):
        try:
            families = list(text_string_to_metric_families(page))
        except ValueError:
            continue
        for family in families:
            key = (family.name, family.type)
            into = merged.setdefault(key, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {"worker": str(worker), **sample.labels}
                into.samples.append(sample._replace(labels=labels))
    registry = CollectorRegistry()
    registry.register(_Families(list(merged.values())))
    return generate_latest(registry)


def breakers(pages: Mapping[int, str]) -> list[dict[str, Any]]:
    """All workers' breakers, each row with its worker."""
    return [
        {"worker": worker, **row}
        for worker, page in sorted(pages.items())
        for row in _json(page, [])
    ]


def routes(pages: Mapping[int, str]) -> dict[str, Any]:
    """All workers' routes, each row with its worker; ``total`` counts one in each that has it."""
    found = {worker: _json(page, {}) for worker, page in sorted(pages.items())}
    rows = [
        {"worker": worker, **row}
        for worker, page in found.items()
        for row in page.get("routes", ())
    ]
    return {"total": sum(page.get("total", 0) for page in found.values()), "routes": rows}


def not_ready(pages: Mapping[int, str], workers: int) -> list[str]:
    """Why the gateway should get no requests: none of its workers should.

    A worker that is dead or not ready costs nothing: others accept for it.
    """
    if any(_json(page, {}).get("ready") is True for page in pages.values()):
        return []
    reasons = {str(r) for page in pages.values() for r in _json(page, {}).get("reasons", ())}
    return sorted(reasons) or [f"none of {workers} workers answers"]


def _json(page: str, empty: Any) -> Any:
    try:
        value = json.loads(page)
    except ValueError:
        return empty
    return value if isinstance(value, type(empty)) else empty
