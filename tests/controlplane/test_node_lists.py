"""What a node is told of its list, and what it makes of it when messages are lost."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.node_lists import NodeLists
from pbcluster.controlplane.registry import Registry
from pbcluster.controlplane.touched import Touched
from pbcluster.node.assignments import Assignments
from pbcluster.records import ProcessRecord

AT = datetime(2026, 11, 27, tzinfo=UTC)
NODES = ("node_a", "node_b")
STEPS = (*("create", "move", "rename") * 4, "ready", "lease", "restart", "deposed")


class Leader:
    """A registry with two nodes, and what they were told."""

    def __init__(self) -> None:
        self.registry = Registry("x.test")
        self.lists = NodeLists(lambda: self.registry, itertools.count(1).__next__)
        self.starts = itertools.count(1)
        for node_id in NODES:
            self.apply(c.SetProcess(AT, ProcessRecord(node_id, "node", "key")))
            self.register(node_id)

    def apply(self, command: c.Command) -> tuple[str, ...]:
        """:returns: nodes to be told; none if it is refused."""
        registry = self.registry
        return registry.apply(registry.applied_index + 1, c.Keyed("", command)).changed_nodes

    def register(self, node_id: str) -> None:
        start = f"start{next(self.starts)}"
        self.apply(c.RegisterNode(AT, node_id, start, "http://127.0.0.1:1", 100))

    def create(self, number: int, node_id: str = "node_a") -> tuple[str, ...]:
        name = f"tenant{number}"
        return self.apply(
            c.CreateTenant(AT, f"tenant_0000000{number}", name, f"{name}.x.test", node_id=node_id)
        )

    def move(self, number: int, node_id: str) -> tuple[str, ...]:
        tenant = self.registry.tenant(f"tenant{number}")
        return self.apply(c.AssignTenant(AT, tenant.id, node_id, tenant.epoch))

    def ready(self, number: int) -> tuple[str, ...]:
        tenant = self.registry.tenant(f"tenant{number}")
        return self.apply(c.MarkReady(AT, tenant.id, tenant.node_id, tenant.epoch))

    def rename(self, number: int) -> tuple[str, ...]:
        tenant = self.registry.tenant(f"tenant{number}")
        domain = f"v{tenant.version}.x.test"
        return self.apply(c.UpdateTenant(AT, tenant.id, custom_domains=(domain,)))

    def rows(self, node_id: str) -> dict[str, wire.Assignment]:
        return {row.tenant_id: row for row in self.registry.assignments(node_id).assignments}


class ToldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.leader = Leader()
        self.leader.create(1)
        self.leader.create(2)

    def test_when_it_is_whole(self) -> None:
        """Nothing was told before, or to an earlier start of the node, or it did not go out."""
        lists = self.leader.lists
        self.assertIsInstance(lists.news("node_a"), wire.NodeAssignments)
        self.assertIsInstance(lists.news("node_a"), wire.AssignmentChanges)
        self.leader.register("node_a")
        self.assertIsInstance(lists.news("node_a"), wire.NodeAssignments)
        lists.forget("node_a")
        self.assertIsInstance(lists.news("node_a"), wire.NodeAssignments)
        lists.clear()
        self.assertIsInstance(lists.news("node_a"), wire.NodeAssignments)

    def test_whole_after_too_many_changes(self) -> None:
        """Who was told long ago is told all."""
        self.leader.registry.touched = Touched(kept=4)
        self.leader.lists.whole("node_a")
        for _ in range(4):
            self.leader.rename(1)
        self.assertIsInstance(self.leader.lists.news("node_a"), wire.AssignmentChanges)
        for _ in range(5):
            self.leader.rename(1)
        self.assertIsInstance(self.leader.lists.news("node_a"), wire.NodeAssignments)

    def test_from_any_of_the_last_lists(self) -> None:
        """An answer and what is told unasked cross each other: whichever was obeyed, the next
        changes make the present list of it; what was lost comes with them."""
        for obeyed in range(3):
            leader = Leader()
            leader.create(1)
            node = Assignments("node_a")
            node.incarnation = leader.registry.node("node_a").incarnation
            told: list[wire.NodeAssignments | wire.AssignmentChanges] = [
                leader.lists.whole("node_a")
            ]
            node.obey(told[0])
            leader.create(2)
            told.append(leader.lists.news("node_a"))
            leader.ready(2)
            told.append(leader.lists.whole("node_a"))
            node.obey(told[obeyed])
            leader.create(3)
            self.assertIsNotNone(node.obey(leader.lists.news("node_a")), obeyed)
            rows = {key: node.get(key) for key in node.epochs()}
            self.assertEqual(rows, leader.rows("node_a"), obeyed)

    def test_another_registry(self) -> None:
        """What a snapshot brought has no memory of what was told."""
        self.leader.lists.whole("node_a")
        self.leader.registry = Registry.from_bytes("x.test", self.leader.registry.to_bytes())
        self.assertIsInstance(self.leader.lists.news("node_a"), wire.NodeAssignments)

    def test_only_what_changed(self) -> None:
        """One row of many, and the ids of those that went; readiness comes along."""
        first = self.leader.lists.whole("node_a")
        self.leader.ready(2)
        self.leader.create(3)
        self.leader.move(1, "node_b")
        told = self.leader.lists.news("node_a")
        assert isinstance(told, wire.AssignmentChanges)
        changed = {each.name: each.ever_ready for each in told.changed}
        self.assertEqual(changed, {"tenant2": True, "tenant3": False})
        self.assertEqual((told.removed, told.since), (("tenant_00000001",), (first.list_id,)))
        self.assertEqual(told.index, self.leader.registry.node("node_a").assignments_index)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(STEPS),
                st.integers(1, 5),
                st.sampled_from(NODES),
                st.booleans(),
            ),
            min_size=20,
            max_size=60,
        )
    )
    def test_changes_make_the_list_that_the_registry_has(
        self, steps: list[tuple[str, int, str, bool]]
    ) -> None:
        """Whatever is lost: who obeyed something has exactly the registry's list, and one answered
        lease later everybody has."""
        leader, nodes = Leader(), {each: Assignments(each) for each in NODES}

        def heard(node_id: str, told: wire.NodeAssignments | wire.AssignmentChanges) -> None:
            node = nodes[node_id]
            if node.obey(told) is not None:
                own = {key: node.get(key) for key in node.epochs()}
                self.assertEqual(own, leader.rows(node_id))

        def register(node_id: str) -> None:
            nodes[node_id] = node = Assignments(node_id)
            leader.register(node_id)
            node.incarnation = leader.registry.node(node_id).incarnation
            heard(node_id, leader.lists.whole(node_id))

        for node_id in NODES:
            register(node_id)
        for what, number, node_id, lost in steps:
            changed: tuple[str, ...] = ()
            known = number <= len(list(leader.registry.tenants()))
            if what == "create":
                changed = leader.create(number, node_id)
            elif what == "move" and known:
                changed = leader.move(*self.known(leader, number), node_id)
            elif what == "ready" and known:
                changed = leader.ready(*self.known(leader, number))
            elif what == "rename" and known:
                changed = leader.rename(*self.known(leader, number))
            elif what == "restart":
                register(node_id)
            elif what == "deposed":
                leader.lists.clear()
            elif what == "lease":
                told = leader.lists.whole(node_id)
                if not lost:
                    heard(node_id, told)
            for each in changed:
                news = leader.lists.news(each)
                if not lost:
                    heard(each, news)
        for node_id in NODES:
            heard(node_id, leader.lists.whole(node_id))
            self.assertEqual(set(nodes[node_id].epochs()), set(leader.rows(node_id)))
            index = leader.registry.node(node_id).assignments_index
            self.assertEqual(nodes[node_id].index, index)

    @staticmethod
    def known(leader: Leader, number: int) -> tuple[int]:
        """The number of a tenant that there is."""
        there = sorted(int(each.name[6:]) for each in leader.registry.tenants())
        return (there[number % len(there)],)
