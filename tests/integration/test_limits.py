"""Limits in a real cluster: quotas set while it runs, neighbours, descriptors."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import slices
from pbcluster.cli import procfs
from pbcluster.cli.http import Answer, ask
from pbcluster.descriptors import MOST
from pbcluster.node.sandbox.cgroups import SHARES, WEIGHT
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

    def test_what_services_ask_the_kernel_for(self) -> None:
        """Each raised its soft limit of descriptors to the hard one, and lets others in soon, as do
        the processes that the node started, where the kernel knows how; all tenants together weigh
        less than one process of the platform."""
        wanted = slices.SLICE_NS if slices.of() else 0
        for name in ("gateway_1", "node_1", "member_1"):
            pid = self.cluster.pid(name)
            text = Path(f"/proc/{pid}/limits").read_text()
            (line,) = (each for each in text.splitlines() if each.startswith("Max open files"))
            soft, hard = (int(word) for word in line.split()[3:5])
            self.assertEqual(soft, min(hard, MOST), name)
            self.assertEqual(slices.of(pid), wanted, name)
        node = self.cluster.pid("node_1")
        below = procfs.descendants(node)
        named = {Path(f"/proc/{each.pid}/comm").read_text().strip(): each.pid for each in below}
        self.assertEqual(set(named), {"pocketbase", "litestream"})
        for name, pid in named.items():
            self.assertEqual(slices.of(pid), wanted, name)
        log = (self.cluster.where.root / "log" / "node_1.log").read_text()
        if "cpu: on" not in log:
            return  # no control group weighs processors here
        data = str(self.cluster.where.data("node_1").resolve())
        own = "pbcluster-" + hashlib.sha256(data.encode()).hexdigest()[:12]
        weights = {"cpu.shares": SHARES, "cpu.weight": WEIGHT}
        groups = Path("/sys/fs/cgroup")
        for path in (groups / "cpu" / own, groups / own):
            for name, weight in weights.items():
                if (path / name).exists():
                    self.assertEqual(int((path / name).read_text()), weight)
