"""What a node is told of its list, and what it makes of it when messages are lost."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane.node_lists import NodeLists
from pbcluster.node.assignments import Assignments
from pbcluster.records import Durability

NODE = "node_a"


def row(tenant: int, epoch: int) -> wire.Assignment:
    return wire.Assignment(
        f"t{tenant}", epoch, "name", ("host",), True, Durability.SYNC, wanted=True
    )


class Leader:
    """The list of one node, as the registry has it, and what was told of it."""

    def __init__(self) -> None:
        self.index = 1
        self.incarnation = 1
        self.rows: dict[str, wire.Assignment] = {}
        self.lists = NodeLists(lambda node_id: self.now(), itertools.count(1).__next__)

    def now(self) -> wire.NodeAssignments:
        rows = tuple(self.rows[key] for key in sorted(self.rows))
        return wire.NodeAssignments(NODE, self.incarnation, self.index, rows)

    def put(self, tenant: int) -> None:
        self.index += 1
        old = self.rows.get(f"t{tenant}")
        self.rows[f"t{tenant}"] = row(tenant, old.epoch + 1 if old else self.index)

    def take(self, tenant: int) -> None:
        self.index += 1
        self.rows.pop(f"t{tenant}", None)


class ToldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.leader = Leader()
        self.leader.put(1)
        self.leader.put(2)

    def test_the_first_is_whole(self) -> None:
        """Nothing was told before, or to an earlier start of the node, or what was did not go."""
        lists = self.leader.lists
        self.assertIsInstance(lists.news(NODE), wire.NodeAssignments)
        self.assertIsInstance(lists.news(NODE), wire.AssignmentChanges)
        self.leader.incarnation = 2
        self.assertIsInstance(lists.news(NODE), wire.NodeAssignments)
        lists.forget(NODE)
        self.assertIsInstance(lists.news(NODE), wire.NodeAssignments)
        lists.clear()
        self.assertIsInstance(lists.news(NODE), wire.NodeAssignments)

    def test_only_what_changed(self) -> None:
        """One row of many, and the ids of those that went."""
        first = self.leader.lists.whole(NODE)
        self.leader.put(2)
        self.leader.put(3)
        self.leader.take(1)
        told = self.leader.lists.news(NODE)
        assert isinstance(told, wire.AssignmentChanges)
        self.assertEqual([each.tenant_id for each in told.changed], ["t2", "t3"])
        self.assertEqual((told.removed, told.since), (("t1",), first.list_id))
        self.assertEqual(told.index, self.leader.index)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("put", "put", "take", "lease", "restart", "deposed")),
                st.integers(0, 4),
                st.booleans(),
            ),
            max_size=40,
        )
    )
    def test_a_node_never_has_another_list_under_an_index(
        self, steps: list[tuple[str, int, bool]]
    ) -> None:
        """Whatever is lost: what a node obeyed is what the registry had at that index, and one
        answered lease later it has the present list."""
        leader, node = Leader(), Assignments(NODE)
        had = {}

        def heard(told: wire.NodeAssignments | wire.AssignmentChanges, *, lost: bool) -> None:
            had[leader.index] = {key: each.epoch for key, each in leader.rows.items()}
            if not lost:
                node.obey(told)
            if node.index >= 0:
                self.assertEqual(node.epochs(), had[node.index])

        def register() -> None:
            leader.index += 1
            node.incarnation = leader.incarnation
            heard(leader.lists.whole(NODE), lost=False)

        register()
        for what, tenant, lost in steps:
            if what == "put":
                leader.put(tenant)
                heard(leader.lists.news(NODE), lost=lost)
            elif what == "take":
                leader.take(tenant)
                heard(leader.lists.news(NODE), lost=lost)
            elif what == "lease":
                heard(leader.lists.whole(NODE), lost=lost)
            elif what == "restart":
                leader.incarnation += 1
                node = Assignments(NODE)
                register()
            else:
                leader.lists.clear()
        heard(leader.lists.whole(NODE), lost=False)
        self.assertEqual(node.index, leader.index)
