"""An S3 that answers wrongly, by halves, late or not at all: every write has a clear end."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.s3_faults import FINE, S3Faults, Trouble
from pbcluster.testing.soak_litestream import one_restore
from pbcluster.testing.workload import Client, Workload, check, read_all
from tests.integration.support import new_tenant, tell

RECORDS = "/api/collections/journal/records"
TROUBLES = {
    "403": Trouble(status=403),
    "404": Trouble(status=404),
    "500": Trouble(status=500),
    "slow": Trouble(delay_s=0.3),
    "half of each answer": Trouble(half=True),
    "answers of writes lost": Trouble(lost=True, methods=("PUT", "POST")),
}


class FaultTests(SynchronousTestCase):
    timeout = 240

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(self.cluster.close)
        (s3,) = self.cluster.plan.of("s3")
        real = f"http://127.0.0.1:{s3.ports['s3']}"
        self.s3 = S3Faults(real)
        self.s3.start()
        self.addCleanup(self.s3.close)
        changed = 0
        for path in self.cluster.where.root.rglob("node_1*.toml"):
            text = path.read_text()
            path.write_text(text.replace(real, self.s3.url))
            changed += real in text
        self.assertEqual(changed, 1)
        self.cluster.start()

    def write(self, client: Client, value: str) -> int:
        status, answer = client.ask("POST", RECORDS, {"n": 1, "value": value})
        if status != 200:
            self.assertEqual((status, answer["data"]["code"]), (503, "not_durable"), answer)
        return status

    def test_each_fault_and_a_killed_litestream(self) -> None:
        """Under each fault reads are answered and a write is acknowledged or refused with its
        reason within seconds; without it the next writes are acknowledged again. A Litestream that
        is killed under writers is started anew and loses nothing. At the end a node without a disk
        has every acknowledged row."""
        client = new_tenant(self.cluster, "shop")
        self.cluster.admin.change_tenant("shop", {}, onS3Outage="reject")
        acked = set()
        for name, trouble in TROUBLES.items():
            self.s3.set(trouble)
            began = time.monotonic()
            status = self.write(client, name)
            took = time.monotonic() - began
            tell(f"{name}: {status} after", took)
            self.assertLess(took, 9.0, name)
            self.assertEqual(status, 200 if name == "slow" else 503, name)
            self.assertEqual(client.ask("GET", RECORDS)[0], 200)
            self.s3.set(FINE)
            again = time.monotonic()
            while self.write(client, f"after {name}") != 200:
                self.assertLess(time.monotonic() - again, 15.0, f"{name}\n{self.cluster.logs()}")
                time.sleep(0.1)
            acked |= {f"after {name}"} | ({name} if status == 200 else set())
        self.assertGreater(self.s3.met, 10)
        self.mark_auxiliary()
        workload = self.kill_litestream()
        self.cluster.kill9("node_1")
        shutil.rmtree(self.cluster.where.root / "data/node_1/tenants")
        self.cluster.start("node_1")
        self.cluster.wait_tenant("shop")
        rows = set(read_all(client).values())
        self.assertLessEqual(acked, rows)
        self.assertEqual(check(client, workload.journal).lost, [])
        with contextlib.closing(sqlite3.connect(self.auxiliary())) as logs:
            self.assertEqual(logs.execute("SELECT n FROM marker").fetchall(), [(7,)])

    def auxiliary(self) -> Path:
        (found,) = self.cluster.where.root.glob("data/node_1/tenants/*/data/auxiliary.db")
        return found

    def mark_auxiliary(self) -> None:
        """It is replicated in the background, also after Litestream was started anew."""
        with contextlib.closing(sqlite3.connect(self.auxiliary())) as logs, logs:
            logs.execute("CREATE TABLE marker (n)")
            logs.execute("INSERT INTO marker VALUES (7)")

    def kill_litestream(self) -> Workload:
        host = self.cluster.host("shop")
        workload = Workload(self.cluster.gateway_url, host, "k", writers=4, readers=1)
        with workload.running():
            workload.wait_for_acks(50)
            (daemon,) = (
                who
                for who in self.cluster.children_of("node_1")
                if b"litestream" in procfs_name(who.pid)
            )
            procfs.send(daemon, signal.SIGKILL)
            killed = time.monotonic()
            workload.wait_for_acks(100)
            one_restore(self.cluster, "shop", dict(workload.journal.acked))
            workload.wait_for_acks(100)
        gap = workload.journal.longest_gap(killed, "write")
        tell("longest wait for a write after Litestream was killed", gap)
        self.assertLess(gap, 10.0)
        self.assertEqual([e for e in workload.journal.failures() if e.kind == "read"], [])
        return workload


def procfs_name(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        return stream.read().split(b"\0")[0]
