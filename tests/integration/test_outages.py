"""S3 away, on the real parts: what clients see, what the control plane knows, what is in S3 after.

One cluster for all tests; S3 is frozen or stopped and comes back with what it had.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client, Workload, check
from tests.integration.support import new_tenant, tell

RECORDS = "/api/collections/journal/records"


class OutageTests(SynchronousTestCase):
    timeout = 180

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def workload(self, tenant: str, name: str) -> Workload:
        host = self.cluster.host(tenant)
        return Workload(self.cluster.gateway_url, host, name, writers=2, readers=1, pause_s=0.05)

    def tenant(self, name: str) -> dict[str, Any]:
        return self.cluster.admin.tenant(name)

    def verify(self, client: Client, *workloads: Workload) -> None:
        verdict = check(client, *(each.journal for each in workloads))
        by_hand = len(verdict.invented) <= 2
        good = not verdict.lost and not verdict.changed and by_hand
        self.assertTrue(good, f"{verdict}\n{self.cluster.logs()}")
        self.assertEqual([each.journal.stale for each in workloads], [[]] * len(workloads))

    def test_an_outage_degrades_or_refuses(self) -> None:
        """While S3 is frozen every read is answered. A tenant's writes wait 5 s, then go on as
        ``local`` once the control plane has committed that, or, where the tenant wants it so, are
        refused with 503. With S3 back everything is there within seconds, acknowledgements say so
        again and the flag is gone: a node that is killed and loses its disk then loses nothing."""
        shop, strict = new_tenant(self.cluster, "shop"), new_tenant(self.cluster, "strict")
        self.cluster.admin.change_tenant("strict", {}, onS3Outage="reject")
        going, refused = self.workload("shop", "g"), self.workload("strict", "r")
        with going.running(), refused.running():
            going.wait_for_acks(10)
            refused.wait_for_acks(10)
            self.cluster.freeze_s3()
            frozen_at = time.monotonic()
            self.cluster.wait_until(lambda: self.tenant("shop")["degraded"], "the flag", 12.0)
            going.wait_for_acks(50)
            self.assertEqual(self.mark(shop), "local")
            time.sleep(max(0.0, frozen_at + 12.0 - time.monotonic()))
            self.assertFalse(self.tenant("strict")["degraded"])
            self.cluster.start_s3()
            back_at = time.monotonic()
            cleared = lambda: not self.tenant("shop")["degraded"]  # noqa: E731
            self.cluster.wait_until(cleared, "the end of the flag", 15.0)
            self.assertEqual(self.mark(shop), "s3")
            tell("the flag ended after S3 came back", time.monotonic() - back_at)
            going.wait_for_acks(20)
            refused.wait_for_acks(20)
        self.assertEqual(going.journal.failures(), [], self.cluster.logs())
        failures = refused.journal.failures()
        self.assertEqual({(each.kind, each.status) for each in failures}, {("write", 503)})
        for journal in (going.journal, refused.journal):
            self.assertLess(journal.longest_gap(frozen_at, "read"), 2.0)
        self.cluster.kill9("node_1")
        shutil.rmtree(self.cluster.where.root / "data/node_1/tenants")
        self.cluster.start("node_1")
        for name in ("shop", "strict"):
            self.cluster.wait_tenant(name)
        self.verify(shop, going)
        self.verify(strict, refused)

    def mark(self, client: Client) -> str:
        answer = self.cluster.ask_tenant(
            "shop",
            "POST",
            RECORDS,
            headers={"Authorization": client.token, "Content-Type": "application/json"},
            body=b'{"n": 1, "value": "by hand"}',
        )
        self.assertEqual(answer.status, 200)
        return answer.headers.get("x-pbcluster-durability", "")
