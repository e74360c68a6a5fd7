"""Members join and leave a real cluster while it serves, by the commands that users type."""

from __future__ import annotations

import shutil
from typing import Any

from pbcluster.cli import procfs
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.http import ask
from pbcluster.cli.layout import ClusterDir
from tests.integration.command_case import CommandCase


class GrowingTests(CommandCase):
    def members(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.json("c", "members", "list")}

    def test_a_member_is_replaced(self) -> None:
        """One of three loses its disk. It is removed and stops; a new one joins, gets a snapshot,
        votes; then every member of the beginning is replaced, and tenants, nodes and the gateway
        follow without a restart: what was there is there, and what is new works."""
        self.up("c", "--nodes", "1", "--gateway-port", "0", "--admin-port", "0")
        self.create("c", "shop")
        where = ClusterDir.at(self.root / "c")
        gateway = where.load_plan().gateway_url
        lost = next(name for name, row in self.members().items() if row["role"] != "leader")
        before = {row["id"]: row["pid"] for row in self.json("c", "status")["processes"]}
        shutil.rmtree(where.data(lost) / "store")
        for old in [lost, *(name for name in self.members() if name != lost)]:
            removed = self.json("c", "members", "remove", old, "--yes")
            self.assertEqual(removed, {"removed": old})
            added = self.json("c", "members", "add")
            self.assertTrue(added["voter"])
        self.assertEqual(sorted(self.members()), ["member_4", "member_5", "member_6"])
        processes = {row["id"]: row for row in self.json("c", "status")["processes"]}
        self.assertEqual(
            sorted(name for name in processes if name.startswith("member")),
            ["member_4", "member_5", "member_6"],
        )
        for name in ("member_1", "member_2", "member_3"):
            self.assertIsNone(procfs.identify(before[name]), name)
        for name in ("node_1", "gateway_1"):
            self.assertEqual(processes[name]["pid"], before[name], f"{name} was restarted")
        self.create("c", "later")
        for tenant in ("shop", "later"):
            self.assertEqual(self.sign_in(gateway, tenant), 200)
        self.assertTrue(self.json("c", "nodes", "list")[0]["alive"])
        refused = self.cli("c", "members", "add", "--id", lost, fails=True)
        self.assertIn("an id never comes back", refused.stderr)
        token = where.token()
        for url in where.load_plan().admin_urls:
            names = sorted(t["name"] for t in AdminClient(url, token).all("tenants"))
            self.assertEqual(names, ["later", "shop"])

    def test_one_becomes_three(self) -> None:
        """A cluster of one grows; it survives the death of its first member then."""
        ports = ("--gateway-port", "0", "--admin-port", "0")
        self.up("c", "--nodes", "1", "--members", "1", *ports)
        self.create("c", "shop")
        for _ in range(2):
            self.json("c", "members", "add")
        found = self.members()
        self.assertEqual([found[name]["voter"] for name in sorted(found)], [True] * 3)
        where = ClusterDir.at(self.root / "c")
        self.json("c", "members", "remove", "member_1", "--yes")
        self.create("c", "later")
        gateway = where.load_plan().gateway_url
        for tenant in ("shop", "later"):
            answer = ask("GET", f"{gateway}/api/health", headers={"Host": f"{tenant}.localhost"})
            self.assertEqual(answer.status, 200)
        self.assertNotIn("member_1", [p.id for p in where.load_plan().processes])

    def test_all_members_are_lost(self) -> None:
        """All three lose their disks. From a saved state the cluster begins anew: what was in it
        is there, with its tenant's login; what came later is unknown; new things work. A member
        of the former cluster that comes back is heard by nobody."""
        self.up("c", "--nodes", "1", "--gateway-port", "0", "--admin-port", "0")
        where = ClusterDir.at(self.root / "c")
        gateway = where.load_plan().gateway_url
        self.create("c", "shop")
        file = str(self.root / "saved")
        saved = self.json("c", "members", "snapshot", file)
        self.create("c", "later")
        self.cli("c", "down")
        former = where.load_plan()
        kept = self.root / "member_1"
        shutil.copytree(where.data("member_1"), kept)
        for member in former.of("member"):
            shutil.rmtree(where.data(member.id) / "store")
        found = self.json("c", "members", "recover", file, "--yes", "--no-wait")
        self.assertEqual(found["former"], former.cluster_id)
        self.assertEqual(saved["clusterID"], former.cluster_id)
        self.up("c")
        self.assertEqual([t["name"] for t in self.json("c", "tenants", "list")], ["shop"])
        self.assertEqual(self.sign_in(gateway, "shop"), 200)
        self.create("c", "new")
        self.assertEqual(self.sign_in(gateway, "new"), 200)
        self.cli("c", "down")
        shutil.rmtree(where.data("member_1"))
        shutil.copytree(kept, where.data("member_1"))
        self.cli("c", "up", "--detach")
        states = {row["id"]: row["state"] for row in self.json("c", "status")["processes"]}
        self.assertEqual((states.pop("member_1"), set(states.values())), ("dead", {"serving"}))
        told = where.log("member_1").read_text()
        self.assertIn(f"has cluster_id '{former.cluster_id}'", told)
        # The two others are a majority; it is replaced by another.
        self.json("c", "members", "remove", "member_1", "--yes")
        self.assertTrue(self.json("c", "members", "add")["voter"])
        self.assertEqual(self.sign_in(gateway, "shop"), 200)
