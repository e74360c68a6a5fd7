from typing import Any

from prometheus_client import generate_latest
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.figures import BUCKETS_S, MAX_NODES, OTHERS, Durations, Figures
from pbcluster.gateway.metrics import Metrics
from pbcluster.gateway.parts import Record
from pbcluster.gateway.request_ids import AT_ONCE, RequestIds
from tests.gateway.fakes import head


def over(figures: Figures, **changes: Any) -> None:
    record = Record("0" * 32, head())
    for name, value in changes.items():
        setattr(record, name, value)
    figures.over(record)


class FiguresTests(SynchronousTestCase):
    def test_buckets(self) -> None:
        """A duration falls into the first bucket that is not shorter, or behind all of them."""
        durations = Durations()
        for seconds in (0.0, 0.001, 0.0011, 29.9, 31.0):
            durations.add(seconds)
        self.assertEqual(durations.counts[:2], [2, 1])
        self.assertEqual(durations.counts[-2:], [1, 1])
        self.assertEqual(len(durations.counts), len(BUCKETS_S) + 1)

    def test_shown(self) -> None:
        """Everything that was counted stands on the page, in Prometheus's form."""
        figures = Figures()
        over(figures, node="node_a", status=200, first_byte_s=0.004, source="cache", attempts=1)
        over(figures, node="node_a", status=503, held_s=2.0, attempts=3, outcome="answered")
        over(figures, status=404, request_bytes=7, response_bytes=9)
        text = generate_latest(Metrics(figures).registry).decode()
        for line in (
            'pbcluster_gateway_requests_total{node="node_a",status="2xx"} 1.0',
            'pbcluster_gateway_requests_total{node="node_a",status="5xx"} 1.0',
            'pbcluster_gateway_requests_total{node="",status="4xx"} 1.0',
            'pbcluster_gateway_first_byte_seconds_bucket{le="0.005",node="node_a"} 1.0',
            'pbcluster_gateway_first_byte_seconds_count{node="node_a"} 1.0',
            'pbcluster_gateway_held_seconds_bucket{le="2.5"} 1.0',
            "pbcluster_gateway_further_attempts_total 2.0",
            'pbcluster_gateway_routes_used_total{source="cache"} 1.0',
            'pbcluster_gateway_outcomes_total{outcome="answered"} 1.0',
            'pbcluster_gateway_bytes_total{direction="in"} 7.0',
            'pbcluster_gateway_bytes_total{direction="out"} 9.0',
        ):
            self.assertIn(line + "\n", text)

    def test_bounded(self) -> None:
        """Nodes beyond the bound are counted together."""
        figures = Figures()
        for number in range(MAX_NODES + 5):
            over(figures, node=f"node_{number}", status=200)
        self.assertEqual(len(figures.nodes), MAX_NODES + 1)
        self.assertEqual(figures.nodes[OTHERS].classes[2], 5)


class RequestIdTests(SynchronousTestCase):
    def test_ids(self) -> None:
        """Each is 32 hexadecimal digits of its own; the kernel is asked once for many."""
        asked = []

        def random_bytes(size: int) -> bytes:
            asked.append(size)
            return len(asked).to_bytes(2, "big") * (size // 2 - 1) + b"zz"

        ids = RequestIds(random_bytes)
        made = [ids.new() for _ in range(AT_ONCE + 1)]
        self.assertEqual(asked, [16 * AT_ONCE] * 2)
        self.assertTrue(all(len(one) == 32 and int(one, 16) for one in made))
