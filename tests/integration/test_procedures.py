"""The procedures of docs/operations: every block of commands there is run, and its outcome looked
at. ``procedures_case`` says how."""

import json
import shutil
import signal
import sqlite3
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import config
from pbcluster.cli import procfs, secret_files, state
from pbcluster.cli.http import ask
from pbcluster.cli.layout import BUCKET, ClusterDir, Plan, write_file
from pbcluster.cli.s3 import s3_serves
from pbcluster.testing.seaweed import shared_seaweed
from pbcluster.testing.workload import COLLECTION, Client, read_all
from tests.integration import procedures_case
from tests.integration.procedures_case import ProcedureCase, all_blocks


class RunningTests(ProcedureCase):
    """What is done to a cluster that runs: upgrade.rst, keys.rst, and S3 that hangs."""

    blocks = (
        *("upgrade-save", "upgrade-all", "upgrade-one"),
        *("keys-gateways", "keys-admin", "keys-s3", "keys-processes"),
        "restart-s3",
    )
    options = ("--nodes", "2", "--members", "3")

    def test_while_it_runs(self) -> None:
        """Every process is replaced, every key is another one and the former ones open nothing, S3
        is restarted with its new keys: and nobody who wrote or read met a failure, but that writes
        may be refused while S3 is away."""
        client = self.tenant("shop")
        self.tenant("second")
        with self.served(client):
            self.upgrade()
        with self.served(client, "k"):
            self.exchange_keys()
        with self.served(client, "s", refusable=True):
            self.timed("restart-s3")

    def upgrade(self) -> None:
        """All but S3 are other processes afterwards, and the nodes take tenants again."""
        before = self.pids()
        self.assertIn("replicate", self.timed("upgrade-save"))
        self.timed("upgrade-all")
        now = self.pids()
        same = [name for name, pid in before.items() if now.get(name) == pid]
        self.assertEqual(same, ["s3_1"])
        self.timed("upgrade-one")
        self.assertNotEqual(self.pids()["gateway_1"], now["gateway_1"])
        nodes = self.json("cluster", "nodes", "list")
        self.assertEqual([row["drainWanted"] for row in nodes], [False, False])

    def exchange_keys(self) -> None:
        """The former token and keys of S3 open nothing afterwards. An exchange that was interrupted
        before is done by the same command."""
        before = self.secrets()
        # As if an exchange had ended after its first step.
        secret_files.change(
            self.where, "node_1", {"gateway_keys_also": {"gateway_1": ["of another try"]}}
        )
        token, s3 = self.where.token(), secret_files.s3_keys(self.where, self.plan)
        for name in self.blocks:
            if name.startswith("keys-"):
                self.timed(name)
        now = self.secrets()
        self.assertEqual({name for name in before if before[name] == now.get(name)}, set())
        self.assertEqual([name for name in now if "also" in name], [])
        self.assertEqual(self.sh("grep -c curve_also cluster/config/peers.toml || true"), "0\n")
        bearer = {"Authorization": f"Bearer {token}"}
        refused = ask("GET", f"{self.plan.admin_url}/api/cp/nodes", headers=bearer)
        self.assertEqual(refused.status, 401)
        s3_url = f"http://127.0.0.1:{self.plan.of('s3')[0].ports['s3']}"
        self.assertFalse(s3_serves(s3_url, BUCKET, *s3))
        self.assertTrue(s3_serves(s3_url, BUCKET, *secret_files.s3_keys(self.where, self.plan)))

    def secrets(self) -> dict[str, str]:
        """Every key that an exchange replaces, by file and name."""
        found = {}
        for process in self.plan.processes:
            for name, value in config.read_toml(self.where.secrets(process.id)).items():
                if name not in ("tenant_key", "gateway_seed"):
                    found[f"{process.id} {name}"] = str(value)
        return found


class LossTests(ProcedureCase):
    """sizing.rst and recovery.rst: what is lost, and what is there again."""

    blocks = (
        *("sizing-look", "sizing-grow"),
        *("backup", "restore-bucket", "recover-members", "recover-elsewhere"),
    )
    options = ("--nodes", "1", "--members", "3")

    def test_losses(self) -> None:
        """The bucket is lost and put back, two of three members lose their disks, and then all of
        it is lost but the backup. What was promised for each is kept."""
        self.rows: set[str] = set()
        self.write(self.tenant("shop"), "one")
        self.timed("sizing-look")
        self.assertIn("node_2", self.timed("sizing-grow"))
        self.name_another_bucket()
        self.assertIn("1 tenants", self.timed("backup"))
        self.lose_the_bucket()
        self.lose_a_majority()
        kept = set(self.rows)
        self.sh(self.known["backup"])  # as each hour
        self.write(self.client("shop"), "after")
        self.lose_the_region(kept)

    def lose_the_bucket(self) -> None:
        """Every row that the copy has is there; those written after it are in the database that was
        put aside."""
        kept = set(self.rows)
        self.write(self.client("shop"), "two")
        self.timed("restore-bucket")
        self.assertEqual(self.read("shop"), kept)
        # On two nodes if one was so slow to come back that the other one took the tenant over.
        found = set[str]()
        for file in (self.root / "lost").glob("node_*/tenants/*/data/data.db"):
            with closing(sqlite3.connect(file)) as database:
                rows = database.execute(f"SELECT id FROM {COLLECTION}").fetchall()
            found.update(row for (row,) in rows)
        self.assertEqual(found, self.rows)
        self.rows = kept
        self.write(self.client("shop"), "three")

    def lose_a_majority(self) -> None:
        """Nothing can be asked; afterwards every acknowledged row is there and new tenants can be
        made."""
        self.lose_disks("member_1", "member_2")
        self.sh("pbcluster tenants list", fails=True)
        self.write(self.client("shop"), "four")
        told = self.timed("recover-members")
        self.assertIn("shop", told)
        self.assertEqual(self.read("shop"), self.rows)
        self.tenant("later")

    def lose_the_region(self, kept: set[str]) -> None:
        """Every row that the copy has is there, elsewhere, and it takes new ones."""
        self.sh("pbcluster down && rm -r cluster")
        self.addCleanup(self.sh, "pbcluster down --dir elsewhere/cluster")
        told = self.timed("recover-elsewhere")
        self.assertIn("later", told)
        plan = ClusterDir.at(self.root / "elsewhere" / "cluster").load_plan()
        self.assertEqual(self.read("shop", plan), kept)
        self.rows = kept
        self.write(self.client("shop", plan), "five")
        self.assertEqual(self.read("shop", plan), self.rows)

    def name_another_bucket(self) -> None:
        """copy.toml, of a bucket of another SeaweedFS."""
        s3 = shared_seaweed()
        found = s3.address(s3.new_bucket())
        names = ("endpoint", "bucket", "region", "access_key", "secret_key")
        text = "".join(f"{name} = {json.dumps(getattr(found, name))}\n" for name in names)
        write_file(self.root / "copy.toml", text, 0o600)

    def lose_disks(self, *members: str) -> None:
        """They are killed, and their files are gone before their supervisor starts them again."""
        supervisor, found = state.supervisor(self.where), state.read_state(self.where)
        assert supervisor is not None
        assert found is not None
        procfs.send(supervisor, signal.SIGSTOP)
        for process in found.processes:
            if process.id in members and process.identity is not None:
                procfs.send(process.identity, signal.SIGKILL)
                for file in self.where.data(process.id).iterdir():
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
        procfs.send(supervisor, signal.SIGCONT)

    def write(self, client: Client, word: str) -> None:
        """Rows that are acknowledged."""
        for number in range(20):
            row = {"id": f"{word:0<12}{number:03}"[-15:], "value": word}
            status, told = client.ask("POST", f"/api/collections/{COLLECTION}/records", row)
            self.assertEqual(status, 200, told)
            self.rows.add(row["id"])

    def read(self, name: str, plan: Plan | None = None) -> set[str]:
        """All rows of a tenant."""
        return set(read_all(self.client(name, plan)))


class EveryBlockTests(SynchronousTestCase):
    def test_each_is_run(self) -> None:
        """No page names a block that no test here runs, and no test one that no page has."""
        cases: list[type[ProcedureCase]] = [RunningTests, LossTests]
        run = [name for case in cases for name in case.blocks]
        self.assertEqual(sorted(run), sorted(all_blocks()))

    def test_a_block_is_read_whole(self) -> None:
        """Its commands with their own indentation, up to the text after it."""
        page = procedures_case.PAGES / "upgrade.rst"
        found = procedures_case._extension().blocks(page)
        self.assertEqual(found["upgrade-one"], "pbcluster restart gateway_1\npbcluster status\n")
