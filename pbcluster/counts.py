"""Counters of Prometheus's form whose numbers are kept elsewhere, as plain integers.

``prometheus_client``'s own take a lock and a look-up of labels for each count: some 3 µs, which a
figure that is counted with every request need not cost. One thread counts; a page asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Counts(Collector):
    """Counters by the values of one label."""

    def __init__(
        self, name: str, text: str, label: str, counts: Callable[[], Mapping[str, int]]
    ) -> None:
        """
        :param name: with its namespace. :param counts: value of the label → count, now.
        """
        self._about = (name, text)
        self._label = label
        self._counts = counts

    def collect(self) -> list[CounterMetricFamily]:
        """As ``prometheus_client`` wants it."""
        family = CounterMetricFamily(*self._about, labels=[self._label])
        for value, count in self._counts().items():
            family.add_metric([value], count)
        return [family]
