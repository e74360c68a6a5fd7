"""Ownership on the real parts: what is frozen, put back, cut off or replaced harms nobody.

Each test has a cluster of its own, as small as it can be.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client, Workload, check
from tests.integration.support import PASSWORD, new_tenant

RECORDS = "/api/collections/journal/records"


class OwnershipTests(SynchronousTestCase):
    timeout = 120

    def cluster(self, nodes: int = 1) -> RealCluster:
        cluster = RealCluster(nodes=nodes, members=1)
        self.addCleanup(cluster.close)
        cluster.start()
        return cluster

    def workload(self, cluster: RealCluster, name: str) -> Workload:
        host = cluster.host("shop")
        return Workload(cluster.gateway_url, host, name, writers=2, readers=1, pause_s=0.01)

    def verify(self, cluster: RealCluster, client: Client, *workloads: Workload) -> None:
        """Every acknowledged row is there, nothing else is, and no read was stale."""
        verdict = check(client, *(each.journal for each in workloads))
        self.assertTrue(verdict.good, f"{verdict}\n{cluster.logs()}")
        self.assertEqual([each.journal.stale for each in workloads], [[]] * len(workloads))

    def directory(self, cluster: RealCluster) -> Path:
        """The tenant's directory on the only node."""
        (found,) = cluster.where.root.glob("data/node_1/tenants/tenant_*")
        return found


class FrozenOwnerTests(OwnershipTests):
    def test_requests_in_the_hands_of_a_frozen_owner(self) -> None:
        """An owner that stands still, as a machine without power does, closes no connection: its
        readers have the new owner's answers within seconds, its writers know that the fate of
        their write is unknown; woken up, it answers nobody."""
        cluster = self.cluster(nodes=2)
        client = new_tenant(cluster, "shop")
        first = cluster.admin.tenant("shop")["nodeID"]
        workload = self.workload(cluster, "f")
        with workload.running():
            workload.wait_for_acks(20)
            frozen_at = time.monotonic()
            cluster.sigstop(first, with_children=True)
            workload.wait_for_acks(20, timeout_s=30)
            gap = workload.journal.longest_gap(frozen_at, "read")
            cluster.sigcont(first, with_children=True)
            workload.wait_for_acks(50)
        self.assertNotEqual(cluster.admin.tenant("shop")["nodeID"], first)
        self.assertLess(gap, 6.0, cluster.logs())
        failures = workload.journal.failures()
        self.assertLessEqual({each.status for each in failures}, {502}, failures)
        self.assertLessEqual({each.kind for each in failures}, {"write"}, failures)
        self.assertLessEqual(len(failures), 2, failures)
        self.verify(cluster, client, workload)


class AwayTests(OwnershipTests):
    def test_control_plane_frozen_then_s3(self) -> None:
        """Without the control plane nobody notices anything: each request is proven by S3. Without
        S3 reads go on under the lease and writes wait; those after its return succeed."""
        cluster = self.cluster()
        client = new_tenant(cluster, "shop")
        workload = self.workload(cluster, "m")
        with workload.running():
            workload.wait_for_acks(20)
            cluster.sigstop("member_1")
            time.sleep(5.0)
            cluster.sigcont("member_1")
            workload.wait_for_acks(20)
        self.assertEqual(workload.journal.failures(), [], cluster.logs())
        again = self.workload(cluster, "s")
        with again.running():
            again.wait_for_acks(20)
            cluster.sigstop("s3_1")
            frozen_at = time.monotonic()
            time.sleep(4.0)
            cluster.sigcont("s3_1")
            again.wait_for_acks(20)
        self.assertEqual(again.journal.failures(), [], cluster.logs())
        self.assertLess(again.journal.longest_gap(frozen_at, "read"), 1.0)
        self.verify(cluster, client, workload, again)


class DiskTests(OwnershipTests):
    def test_disk_put_back_and_database_replaced(self) -> None:
        """A directory that shows an earlier state is set aside, not served. A database that is
        replaced while it runs is not acknowledged from; the tenant comes back by itself with every
        acknowledged row."""
        cluster = self.cluster()
        client = new_tenant(cluster, "shop")
        before, after = self.workload(cluster, "b"), self.workload(cluster, "a")
        with before.running():
            before.wait_for_acks(20)
        cluster.stop("node_1")
        tenant = self.directory(cluster)
        image = cluster.where.root / "image"
        shutil.copytree(tenant, image)
        cluster.start("node_1")
        with after.running():
            after.wait_for_acks(20)
            cluster.kill9("node_1")
            shutil.rmtree(tenant)
            image.rename(tenant)
            cluster.start("node_1")
            after.wait_for_acks(20)
        self.verify(cluster, client, before, after)
        self.assertEqual(cluster.admin.tenant("shop")["epoch"], 2)

        # As a backup restore from a hook does it: another file, and Litestream's metadata is gone.
        data = tenant / "data"
        (data / ".data.db-litestream").rename(cluster.where.root / "gone")
        shutil.copy(data / "data.db", data / "other.db")
        (data / "other.db").rename(data / "data.db")
        row = {"n": 1, "value": "into the old file"}
        with self.assertRaises(AssertionError):
            self.assertEqual(client.ask("POST", RECORDS, row)[0], 200)
        client.close()
        epoch_of = lambda: cluster.admin.tenant("shop")["epoch"]  # noqa: E731
        cluster.wait_until(lambda: epoch_of() > 2, "a new epoch", 10.0)
        self.verify(cluster, client, before, after)
        last = self.workload(cluster, "l")
        with last.running():
            last.wait_for_acks(20)
        self.assertEqual(last.journal.failures(), [], cluster.logs())
        self.verify(cluster, client, before, after, last)


class SecretTests(OwnershipTests):
    def test_no_secret_is_shown(self) -> None:
        """Neither an argument nor a log holds a key, a token, a password or its hash; what carried
        the first login is gone after the first start; keys lie in files of their owner alone."""
        cluster = self.cluster()
        new_tenant(cluster, "shop")
        root = cluster.where.root
        secret_files = [path for path in root.rglob("*") if path.is_file() and _is_secret(path)]
        self.assertGreater(len(secret_files), 3)
        self.assertEqual([p for p in secret_files if p.stat().st_mode & 0o077], [])
        words = {PASSWORD, "$2a$", "$2b$", "eyJ"}
        for path in secret_files:
            words |= _long_words(path.read_text())
        arguments = [
            Path(f"/proc/{who.pid}/cmdline").read_text().replace("\0", " ")
            for who in procfs.descendants(os.getpid())
        ]
        self.assertTrue(any("pocketbase serve" in each for each in arguments))
        logs = {path: path.read_text("utf-8", "replace") for path in root.rglob("*.log")}
        self.assertGreater(len(logs), 2)
        for word in words:
            self.assertEqual([each for each in arguments if word in each], [], word[:4])
            self.assertEqual([path for path, text in logs.items() if word in text], [], word[:4])
        self.assertEqual(list((self.directory(cluster) / "migrations").iterdir()), [])


def _is_secret(path: Path) -> bool:
    return "secrets" in path.parts[-2] or path.name == "admin.token"


def _long_words(text: str) -> set[str]:
    words = text.replace("=", " ").replace('"', " ").replace(",", " ").split()
    return {word for word in words if len(word) >= 16}
