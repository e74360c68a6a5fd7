"""Which epochs leave S3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.interfaces import EpochSeen, Ready
from pbcluster.node.old_epochs import MARGIN_S, removable

NOW = datetime(2026, 1, 10, tzinfo=UTC)
DAY_S = 86400.0


def epoch(number: int, parent: int | None = None, days_ago: float = 0.0) -> EpochSeen:
    """With READY if it has a parent (0: it began empty)."""
    if parent is None:
        return EpochSeen(number, None)
    at = (NOW - timedelta(days=days_ago)).isoformat()
    return EpochSeen(number, Ready(parent=parent, txid=1, at=at))


class OldEpochsTests(SynchronousTestCase):
    def gone(self, *epochs: EpochSeen, own: int = 4, window_s: float = DAY_S) -> list[int]:
        return list(removable(epochs, own=own, now=NOW, window_s=window_s))

    def test_after_the_window(self) -> None:
        """An epoch goes when its successor was ready before the window began; our parent stays,
        however old it is."""
        old = epoch(1, 0, 9), epoch(2, 1, 8), epoch(3, 2, 3), epoch(4, 3, 2)
        self.assertEqual(self.gone(*old), [1, 2])

    def test_within_the_window(self) -> None:
        """What a restore to a moment in the window needs stays."""
        self.assertEqual(
            self.gone(epoch(1, 0, 9), epoch(2, 1, 0.9), epoch(3, 2, 0.5), epoch(4, 3)), []
        )

    def test_failed_claims(self) -> None:
        """An epoch that was never ready goes with its time."""
        self.assertEqual(
            self.gone(epoch(1, 0, 9), epoch(2), epoch(3, 1, 5), epoch(4, 3, 4)), [1, 2]
        )

    def test_a_newer_one_is_there(self) -> None:
        """Who is not the highest with READY removes nothing: a take-over is under way."""
        old = epoch(1, 0, 9), epoch(2, 1, 8), epoch(4, 2, 7), epoch(5, 4, 6)
        self.assertEqual(self.gone(*old), [])
        self.assertEqual(self.gone(epoch(1, 0, 9), epoch(2, 1, 8), epoch(3, 2, 7), own=4), [])

    def test_a_claim_above_is_no_matter(self) -> None:
        """A newer prefix without READY: its restore reads our epoch, which stays."""
        old = epoch(1, 0, 9), epoch(2, 1, 8), epoch(4, 2, 7), epoch(5)
        self.assertEqual(self.gone(*old), [1])

    def test_began_empty(self) -> None:
        """Without a parent nothing was restored: nothing is proven."""
        self.assertEqual(self.gone(epoch(1), epoch(4, 0, 9)), [])

    def test_clocks_that_cannot_be(self) -> None:
        """A READY from the future, or one that is not understood, keeps what is before it."""
        self.assertEqual(self.gone(epoch(1, 0, 9), epoch(3, 1, -5), epoch(4, 3, -5)), [])
        for word in ("yesterday", "2026-01-01T00:00:00"):
            odd = EpochSeen(3, Ready(parent=1, txid=1, at=word))
            self.assertEqual(self.gone(epoch(1, 0, 9), odd, epoch(4, 3, 8)), [])

    @settings(max_examples=300, deadline=None)
    @given(
        st.dictionaries(
            st.integers(1, 30),
            st.none() | st.tuples(st.integers(0, 30), st.floats(-20, 20)),
            max_size=12,
        ),
        st.integers(1, 30),
        st.floats(0, 10 * DAY_S),
    )
    def test_what_never_goes(
        self, shape: dict[int, tuple[int, float] | None], own: int, window_s: float
    ) -> None:
        """Never the highest READY, its parent or anything above that; never what a restore to a
        moment within the window needs; and only if the highest READY is ours."""
        seen = [epoch(n, *ready) if ready else epoch(n) for n, ready in shape.items()]
        gone = removable(seen, own=own, now=NOW, window_s=window_s)
        ready = {n: r for n, r in shape.items() if r}
        if gone:
            self.assertEqual(max(ready), own)
            self.assertLess(max(gone), ready[own][0])
            self.assertIn(ready[own][0], ready)
        for number in gone:
            after = min(n for n in ready if n > number)
            moment = NOW - timedelta(days=ready[after][1])
            self.assertLessEqual(moment, NOW - timedelta(seconds=window_s + MARGIN_S))
