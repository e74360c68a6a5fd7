"""The procedures of docs/operations: every block of commands there is run, and its outcome looked
at. ``procedures_case`` says how."""

import time

from twisted.trial.unittest import SynchronousTestCase

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


class EveryBlockTests(SynchronousTestCase):
    def test_each_is_run(self) -> None:
        """No page names a block that no test here runs, and no test one that no page has."""
        cases = [UpgradeTests]
        run = [name for case in cases for name in case.blocks]
        self.assertEqual(sorted(run), sorted(all_blocks()))

    def test_a_block_is_read_whole(self) -> None:
        """Its commands with their own indentation, up to the text after it."""
        page = procedures_case.PAGES / "upgrade.rst"
        found = procedures_case._extension().blocks(page)
        self.assertEqual(found["upgrade-one"], "pbcluster restart gateway_1\npbcluster status\n")
