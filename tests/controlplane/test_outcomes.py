"""The memory of repeated commands: bounded, and honest about what it forgot."""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import outcomes
from pbcluster.controlplane.outcomes import Outcome, Outcomes
from pbcluster.errors import SessionExpired


class OutcomeTests(SynchronousTestCase):
    def test_three_ages(self) -> None:
        """Remembered, known to be used, and unknown: in this order, the oldest first."""
        memory = Outcomes()
        with (
            mock.patch.object(outcomes, "MAX_OUTCOMES", 2),
            mock.patch.object(outcomes, "MAX_SPENT", 3),
        ):
            for number in range(7):
                memory.remember(f"k{number}", Outcome(number))
        self.assertEqual([memory.recall(key) for key in ("k5", "k6")], [Outcome(5), Outcome(6)])
        for key in ("k2", "k3", "k4"):
            self.assertRaises(SessionExpired, memory.recall, key)
        for key in ("k0", "k1", "new"):
            self.assertIsNone(memory.recall(key))

    def test_without_a_key(self) -> None:
        """Nothing is remembered, and nothing found."""
        memory = Outcomes()
        memory.remember("", Outcome(1))
        self.assertIsNone(memory.recall(""))
        self.assertEqual(list(memory.newest()), [])

    @given(st.lists(st.sampled_from([f"k{n}" for n in range(12)])))
    def test_a_copy_knows_the_same(self, keys: list[str]) -> None:
        """What a snapshot holds is all there is, in the same order."""
        memory = Outcomes()
        with (
            mock.patch.object(outcomes, "MAX_OUTCOMES", 3),
            mock.patch.object(outcomes, "MAX_SPENT", 4),
        ):
            for number, key in enumerate(keys):
                try:
                    known = memory.recall(key)
                except SessionExpired:
                    continue
                if known is None:
                    memory.remember(key, Outcome(number))
        copy = Outcomes(memory.newest(), memory.spent())
        self.assertEqual(list(copy.newest()), list(memory.newest()))
        self.assertEqual(copy.spent(), memory.spent())
