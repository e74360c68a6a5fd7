"""Ownership on the real parts when ways are cut: between a node and S3, the control plane, or both.

One cluster for all of it, whose processes meet through proxies; each story leaves it healed.
"""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Workload, check
from tests.integration.support import new_tenant

MEMBER, S3 = "member_1", "s3_1"


class CutTests(SynchronousTestCase):
    timeout = 120

    def test_a_node_is_cut_off(self) -> None:
        """A claim whose answer is lost is found to be won. From S3 alone: reads go on. From the
        control plane: another node takes over within seconds and the old owner does not answer,
        whether it sees S3 or not. Nothing acknowledged is lost, no read is stale, ever."""
        self.cluster = cluster = RealCluster(nodes=2, members=1, proxied=True)
        self.addCleanup(cluster.close)
        cluster.start()
        for node in ("node_1", "node_2"):
            cluster.net.lose_answer(node, S3, rb"PUT [^ ]*/owner\.json")
        self.client = new_tenant(cluster, "shop")
        self.workloads: list[Workload] = []
        self._claim_without_an_answer()
        self._cut_from_s3()
        self._cut_from_the_control_plane(also_s3=False)
        self._cut_from_the_control_plane(also_s3=True)
        verdict = check(self.client, *(each.journal for each in self.workloads))
        self.assertTrue(verdict.good, f"{verdict}\n{cluster.logs()}")
        stale = [each.journal.stale for each in self.workloads]
        self.assertEqual(stale, [[]] * len(self.workloads))

    def owner(self) -> str:
        return str(self.cluster.admin.tenant("shop")["nodeID"])

    def epoch(self) -> int:
        return int(self.cluster.admin.tenant("shop")["epoch"])

    def workload(self) -> Workload:
        made = Workload(
            self.cluster.gateway_url,
            self.cluster.host("shop"),
            f"w{len(self.workloads)}",
            writers=2,
            readers=1,
            pause_s=0.01,
        )
        self.workloads.append(made)
        return made

    def _claim_without_an_answer(self) -> None:
        self.assertEqual(self.cluster.net.lost_answers(self.owner(), S3), 1)
        self.assertEqual(self.epoch(), 1)

    def _cut_from_s3(self) -> None:
        owner, workload = self.owner(), self.workload()
        with workload.running():
            workload.wait_for_acks(10)
            self.cluster.net.cut(owner, S3)
            cut_at = time.monotonic()
            self.cluster.wait_until(
                lambda: time.monotonic() - cut_at > 2.0 or not self.cluster.pid(owner), "2 s", 5.0
            )
            self.cluster.net.heal(owner, S3)
            workload.wait_for_acks(10)
        self.assertEqual((self.owner(), self.epoch()), (owner, 1), self.cluster.logs())
        self.assertLess(workload.journal.longest_gap(cut_at, "read"), 1.0)

    def _cut_from_the_control_plane(self, *, also_s3: bool) -> None:
        # Where S3 was away for long, as a busy machine makes it, its writes are local for a moment:
        # such a tenant is not taken from its node, an operator decides.
        self.cluster.wait_until(
            lambda: not self.cluster.admin.tenant("shop")["degraded"], "S3 to have it all", 20.0
        )
        owner, epoch, workload = self.owner(), self.epoch(), self.workload()
        with workload.running():
            workload.wait_for_acks(10)
            self.cluster.net.cut(owner, MEMBER)
            if also_s3:
                self.cluster.net.cut(owner, S3)
            self.cluster.wait_until(lambda: self.owner() != owner, "a take-over", 10.0)
            workload.wait_for_acks(10, timeout_s=20.0)
            self.cluster.net.heal_all()
            workload.wait_for_acks(10)
        self.assertGreater(self.epoch(), epoch)
