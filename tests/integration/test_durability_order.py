"""Real members under strace: the disk comes before the word, and a slow disk is no election."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from unittest import SkipTest

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.admin import AdminClient
from pbcluster.cli.child import ProcessSpec
from pbcluster.testing import strace
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.durability_order import CALLS, SYNCS, judge
from pbcluster.testing.histories import judge as judge_history
from pbcluster.testing.members_workload import all_tenants
from pbcluster.testing.soak_members import admin_ports, leader_of, members_only, workload_of
from pbcluster.testing.strace import Call

MEMBERS = ("member_1", "member_2", "member_3")
SLOW_MS = 50


class TracedMembers(SynchronousTestCase):
    def setUp(self) -> None:
        why_not = strace.why_not()
        if why_not:
            raise SkipTest(why_not)
        self.home = Path(tempfile.mkdtemp(prefix="pbcluster-trace-"))
        self.addCleanup(rmtree, self.home)

    def under(self, calls: tuple[str, ...], inject: str = "") -> Callable[..., ProcessSpec]:
        def changed(spec: ProcessSpec) -> ProcessSpec:
            if spec.kind != "member":
                return spec
            return strace.traced(spec, self.output(spec.id), calls, inject=inject)

        return changed

    def output(self, member: str) -> Path:
        return self.home / f"{member}.strace"

    def trace(self, member: str) -> list[Call]:
        with self.output(member).open(encoding="ascii") as lines:
            return strace.parse(lines)

    def terms(self, cluster: RealCluster) -> list[int]:
        token = cluster.where.token()
        return [
            AdminClient(f"http://127.0.0.1:{port}", token).health()["term"]
            for port in admin_ports(cluster).values()
        ]

    def test_the_disk_comes_before_the_word(self) -> None:
        """While tenants are created and a leader stops, no member acknowledges an entry or gives a
        vote before the transaction with it is durable. The same traces with a word moved before
        the end of its sync, or with syncs that failed, are refused: the judge sees what it judges.
        """
        with members_only(change_spec=self.under(CALLS), insecure_plain_sockets=True) as cluster:
            workload = workload_of(cluster, pause_s=0.02, readers=0)
            with workload.running():
                workload.wait_for_acks(20)
                cluster.stop(leader_of(cluster))
                workload.wait_for_acks(20)
        traces = [self.trace(member) for member in MEMBERS]
        orders = [judge(calls) for calls in traces]
        self.assertEqual([order.violations for order in orders], [(), (), ()])
        self.assertGreater(sum(order.entries for order in orders), 60)
        self.assertGreaterEqual(sum(order.votes for order in orders), 2)
        for calls, order in zip(traces, orders, strict=True):
            promised = order.entries + order.votes
            failed = [attrs.evolve(c, result=-1) if c.name in SYNCS else c for c in calls]
            self.assertEqual(len(judge(failed).violations), promised)
            late = [attrs.evolve(c, ended=10**9) if c.name in SYNCS else c for c in calls]
            self.assertEqual(len(judge(late).violations), promised)

    def test_a_slow_disk_is_no_election(self) -> None:
        """With 50 ms added to every fdatasync of all members, tenants are created for three
        seconds: the term stays, everything acknowledged is there, and the disk really was slow."""
        inject = f"fdatasync:delay_enter={SLOW_MS * 1000}"
        with members_only(change_spec=self.under(("fdatasync",), inject)) as cluster:
            cluster.wait_until(lambda: len(set(self.terms(cluster))) == 1, "one term")
            before = self.terms(cluster)
            workload = workload_of(cluster, pause_s=0.02, writers=8)
            with workload.running() as history:
                time.sleep(3.0)
                workload.wait_for_acks(1)
            self.assertEqual(self.terms(cluster), before)
            verdict = judge_history(history, all_tenants(cluster.admin.all("tenants")))
        self.assertTrue(verdict.good, verdict)
        self.assertEqual(workload.refusals, [])
        self.assertGreaterEqual(verdict.acknowledged, 10)
        took = [operation.returned - operation.invoked for operation in history]
        self.assertGreater(max(took), 2 * SLOW_MS / 1000)
        for member in MEMBERS:
            self.assertGreater(len(self.trace(member)), 20)

    def test_a_member_whose_sync_fails_ends(self) -> None:
        """From some sync on one member's disk answers EIO: that process ends with status 1 and one
        sentence, and nothing that was acknowledged is lost at the others."""
        inject = "fdatasync:error=EIO:when=30+"
        faulty = MEMBERS[1]

        def changed(spec: ProcessSpec) -> ProcessSpec:
            return self.under(("fdatasync",), inject)(spec) if spec.id == faulty else spec

        with members_only(change_spec=changed) as cluster:
            workload = workload_of(cluster, pause_s=0.02)
            with workload.running() as history:
                cluster.wait_until(lambda: cluster.child(faulty).ended() is not None, "its end")
                workload.wait_for_acks(10)
            verdict = judge_history(history, all_tenants(cluster.admin.all("tenants")))
            told = cluster.child(faulty).tail()
        self.assertEqual(cluster.child(faulty).ended(), "exit status 1")
        self.assertRegex(told, r"pbcp: the log cannot be written: .*Input/output error")
        self.assertTrue(verdict.good, verdict)
        self.assertGreater(verdict.acknowledged, 20)
