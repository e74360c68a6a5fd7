"""PocketBase's own backup restore on the real parts: it is durable when it is answered."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client, Workload, read_all
from tests.integration.support import new_tenant, tell

RECORDS = "/api/collections/journal/records"
HOOK = """routerAdd("POST", "/restore-by-hook", (e) => {
    $app.restoreBackup(new Context(), "second.zip")
    return e.json(200, {})
})
"""


class BackupRestoreTests(SynchronousTestCase):
    timeout = 180

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.client = new_tenant(self.cluster, "shop")

    def epoch(self) -> int:
        return int(self.cluster.admin.tenant("shop")["epoch"])

    def add(self, value: str) -> None:
        status, answer = self.client.ask("POST", RECORDS, {"n": 1, "value": value})
        self.assertEqual(status, 200, answer)

    def values(self) -> set[str]:
        return set(read_all(self.client).values())

    def backup(self, name: str) -> None:
        """Writers stand still meanwhile: it must not wait for checkpoints that Litestream's read
        transaction never lets be, 10 s and 5 s."""
        began = time.monotonic()
        status, answer = self.client.ask("POST", "/api/backups", {"name": name})
        self.assertEqual(status, 204, answer)
        took = time.monotonic() - began
        tell("a backup", took)
        self.assertLess(took, 5.0)

    def lose_the_node(self) -> None:
        self.cluster.kill9("node_1")
        shutil.rmtree(self.cluster.where.root / "data/node_1/tenants")
        self.cluster.start("node_1")
        self.cluster.wait_tenant("shop")

    def test_restore(self) -> None:
        """What a restore answered is in S3 under a new epoch: a node that dies with its disk right
        after loses nothing of it. Requests meanwhile wait and are answered; a wrong name, or one
        who is no superuser, changes nothing."""
        self.add("before")
        self.backup("first.zip")
        self.add("after")
        stranger = Client(self.cluster.gateway_url, self.cluster.host("shop"))
        self.assertEqual(stranger.ask("POST", "/api/backups/first.zip/restore")[0], 401)
        status, answer = self.client.ask("POST", "/api/backups/none.zip/restore")
        self.assertEqual(status, 400, answer)
        self.assertEqual((self.epoch(), self.values()), (1, {"before", "after"}))
        self.add("later")

        host = self.cluster.host("shop")
        readers = Workload(self.cluster.gateway_url, host, "r", writers=1, readers=2, pause_s=0.05)
        readers.start()
        readers.wait_for_acks(3)
        status, answer = self.client.ask("POST", "/api/backups/first.zip/restore")
        self.assertEqual(status, 204, f"{answer}\n{self.cluster.logs()}")
        readers.wait_for_acks(3)
        readers.stop()
        # What the restore took away is read as missing; nothing else goes wrong.
        failures = {(each.kind, each.status) for each in readers.journal.failures()}
        self.assertLessEqual(failures, {("read", 404)}, readers.journal.failures())
        self.assertEqual(self.epoch(), 2)
        shown = {value for value in self.values() if not value.startswith("value of")}
        self.assertEqual(shown, {"before"})
        self.add("afterwards")
        self.lose_the_node()
        shown = {value for value in self.values() if not value.startswith("value of")}
        self.assertEqual(shown, {"before", "afterwards"})
        self.restore_by_a_hook()

    def restore_by_a_hook(self) -> None:
        """A hook that restores a backup is noticed by the file that changed: the tenant goes on
        with it under a new epoch, and what is acknowledged after that lasts."""
        self.backup("second.zip")
        self.add("wiped")
        kept = self.values() - {"wiped"}
        (hooks,) = self.cluster.where.root.glob("data/node_1/tenants/tenant_*/hooks")
        (Path(hooks) / "restore.pb.js").write_text(HOOK)
        self.cluster.restart("node_1")
        self.cluster.wait_tenant("shop")
        epoch = self.epoch()
        try:
            self.client.ask("POST", "/restore-by-hook")
        except OSError:
            self.client.close()
        self.cluster.wait_until(lambda: self.epoch() > epoch, "a new epoch", 20.0)
        self.cluster.wait_tenant("shop")
        self.add("after the hook")
        self.lose_the_node()
        self.assertEqual(self.values(), kept | {"after the hook"})
