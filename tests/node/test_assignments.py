"""The list of what this node owns."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.assignments import Assignments, Change
from pbcluster.wire import Assignment, AssignmentChanges, NodeAssignments
from tests.node.harness import T, U, assignment


class AssignmentsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.assignments = Assignments("node_a")
        self.assignments.incarnation = 2
        self.first = assignment(T, 3)
        self.obey(10, self.first)

    def obey(
        self, index: int, *rows: Assignment, incarnation: int = 2, node: str = "node_a"
    ) -> Change | None:
        return self.assignments.obey(NodeAssignments(node, incarnation, index, rows))

    def test_new_and_gone(self) -> None:
        """What is new is added, what is missing removed."""
        other = assignment(U)
        self.assertEqual(self.obey(11, other), Change(added=(other,), removed=(T,)))
        self.assertEqual(self.assignments.epochs(), {U: 1})

    def test_new_epoch_replaces(self) -> None:
        """A newer epoch of a tenant is a new assignment and ends the old one."""
        newer = assignment(T, 4)
        self.assertEqual(self.obey(11, newer), Change(added=(newer,), replaced=(T,)))

    def test_older_epoch_changes_nothing(self) -> None:
        """Epochs only grow."""
        self.assertEqual(self.obey(11, assignment(T, 2)), Change())
        self.assertEqual(self.assignments.get(T), self.first)

    def test_details(self) -> None:
        """Other host names under the same epoch are an update."""
        renamed = assignment(T, 3, hosts=("new.localhost",))
        self.assertEqual(self.obey(11, renamed), Change(updated=(renamed,)))

    def test_refused(self) -> None:
        """Lists of the past, of others, and of another start are refused."""
        self.assertIsNone(self.obey(10))
        self.assertIsNone(self.obey(9))
        self.assertIsNone(self.obey(11, incarnation=1))
        self.assertIsNone(self.obey(11, incarnation=3))
        self.assertIsNone(self.obey(11, node="node_b"))
        self.assertEqual(self.assignments.epochs(), {T: 3})


class ChangesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.assignments = Assignments("node_a")
        self.assignments.incarnation = 2
        self.obey(10, assignment(T, 3), assignment(U), list_id=7)

    def obey(self, index: int, *rows: Assignment, list_id: int = 0) -> Change | None:
        return self.assignments.obey(NodeAssignments("node_a", 2, index, rows, (), list_id))

    def change(
        self,
        since: int,
        changed: tuple[Assignment, ...] = (),
        removed: tuple[str, ...] = (),
        *,
        index: int = 11,
        incarnation: int = 2,
    ) -> Change | None:
        since_any = (since, 99)
        told = AssignmentChanges(
            "node_a", incarnation, index, since_any, since + 1, changed, removed
        )
        return self.assignments.obey(told)

    def test_one_of_many(self) -> None:
        """What changed counts, the rest stays; the next changes start from there."""
        newer = assignment(T, 4)
        self.assertEqual(self.change(7, (newer,)), Change(added=(newer,), replaced=(T,)))
        self.assertEqual(self.change(8, (), (U,), index=12), Change(removed=(U,)))
        self.assertEqual(self.assignments.epochs(), {T: 4})
        self.assertEqual(self.assignments.index, 12)

    def test_of_another_list(self) -> None:
        """What came between was lost, and may have taken a tenant away: nothing is obeyed."""
        for since in (0, 6, 8):
            self.assertIsNone(self.change(since, (assignment(T, 4),)))
        self.assertEqual(self.assignments.epochs(), {T: 3, U: 1})
        self.assertEqual(self.assignments.index, 10)

    def test_a_list_without_an_id(self) -> None:
        """It cannot be changed."""
        self.obey(11, assignment(T, 3))
        self.assertIsNone(self.change(0, index=12))

    def test_older_or_of_another_incarnation(self) -> None:
        """They are refused as lists are."""
        self.assertIsNone(self.change(7, index=10))
        self.assertIsNone(self.change(7, incarnation=1))

    def test_an_equal_list_under_another_id(self) -> None:
        """It is refused, being no newer, and ours keeps its id."""
        self.assertIsNone(self.obey(10, assignment(T, 3), assignment(U), list_id=21))
        self.assertIsNone(self.change(21, (), (U,)))
        self.assertEqual(self.change(7, (), (U,)), Change(removed=(U,)))
