"""One page of all workers' pages."""

import json

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway import merged
from pbcluster.gateway.figures import Figures
from pbcluster.gateway.metrics import Metrics
from pbcluster.gateway.parts import Record
from tests.gateway.fakes import head


def page(requests: int) -> str:
    figures = Figures()
    for _ in range(requests):
        record = Record("id", head())
        record.node, record.status, record.first_byte_s = "node_a", 200, 0.01
        figures.over(record)
    return generate_latest(Metrics(figures).registry).decode()


class MergedTests(SynchronousTestCase):
    def test_metrics(self) -> None:
        """Each family stands once, each sample of each worker with its number; counters keep their
        names, histograms all their buckets. A page that is none is left out."""
        text = merged.metrics({1: page(3), 2: page(5), 3: "<html>"}).decode()
        families = list(text_string_to_metric_families(text))
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        counted = {
            sample.labels["worker"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "pbcluster_gateway_requests_total"
        }
        self.assertEqual(counted, {"1": 3, "2": 5})
        buckets = [line for line in text.splitlines() if "first_byte_seconds_bucket" in line]
        alone = [line for line in page(1).splitlines() if "first_byte_seconds_bucket" in line]
        self.assertEqual(len(buckets), 2 * len(alone))

    def test_ready(self) -> None:
        """One ready worker is enough; without any the reasons of all are told."""
        good = json.dumps({"ready": True, "reasons": []})
        bad = json.dumps({"ready": False, "reasons": ["no contact"]})
        self.assertEqual(merged.not_ready({1: bad, 2: good}, 2), [])
        self.assertEqual(merged.not_ready({1: bad, 2: "junk"}, 2), ["no contact"])
        self.assertEqual(merged.not_ready({}, 2), ["none of 2 workers answers"])

    def test_rows(self) -> None:
        """Routes and breakers keep their rows, each with its worker."""
        pages = {n: json.dumps({"total": n, "routes": [{"name": "shop"}]}) for n in (1, 2)}
        found = merged.routes(pages | {3: "[]"})
        self.assertEqual(found["total"], 3)
        self.assertEqual([row["worker"] for row in found["routes"]], [1, 2])
        self.assertEqual(merged.breakers({2: '[{"node": "a"}]'}), [{"worker": 2, "node": "a"}])
