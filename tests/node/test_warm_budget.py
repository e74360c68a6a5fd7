"""Which copies go when the disk budget is over."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.warm_budget import KEEP_UNASSIGNED_S, LocalCopy, Plan, plan

NOW = 10_000.0


class WarmBudgetTests(SynchronousTestCase):
    def plan(
        self, *copies: LocalCopy, assigned: str = "abc", busy: str = "", most: int = 100
    ) -> Plan:
        return plan(copies, assigned=set(assigned), in_use=set(busy), budget_bytes=most, now=NOW)

    def test_least_recently_stopped_first(self) -> None:
        """Only as many as the budget needs."""
        found = self.plan(LocalCopy("a", 60, 3.0), LocalCopy("b", 60, 1.0), LocalCopy("c", 30, 2.0))
        self.assertEqual((found.remove, found.warm_bytes), (("b",), 150))

    def test_what_is_used_or_not_settled_stays(self) -> None:
        """However large it is."""
        found = self.plan(LocalCopy("a", 500, 3.0), LocalCopy("b", 500, None), busy="a")
        self.assertEqual((found.remove, found.look), ((), ()))

    def test_tenants_of_other_nodes(self) -> None:
        """A settled copy goes after a while, before any warm one; the owner of another is asked."""
        copies = LocalCopy("x", 1, NOW - KEEP_UNASSIGNED_S), LocalCopy("y", 1, None)
        found = self.plan(*copies, LocalCopy("a", 1, 0.0))
        self.assertEqual((found.remove, found.look), (("x",), ("y",)))
        recent = LocalCopy("x", 60, NOW - 1), LocalCopy("a", 60, 0.0)
        self.assertEqual(self.plan(*recent).remove, ("x",))
        self.assertEqual(self.plan(*recent, most=120).remove, ())

    def test_a_clock_that_went_back(self) -> None:
        """A copy settled in the future is the youngest, and is kept."""
        self.assertEqual(self.plan(LocalCopy("x", 1, NOW + 9999)).remove, ())

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.builds(
                LocalCopy,
                st.sampled_from("abcdef"),
                st.integers(0, 99),
                st.none() | st.floats(0, 2 * NOW),
            ),
            unique_by=lambda copy: copy.tenant_id,
        ),
        st.sets(st.sampled_from("abcdef")),
        st.sets(st.sampled_from("abcdef")),
        st.integers(0, 300),
    )
    def test_always(
        self, copies: list[LocalCopy], assigned: set[str], busy: set[str], most: int
    ) -> None:
        """Only settled, unused copies go, and what stays of the warm ones fits the budget."""
        found = plan(copies, assigned=assigned, in_use=busy, budget_bytes=most, now=NOW)
        by_id = {copy.tenant_id: copy for copy in copies}
        for tenant_id in found.remove:
            self.assertIsNotNone(by_id[tenant_id].settled_at)
            self.assertNotIn(tenant_id, busy)
        left = [c for c in copies if c.settled_at is not None and c.tenant_id not in busy]
        kept = sum(c.size_bytes for c in left if c.tenant_id not in found.remove)
        self.assertLessEqual(kept, most)
