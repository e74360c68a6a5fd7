"""What is done before and after a process is replaced, against an admin API that remembers."""

from typing import Any

from pbcluster.cli import initialise, replacing
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import Plan
from pbcluster.cli.restarting import Restarter
from pbcluster.errors import ProcessFailed
from tests.cli.support import DirectoryTestCase


class Admin:
    """Members, nodes, drains; a node has two tenants until it was looked at twice."""

    def __init__(self, plan: Plan, leader: str = "member_1") -> None:
        self.leader = leader
        self.members = [p.id for p in plan.of("member")]
        self.nodes: dict[str, dict[str, Any]] = {
            p.id: {"id": p.id, "alive": True, "incarnation": 1, "drainWanted": False}
            for p in plan.of("node")
        }
        self.left = 2
        self.done: list[str] = []

    def all(self, what: str) -> list[dict[str, Any]]:
        if what == "nodes":
            return [dict(row) for row in self.nodes.values()]
        return [
            {
                "id": name,
                "role": "leader" if name == self.leader else "follower",
                "voter": True,
                "state": "" if name == self.leader else "replicate",
                "behind": 0,
                "index": 7,
            }
            for name in self.members
        ]

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if path == "/members/transfer":
            assert body is not None
            self.leader = str(body["to"])
            self.done.append(f"transfer {self.leader}")
            return None
        name, what = path.split("/")[2:]
        if method == "POST":
            self.done.append(f"{what} {name}")
            self.nodes[name]["drainWanted"] = what == "drain"
        else:
            self.left = max(0, self.left - 1)
        return {"left": self.left}


class RestartingTests(DirectoryTestCase):
    def begin(self, *, nodes: int = 2, members: int = 3, fails: str = "") -> Restarter:
        wish = Wish(gateway_port=0, admin_port=0, nodes=nodes, members=members)
        self.plan = initialise.initialise(self.where, wish)
        self.admin = Admin(self.plan)

        def replace(where: object, plan: object, name: str) -> int:
            self.admin.done.append(f"replace {name}")
            if name == fails:
                raise ProcessFailed("it ended")
            if name in self.admin.nodes:
                self.admin.nodes[name]["incarnation"] += 1
            return 4711

        self.patch(replacing, "replace", replace)
        client: Any = self.admin
        return Restarter(self.where, client, lambda line: None)

    def one(self, restarter: Restarter, name: str) -> list[str]:
        self.admin.done.clear()
        restarter.one(self.plan, self.plan.process(name))
        return self.admin.done

    def test_order(self) -> None:
        """Members, of them the leader last, nodes, gateways; S3 is left alone."""
        restarter = self.begin()
        order = [process.id for process in restarter.in_order(self.plan)]
        members, rest = order[:3], order[3:]
        self.assertEqual(members, ["member_2", "member_3", "member_1"])
        self.assertEqual(rest, ["node_1", "node_2", "gateway_1"])
        self.assertEqual([one.id for one in restarter.all(self.plan)], order)

    def test_a_leader_hands_over(self) -> None:
        """Before it is replaced; a follower, and a member that is alone, are just replaced."""
        restarter = self.begin()
        self.assertEqual(self.one(restarter, "member_2"), ["replace member_2"])
        handed = self.one(restarter, "member_1")
        self.assertRegex(" ".join(handed), "^transfer member_[23] replace member_1$")
        self.admin.members, self.admin.leader = ["member_1"], "member_1"
        self.assertEqual(self.one(restarter, "member_1"), ["replace member_1"])

    def test_a_node_is_drained(self) -> None:
        """Until it has no tenants; then it is replaced and takes tenants again."""
        restarter = self.begin()
        done = restarter.one(self.plan, self.plan.process("node_1"))
        self.assertEqual(done.moved, 2)
        self.assertEqual(self.admin.done, ["drain node_1", "replace node_1", "undrain node_1"])

    def test_a_node_that_is_not_drained(self) -> None:
        """Where no other takes its tenants, where an operator drained it (it stays so), and with
        --no-drain."""
        restarter = self.begin()
        self.admin.nodes["node_1"]["drainWanted"] = True
        self.assertEqual(self.one(restarter, "node_1"), ["replace node_1"])
        self.assertEqual(self.one(restarter, "node_2"), ["replace node_2"])
        self.admin.nodes["node_1"]["drainWanted"] = False
        client: Any = self.admin
        without = Restarter(self.where, client, lambda line: None, drain=False)
        self.assertEqual(self.one(without, "node_1"), ["replace node_1"])

    def test_one_that_does_not_come_back(self) -> None:
        """The drain is taken back, and nobody after it is touched."""
        restarter = self.begin(fails="node_1")
        self.assertRaises(ProcessFailed, list, restarter.all(self.plan))
        self.assertEqual(self.admin.done[-3:], ["drain node_1", "replace node_1", "undrain node_1"])
