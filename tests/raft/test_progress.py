"""What a leader knows of one member."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.raft import SnapshotMeta
from pbcluster.raft.progress import Inflights, Progress, ProgressState


def progress(max_count: int = 2, max_bytes: int = 1000) -> Progress:
    return Progress(5, Inflights(max_count, max_bytes))


class InflightsTests(SynchronousTestCase):
    def test_bounded_in_number(self) -> None:
        """So many messages, and no more."""
        window = Inflights(2, 1000)
        window.add(1, 10)
        self.assertFalse(window.full())
        window.add(2, 10)
        self.assertTrue(window.full())
        window.free_to(1)
        self.assertFalse(window.full())
        self.assertEqual((len(window), window.size_bytes), (1, 10))

    def test_bounded_in_bytes(self) -> None:
        """So many bytes, overrun by one message at most."""
        window = Inflights(100, 50)
        window.add(1, 49)
        self.assertFalse(window.full())
        window.add(2, 1000)
        self.assertTrue(window.full())
        window.free_to(2)
        self.assertFalse(window.full())
        self.assertEqual(window.size_bytes, 0)


class ProgressTests(SynchronousTestCase):
    def test_a_probe_waits_for_its_answer(self) -> None:
        """One append with entries, then silence."""
        one = progress()
        one.sent_entries(6, 2, 20)
        self.assertTrue(one.is_paused())
        self.assertEqual(one.next, 5)

    def test_replication_is_optimistic(self) -> None:
        """The next append follows the last without an answer, until the pipe is full."""
        one = progress()
        one.acknowledged(4)
        one.become_replicate()
        one.sent_entries(6, 2, 20)
        self.assertEqual((one.next, one.is_paused()), (7, False))
        one.sent_entries(7, 1, 20)
        self.assertEqual((one.next, one.is_paused()), (8, True))
        self.assertFalse(one.may_send_entries())

    def test_match_only_grows(self) -> None:
        """An old acknowledgement changes nothing."""
        one = progress()
        self.assertTrue(one.acknowledged(9))
        self.assertFalse(one.acknowledged(4))
        self.assertEqual((one.match, one.next), (9, 10))

    def test_a_stale_rejection_is_ignored(self) -> None:
        """One that speaks of another append than the last probe, or of what is known to match."""
        one = progress()
        self.assertFalse(one.rejected(3, 1))
        one.acknowledged(6)
        one.become_replicate()
        self.assertFalse(one.rejected(5, 1))
        self.assertEqual(one.next, 7)

    def test_a_rejection_goes_back_to_the_hint_but_not_below_match(self) -> None:
        """The next probe is after the hint."""
        one = progress()
        one.acknowledged(2)
        self.assertTrue(one.rejected(4, 3))
        self.assertEqual(one.next, 4)
        self.assertTrue(one.rejected(3, 0))
        self.assertEqual(one.next, 3)

    def test_snapshot_stops_appends(self) -> None:
        """Until it is over; then probing begins after what is known."""
        one = progress()
        meta = SnapshotMeta(20, 1)
        one.become_snapshot(meta)
        self.assertTrue(one.is_paused())
        self.assertIs(one.pending, meta)
        one.become_probe()
        self.assertIs(one.state, ProgressState.PROBE)
        self.assertEqual((one.next, one.pending), (1, None))

    def test_commit_is_told_once(self) -> None:
        """Nothing is sent for a commit index that was sent already or lies beyond what was."""
        one = progress()
        self.assertTrue(one.can_bump_commit(4))
        one.sent_commit = 4
        self.assertFalse(one.can_bump_commit(4))
        self.assertFalse(one.can_bump_commit(9))
