"""Limits in a real cluster: quotas set while it runs, neighbours, descriptors."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.http import Answer, ask
from pbcluster.descriptors import MOST
from pbcluster.testing.cluster import RealCluster
from tests.integration.support import EMAIL, PASSWORD

HEALTH = "/api/health"
#: Requests of each tenant's crowd; the slow tenant's are far over its quota.
REQUESTS = 200
CROWD, NEIGHBOURS = 16, 4


class LimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        for name in ("busy", "calm"):
            self.cluster.create_tenant(name, EMAIL, PASSWORD)

    def get(self, name: str) -> Answer:
        return self.cluster.ask_tenant(name, "GET", HEALTH)

    def metrics_of(self, process: str) -> str:
        url = self.cluster.ready(process)["metrics"]
        return ask("GET", f"{url}/metrics", timeout_s=10.0).body.decode()

    def test_one_tenant_at_its_limit(self) -> None:
        """Quotas set while all runs count at once; the tenant's excess is 429 with what tells when
        to come back; every request of its neighbour is served, and the node counts as well."""
        quotas = {"requestsPerSecond": 0.01, "burst": 20, "concurrentRequests": 8}
        self.cluster.admin.change_tenant("busy", quotas)
        self.cluster.wait_until(lambda: self.get("busy").status == 429, "the quota to be met")
        refused = self.get("busy")
        self.assertEqual(refused.headers["ratelimit-limit"], "20")
        self.assertEqual(refused.headers["ratelimit-remaining"], "0")
        self.assertGreaterEqual(int(refused.headers["retry-after"]), 1)
        self.assertNotIn("x-pbcluster-not-processed", refused.headers)
        self.assertIn(b'"limited"', refused.body)

        with ThreadPoolExecutor(CROWD) as crowd, ThreadPoolExecutor(NEIGHBOURS) as neighbours:
            busy = [crowd.submit(self.get, "busy") for _ in range(REQUESTS)]
            calm = [neighbours.submit(self.get, "calm") for _ in range(REQUESTS)]
            served = Counter(each.result().status for each in calm)
            statuses = Counter(each.result().status for each in busy)
        self.assertEqual(served, {200: REQUESTS})
        self.assertLessEqual(statuses[200], 1)
        self.assertEqual(set(statuses) - {200}, {429})

        gateway = self.metrics_of("gateway_1")
        self.assertIn('pbcluster_gateway_breaker_state{node="node_1"} 0.0', gateway)
        node = self.metrics_of("node_1")
        self.assertIn('pbcluster_node_limited_requests_total{reason="rate"}', node)
        self.assertNotIn("tenant_", node)

        # As much as it likes again, without a stop of anything.
        self.cluster.admin.change_tenant("busy", {"requestsPerSecond": 1000, "burst": 5000})
        self.cluster.wait_until(lambda: self.get("busy").status == 200, "the quota to be lifted")

    def test_descriptors(self) -> None:
        """Each service raised its soft limit of descriptors to the hard one."""
        for name in ("gateway_1", "node_1", "member_1"):
            text = Path(f"/proc/{self.cluster.pid(name)}/limits").read_text()
            (line,) = (each for each in text.splitlines() if each.startswith("Max open files"))
            soft, hard = (int(word) for word in line.split()[3:5])
            self.assertEqual(soft, min(hard, MOST), name)
