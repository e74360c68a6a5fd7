"""The command ``pbcluster`` over a real cluster: SeaweedFS, a member, nodes, a gateway."""

import signal
from pathlib import Path

from pbcluster.cli import procfs, state
from pbcluster.cli.layout import ClusterDir
from tests.integration.command_case import PASSWORD, CommandCase


class RealCommandTests(CommandCase):
    def test_two_clusters_side_by_side(self) -> None:
        """Two clusters run at once, share nothing, and down ends only its own processes."""
        ports = ("--gateway-port", "0", "--admin-port", "0", "--nodes", "1")
        one, two = self.up("one", *ports), self.up("two", *ports)
        self.create("one", "shop")
        self.assertEqual([t["name"] for t in self.json("one", "tenants", "list")], ["shop"])
        self.assertEqual(self.json("two", "tenants", "list"), [])
        self.assertEqual([n["id"] for n in self.json("one", "nodes", "list")], ["node_1"])
        again = self.cli("one", "up", "--detach")
        self.assertIn("already running", again.stderr)
        self.assertEqual(self.json("one", "status")["processes"], one["processes"])
        self.cli("one", "down")
        gone = [row["pid"] for row in one["processes"]]
        self.assertEqual([pid for pid in gone if procfs.identify(pid)], [])
        self.assertEqual(self.json("two", "status")["processes"], two["processes"])

    def test_recovers_from_kill9(self) -> None:
        """After kill -9 of supervisor and all processes the next up has every tenant again."""
        first = self.up("one", "--gateway-port", "0", "--admin-port", "0")
        self.create("one", "shop")
        self.assertEqual(self.sign_in(first["gateway"], "shop"), 200)
        supervisor = state.supervisor(ClusterDir.at(self.root / "one"))
        assert supervisor is not None
        below = procfs.descendants(supervisor.pid)
        self.assertGreater(len(below), len(first["processes"]))
        for who in (supervisor, *below):
            procfs.send(who, signal.SIGKILL)
        self.assertEqual(procfs.wait_gone([supervisor, *below], 10), [])
        self.assertEqual({p["state"] for p in self.json("one", "status")["processes"]}, {"stopped"})
        second = self.up("one")
        self.assertEqual(second["gateway"], first["gateway"])
        self.assertEqual(self.sign_in(second["gateway"], "shop"), 200)

    def test_secrets_are_in_no_argv(self) -> None:
        """No process of a cluster, its children included, shows a secret in its argument list."""
        self.up("one", "--gateway-port", "0", "--admin-port", "0", "--nodes", "1")
        self.create("one", "shop")
        where = ClusterDir.at(self.root / "one")
        secrets = {PASSWORD, where.token()}
        for file in (where.root / "secrets").iterdir():
            secrets |= {line.split('"')[1] for line in file.read_text().splitlines() if '"' in line}
        supervisor = state.supervisor(where)
        assert supervisor is not None
        seen = 0
        for who in (supervisor, *procfs.descendants(supervisor.pid)):
            argv = Path(f"/proc/{who.pid}/cmdline").read_text()
            self.assertEqual([secret for secret in secrets if secret in argv], [], argv[:60])
            seen += "pocketbase" in argv
        self.assertGreater(seen, 0)
        for log in (where.root / "log").iterdir():
            text = log.read_text(errors="replace")
            self.assertEqual([secret for secret in secrets if secret in text], [], log)
