"""The list of what this node owns."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.assignments import Assignments, Change
from pbcluster.wire import Assignment, NodeAssignments
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
