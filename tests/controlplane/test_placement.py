"""Placement: the least loaded node that can take a tenant, or the reasons why none can."""

import random

import attrs
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.placement import (
    Candidate,
    Wish,
    best_of,
    choose,
    rebalance,
    reserve_of,
)
from pbcluster.controlplane.shortlist import Shortlist
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


MOVED = Wish(unwell=False)
NODES = st.lists(
    st.builds(
        lambda capacity, share, alive, degraded, status, memory, zone: (
            capacity,
            round(capacity * share),
            alive,
            degraded,
            status,
            memory,
            zone,
        ),
        st.integers(1, 40),
        st.floats(0, 1.1),
        st.sampled_from((True, True, True, False)),
        st.sampled_from((False, False, True)),
        st.sampled_from([NodeStatus.HEALTHY] * 4 + list(NodeStatus)),
        st.sampled_from((0.1, 0.95)),
        st.sampled_from(("", "z1", "z2")),
    ),
    max_size=8,
)


def made(rows: list[tuple[int, int, bool, bool, NodeStatus, float, str]]) -> list[Candidate]:
    found = []
    for number, (capacity, assigned, alive, degraded, status, memory, zone) in enumerate(rows):
        record = NodeRecord(
            id=f"node_{number}", address="", capacity=capacity, status=status, zone=zone
        )
        found.append(Candidate(record, assigned, alive, degraded, memory_share=memory))
    return found


class TestRules(SynchronousTestCase):
    def test_the_last_tenth_is_for_tenants_of_dead_nodes(self) -> None:
        """A new or moved tenant leaves it alone and is told; a rescued one gets it."""
        nearly_full = node("a", 9)
        self.assertEqual(reserve_of(10), 1)
        error = self.assertRaises(NoCapacity, choose, [nearly_full], wish=Wish())
        self.assertIn("only its reserve left", error.message)
        self.assertEqual(choose([nearly_full], wish=Wish(reserve=True)).node_id, "a")
        self.assertEqual(reserve_of(5), 0)

    def test_who_is_moved_gets_no_unwell_node(self) -> None:
        """Degraded, or short of memory or disk: only for who has no node at all."""
        for unwell in ({"degraded": True}, {"memory_share": 0.95}, {"disk_share": 0.95}):
            candidate = attrs.evolve(node("a"), **unwell)
            self.assertRaises(NoCapacity, choose, [candidate], wish=MOVED)
            self.assertEqual(choose([candidate], wish=Wish()).node_id, "a")
            self.assertEqual(choose([candidate, node("b", 8)], wish=Wish()).node_id, "b")

    def test_region_and_zone_bind(self) -> None:
        """Outside of them nothing is chosen, whatever the load."""
        east = attrs.evolve(node("east", 5), node=attrs_node("east", region="e", zone="e1"))
        west = attrs.evolve(node("west", 0), node=attrs_node("west", region="w", zone="w1"))
        self.assertEqual(choose([east, west], wish=Wish(region="e")).node_id, "east")
        self.assertEqual(choose([east, west], wish=Wish(zone="w1")).node_id, "west")
        error = self.assertRaises(NoCapacity, choose, [east], wish=Wish(region="w"))
        self.assertIn("is not in region w", error.message)

    def test_groups_are_spread_and_copies_preferred(self) -> None:
        """First where fewest of the group are, then where a warm copy is, then the least loaded."""
        crowded = attrs.evolve(node("a", 0), group=2)
        warm = attrs.evolve(node("b", 5), warm=True)
        self.assertEqual(choose([crowded, warm, node("c", 1)]).node_id, "b")
        choice = choose([crowded, node("c", 7)])
        self.assertEqual(choice.node_id, "c")
        self.assertIn("2 of the same group", choice.reasons["a"])

    def test_the_owner_may_keep_it_though_it_is_drained(self) -> None:
        """Another epoch on the same node is no new tenant for it."""
        draining = node("a", status=NodeStatus.DRAINING)
        self.assertRaises(NoCapacity, choose, [draining])
        self.assertEqual(choose([attrs.evolve(draining, owner=True)]).node_id, "a")

    @settings(max_examples=200, deadline=None)
    @given(NODES, st.booleans(), st.booleans(), st.sampled_from(("", "z1")))
    def test_any_view(self, rows: list, reserve: bool, unwell: bool, zone: str) -> None:  # type: ignore[type-arg]
        """Never over capacity, never a node that is silent, down, draining or elsewhere; the same
        view in any order gives the same choice; every node has a reason or is the choice."""
        nodes = made(rows)
        wish = Wish(reserve=reserve, unwell=unwell, zone=zone)
        try:
            choice = choose(nodes, wish=wish)
        except NoCapacity as error:
            self.assertTrue(all(each.objection(wish) for each in nodes))
            for each in nodes:
                self.assertIn(each.node.id, error.message)
            return
        self.assertEqual(choose(nodes[::-1], wish=wish), choice)
        chosen = next(each for each in nodes if each.node.id == choice.node_id)
        self.assertLess(chosen.assigned, chosen.node.capacity)
        self.assertTrue(chosen.alive)
        self.assertIs(chosen.node.status, NodeStatus.HEALTHY)
        self.assertIn(zone, ("", chosen.node.zone))
        self.assertTrue(unwell or not chosen.trouble)
        self.assertEqual(set(choice.reasons), {n.node.id for n in nodes} - {choice.node_id})


def attrs_node(name: str, *, region: str, zone: str) -> NodeRecord:
    return NodeRecord(id=name, address="", capacity=10, region=region, zone=zone)


class TestRebalance(SynchronousTestCase):
    def test_as_few_moves_as_possible(self) -> None:
        """From the fullest to the emptiest, until they are even; nothing when they are."""
        nodes = [node("a", 6), node("b", 0), node("c", 3)]
        tenants = {each.node.id: [f"{each.node.id}{n}" for n in range(6)] for each in nodes}
        moves = rebalance(nodes, tenants.__getitem__)
        self.assertEqual([(m.source, m.target) for m in moves], [("a", "b")] * 3)
        self.assertEqual(rebalance([node("a", 3), node("b", 2)], tenants.__getitem__), [])

    @settings(max_examples=200, deadline=None)
    @given(NODES)
    def test_any_view(self, rows: list) -> None:  # type: ignore[type-arg]
        """It ends, names no tenant twice, makes no node fuller than it may be, moves nothing back
        and forth, and gives the same plan for the same view."""
        nodes = made(rows)
        tenants = {n.node.id: [f"{n.node.id}/{k}" for k in range(n.assigned)] for n in nodes}
        moves = rebalance(nodes, tenants.__getitem__)
        self.assertEqual(rebalance(nodes, tenants.__getitem__), moves)
        self.assertEqual(len({move.tenant_id for move in moves}), len(moves))
        self.assertFalse({m.source for m in moves} & {m.target for m in moves})
        counts = {n.node.id: n.assigned for n in nodes}
        by_id = {n.node.id: n for n in nodes}
        for move in moves:
            target = attrs.evolve(by_id[move.target], assigned=counts[move.target])
            self.assertEqual(target.objection(MOVED), "")
            counts[move.source] -= 1
            counts[move.target] += 1
        usable = [n for n in nodes if n.alive and not n.objection(MOVED)]
        if len(usable) == len(nodes) and nodes:
            shares = [(counts[n.node.id], n.node.capacity) for n in nodes]
            highest = max((count - 1) / capacity for count, capacity in shares)
            lowest = min((count + 1) / capacity for count, capacity in shares)
            self.assertLessEqual(highest, lowest + 1e-9)


class TestShortlist(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 9), st.integers(1, 12)), min_size=1, max_size=8),
        st.lists(st.sampled_from(["place", "dies", "drains", "fills"]), max_size=40),
        st.randoms(use_true_random=False),
    )
    def test_as_if_all_were_looked_at(
        self,
        sizes: list[tuple[int, int]],
        steps: list[str],
        dice: random.Random,
    ) -> None:
        """However nodes fill, die and drain, its choice is that of a look at all of them."""
        nodes = {
            f"n{number}": node(f"n{number}", assigned, capacity=capacity)
            for number, (assigned, capacity) in enumerate(sizes)
        }
        wish = Wish()
        shortlist = Shortlist(nodes.values(), wish)
        for step in steps:
            if step == "place":
                best = shortlist.best(nodes.__getitem__)
                self.assertEqual(best, best_of(nodes.values(), wish=wish))
                name, more = ("" if best is None else best.node.id), 1
            else:
                name, more = dice.choice(sorted(nodes)), dice.randint(1, 5)
            if not name:
                continue
            each = nodes[name]
            if step in ("place", "fills"):
                nodes[name] = attrs.evolve(each, assigned=each.assigned + more)
            elif step == "dies":
                nodes[name] = attrs.evolve(each, alive=False)
            else:
                status = {"status": NodeStatus.DRAINING}
                nodes[name] = attrs.evolve(each, node=msgspec.structs.replace(each.node, **status))

    def test_who_becomes_better_is_found_by_the_next_list(self) -> None:
        """A node that was full stays away until then."""
        nodes = {"a": node("a", 5), "b": node("b", 10)}
        shortlist = Shortlist(nodes.values(), Wish())
        nodes["b"] = node("b", 0)
        first = shortlist.best(nodes.__getitem__)
        second = Shortlist(nodes.values(), Wish()).best(nodes.__getitem__)
        assert first is not None
        assert second is not None
        self.assertEqual((first.node.id, second.node.id), ("a", "b"))
