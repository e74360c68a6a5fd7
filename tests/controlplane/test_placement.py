"""Placement: the least loaded node that can take a tenant, or the reasons why none can."""

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.placement import Candidate, choose
from pbcluster.errors import NoCapacity
from pbcluster.records import NodeRecord, NodeStatus


def node(
    name: str,
    assigned: int = 0,
    *,
    capacity: int = 10,
    alive: bool = True,
    degraded: bool = False,
    status: NodeStatus = NodeStatus.HEALTHY,
) -> Candidate:
    record = NodeRecord(id=name, address="http://n:1", capacity=capacity, status=status)
    return Candidate(record, assigned, alive, degraded)


class TestChoose(SynchronousTestCase):
    def test_the_least_loaded_share_wins(self) -> None:
        """Load is a share of the capacity, so a large node takes more."""
        choice = choose([node("a", 5), node("b", 8, capacity=100), node("c", 6)])
        self.assertEqual(choice.node_id, "b")
        self.assertEqual(set(choice.reasons), {"a", "c"})

    def test_the_order_of_candidates_does_not_matter(self) -> None:
        """The same view gives the same choice."""
        nodes = [node("a", 1), node("b", 1), node("c", 1)]
        self.assertEqual(choose(nodes), choose(nodes[::-1]))

    def test_a_preferred_node_wins_if_it_can(self) -> None:
        """It has a copy; but not if it is full."""
        self.assertEqual(choose([node("a"), node("b", 9)], prefer="b").node_id, "b")
        self.assertEqual(choose([node("a"), node("b", 10)], prefer="b").node_id, "a")

    def test_a_degraded_node_is_the_last_resort(self) -> None:
        """It is taken when every other one cannot."""
        self.assertEqual(choose([node("a", 9), node("b", degraded=True)]).node_id, "a")
        self.assertEqual(choose([node("a", 10), node("b", degraded=True)]).node_id, "b")

    def test_who_cannot_take_it_is_told_with_its_reason(self) -> None:
        """Without a choice the error names each node and why."""
        nodes = [
            node("full", 10),
            node("silent", alive=False),
            node("draining", status=NodeStatus.DRAINING),
            node("down", status=NodeStatus.DOWN),
        ]
        error = self.assertRaises(NoCapacity, choose, nodes)
        for told in ("full (10 of 10", "silent does not answer", "draining is draining", "is down"):
            self.assertIn(told, error.message)

    def test_no_node_at_all(self) -> None:
        """It says that none has registered."""
        self.assertIn("none has registered", self.assertRaises(NoCapacity, choose, []).message)

    def test_no_room_divides_by_nothing(self) -> None:
        """A node without any capacity is full, even for what it has."""
        self.assertRaises(NoCapacity, choose, [node("a", 0, capacity=0)])
