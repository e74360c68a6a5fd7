"""The procedures of docs/operations: every block of commands there is run, and its outcome looked
at. ``procedures_case`` says how."""

import time

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import config
from pbcluster.cli import secret_files
from pbcluster.cli.http import ask
from pbcluster.cli.layout import BUCKET
from pbcluster.cli.s3 import s3_serves
from tests.integration import procedures_case
from tests.integration.procedures_case import ProcedureCase, all_blocks


class UpgradeTests(ProcedureCase):
    """docs/operations/upgrade.rst"""

    blocks = ("upgrade-save", "upgrade-all", "upgrade-one")
    options = ("--nodes", "2", "--members", "3")

    def test_upgrade(self) -> None:
        """Every process is another one afterwards, and nobody who wrote or read met a failure; S3
        was not touched, and the nodes take tenants again."""
        client = self.tenant("shop")
        self.tenant("second")
        before = self.pids()
        with self.served(client):
            told = self.run_block("upgrade-save")
            self.assertIn("replicate", told)
            began = time.monotonic()
            self.run_block("upgrade-all")
            print(f"  [restart --all: {time.monotonic() - began:.1f} s]")
            now = self.pids()
            same = [name for name, pid in before.items() if now.get(name) == pid]
            self.assertEqual(same, ["s3_1"])
            self.run_block("upgrade-one")
            self.assertNotEqual(self.pids()["gateway_1"], now["gateway_1"])
        nodes = self.json("cluster", "nodes", "list")
        self.assertEqual([row["drainWanted"] for row in nodes], [False, False])


class KeysTests(ProcedureCase):
    """docs/operations/keys.rst"""

    blocks = ("keys-gateways", "keys-admin", "keys-s3", "keys-processes")
    options = ("--nodes", "2", "--members", "3")

    def test_keys(self) -> None:
        """Each exchange under writers and readers: no request fails, every key is another one, and
        the former token and keys of S3 open nothing. One that was interrupted before is done by the
        same command."""
        client = self.tenant("shop")
        before = self.secrets()
        # As if an exchange had ended after its first step.
        secret_files.change(
            self.where, "node_1", {"gateway_keys_also": {"gateway_1": ["of another try"]}}
        )
        token, s3 = self.where.token(), secret_files.s3_keys(self.where, self.plan)
        with self.served(client):
            for name in self.blocks:
                began = time.monotonic()
                self.run_block(name)
                print(f"  [{name}: {time.monotonic() - began:.1f} s]")
        now = self.secrets()
        self.assertEqual({name for name in before if before[name] == now.get(name)}, set())
        self.assertEqual([name for name in now if "also" in name], [])
        refused = ask(
            "GET",
            f"{self.plan.admin_url}/api/cp/nodes",
            headers={"Authorization": f"Bearer {token}"},
        )
        self.assertEqual(refused.status, 401)
        s3_url = f"http://127.0.0.1:{self.plan.of('s3')[0].ports['s3']}"
        self.assertFalse(s3_serves(s3_url, BUCKET, *s3))
        self.assertTrue(s3_serves(s3_url, BUCKET, *secret_files.s3_keys(self.where, self.plan)))
        self.assertEqual(self.sh("grep -c curve_also cluster/config/peers.toml || true"), "0\n")
        # Whoever starts now starts with what is there.
        self.sh("pbcluster down && pbcluster up --detach")
        self.assertEqual(self.client("shop").ask("GET", "/api/health")[0], 200)

    def secrets(self) -> dict[str, str]:
        """Every key that an exchange replaces, by file and name."""
        found = {}
        for process in self.plan.processes:
            for name, value in config.read_toml(self.where.secrets(process.id)).items():
                if name not in ("tenant_key", "gateway_seed"):
                    found[f"{process.id} {name}"] = str(value)
        return found


class EveryBlockTests(SynchronousTestCase):
    def test_each_is_run(self) -> None:
        """No page names a block that no test here runs, and no test one that no page has."""
        cases = [UpgradeTests, KeysTests]
        run = [name for case in cases for name in case.blocks]
        self.assertEqual(sorted(run), sorted(all_blocks()))

    def test_a_block_is_read_whole(self) -> None:
        """Its commands with their own indentation, up to the text after it."""
        page = procedures_case.PAGES / "upgrade.rst"
        found = procedures_case._extension().blocks(page)
        self.assertEqual(found["upgrade-one"], "pbcluster restart gateway_1\npbcluster status\n")
