"""``nodes remove`` and ``gateways list|remove``: what is asked, what becomes of the directory."""

from __future__ import annotations

import json
import os
from typing import Any

from click.testing import CliRunner

from pbcluster.cli import initialise, procfs, state
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import plan_content, to_toml
from pbcluster.cli.main import cli
from tests.cli.support import DirectoryTestCase
from tests.cli.test_members import FakeMember

DRAINED = {"nodeID": "node_2", "left": 0, "drainWanted": True, "aborted": {}, "status": "draining"}


class LeavingTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        wish = Wish(nodes=2, members=1, gateway_port=0, admin_port=0)
        self.plan = initialise.initialise(self.where, wish)
        self.signals: list[int] = []
        self.patch(procfs, "send", lambda who, number: self.signals.append(number))

    def type(self, *arguments: str, answers: list[tuple[int, Any]]) -> tuple[int, str]:
        """A command, before a member that gives these answers."""
        self.member = FakeMember(*answers)
        self.addCleanup(self.member.close)
        content = plan_content(self.where.load_plan())
        (member,) = (row for row in content["processes"] if row["kind"] == "member")
        member["ports"]["admin"] = self.member.server.server_address[1]
        self.where.plan_file.write_text(to_toml(content))
        done = CliRunner().invoke(cli, [*arguments, "--dir", str(self.where.root)])
        return done.exit_code, done.output

    def asked(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path, _, _ in self.member.asked]

    def test_a_node_of_this_directory(self) -> None:
        """It is drained, then removed, then gone from the plan, and its process is ended; the next
        new node gets another id."""
        me = procfs.identify(os.getpid())
        assert me is not None
        state.write_supervisor(self.where, me)
        gone = {"id": "node_2", "removed": True, "left": 0}
        answers = [(200, DRAINED), (200, DRAINED), (200, gone)]
        code, output = self.type("nodes", "remove", "node_2", "--yes", answers=answers)
        self.assertEqual(code, 0, output)
        self.assertEqual(
            self.asked(),
            [
                ("POST", "/api/cp/nodes/node_2/drain"),
                ("GET", "/api/cp/nodes/node_2/drain"),
                ("DELETE", "/api/cp/nodes/node_2"),
            ],
        )
        self.assertEqual([p.id for p in self.where.load_plan().of("node")], ["node_1"])
        self.assertEqual(len(self.signals), 1)
        grown = initialise.ensure(self.where, Wish(nodes=2))
        self.assertEqual([p.id for p in grown.of("node")], ["node_1", "node_3"])

    def test_by_force(self) -> None:
        """Nothing is drained; how many tenants were there is told."""
        gone = {"id": "node_x", "removed": True, "left": 3}
        code, output = self.type(
            "nodes", "remove", "node_x", "--force", "--yes", answers=[(200, gone)]
        )
        self.assertEqual(code, 0, output)
        self.assertEqual(self.asked(), [("DELETE", "/api/cp/nodes/node_x?force=true")])
        self.assertIn("3 tenants are placed elsewhere", output)
        self.assertEqual(len(self.where.load_plan().of("node")), 2)

    def test_a_node_that_never_came(self) -> None:
        """It has nothing to drain."""
        gone = {"id": "node_x", "removed": True, "left": 0}
        unknown = (404, {"status": 404, "message": "no node", "data": {}})
        code, output = self.type(
            "nodes", "remove", "node_x", "--yes", answers=[unknown, (200, gone)]
        )
        self.assertEqual(code, 0, output)

    def test_a_refusal_changes_nothing(self) -> None:
        """Neither here nor there."""
        refused = (409, {"status": 409, "message": "it has 1 tenants", "data": {}})
        code, output = self.type(
            "nodes", "remove", "node_2", "--yes", answers=[(200, DRAINED), (200, DRAINED), refused]
        )
        self.assertEqual(code, 1)
        self.assertIn("it has 1 tenants", output)
        self.assertEqual((self.where.removed(), self.signals), ((), []))
        self.assertEqual(len(self.where.load_plan().of("node")), 2)

    def test_the_last_gateway_of_a_directory(self) -> None:
        """It is removed; the plan, which needs one, keeps it, and says so."""
        gone = {"id": "gateway_1", "removed": True, "left": 0}
        code, output = self.type("gateways", "remove", "gateway_1", "--yes", answers=[(200, gone)])
        self.assertEqual(code, 0, output)
        self.assertIn("last of its kind", output)
        self.assertEqual(len(self.where.load_plan().of("gateway")), 1)
        self.assertEqual(self.where.removed(), ("gateway_1",))

    def test_gateways_are_listed(self) -> None:
        """For people and for programs."""
        rows = [{"id": "gateway_1", "joined": None, "joinToken": ""}]
        page = (200, {"page": 1, "perPage": 200, "totalItems": 1, "items": rows})
        code, output = self.type("gateways", "list", answers=[page])
        self.assertEqual(code, 0, output)
        self.assertIn("gateway_1", output)
        code, output = self.type("gateways", "list", "--json", answers=[page])
        self.assertEqual(json.loads(output), rows)
