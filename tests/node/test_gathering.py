"""A sync waits a little for writes that PocketBase is about to answer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.durability import BeginSync, CheckOwner, Covered, Gather, GroupCommit, Release
from pbcluster.node.gathering import FRESH_S, MAX_PAUSE_S, SHARE, Gathering
from pbcluster.records import Durability

FILE = (1, 100)
SYNC_S = 0.012


def gathering_after_a_sync(took_s: float = SYNC_S) -> Gathering:
    gathering = Gathering()
    gathering.synced(took_s)
    return gathering


class GatheringTests(SynchronousTestCase):
    def test_one_writer_alone(self) -> None:
        """With nothing under way there is nothing to wait for."""
        gathering = gathering_after_a_sync()
        gathering.answered(gathering.sent(0.0))
        self.assertEqual(gathering.pause_s(0.001), 0.0)

    def test_pause_is_a_share_of_a_sync(self) -> None:
        """Half of what the syncs take, and never longer than the bound."""
        gathering = gathering_after_a_sync()
        gathering.sent(0.0)
        self.assertAlmostEqual(gathering.pause_s(0.0), SHARE * SYNC_S)
        slow = gathering_after_a_sync(1.0)
        slow.sent(0.0)
        self.assertEqual(slow.pause_s(0.0), MAX_PAUSE_S)

    def test_before_the_first_sync(self) -> None:
        """As long as nobody knows what a sync takes, none is delayed."""
        gathering = Gathering()
        gathering.sent(0.0)
        self.assertEqual(gathering.pause_s(0.0), 0.0)

    def test_slow_write_is_not_waited_for(self) -> None:
        """A slow write delays the others' syncs for a moment only; a new one counts again."""
        gathering = gathering_after_a_sync()
        gathering.sent(0.0)
        self.assertGreater(gathering.pause_s(FRESH_S), 0.0)
        self.assertEqual(gathering.pause_s(FRESH_S + 0.001), 0.0)
        gathering.sent(1.0)
        self.assertGreater(gathering.pause_s(1.0), 0.0)

    def test_mean_follows(self) -> None:
        """The pause follows what syncs take now."""
        gathering = gathering_after_a_sync(0.002)
        gathering.sent(0.0)
        for _ in range(50):
            gathering.synced(0.010)
        self.assertAlmostEqual(gathering.pause_s(0.0), SHARE * 0.010, places=5)

    def test_answered_twice(self) -> None:
        """The end of a write may be told twice: others stay counted."""
        gathering = gathering_after_a_sync()
        first, _ = gathering.sent(0.0), gathering.sent(0.0)
        gathering.answered(first)
        gathering.answered(first)
        self.assertEqual(gathering.under_way, 1)


class GroupCommitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gathering = gathering_after_a_sync()
        self.core = GroupCommit(Durability.SYNC, FILE, self.gathering)

    def answered(self, ticket: int, now: float) -> tuple[object, ...]:
        self.gathering.answered(self.sent.pop(0))
        return self.core.responded(ticket, now)

    def test_last_answer_begins_the_sync(self) -> None:
        """Three writes under way share one sync, which begins at the answer of the last."""
        self.sent = [self.gathering.sent(0.0) for _ in range(3)]
        self.assertEqual(self.answered(1, 0.001), (Gather(0.0, 1),))
        self.assertEqual(self.answered(2, 0.002), ())
        self.assertEqual(self.answered(3, 0.003), (BeginSync(1),))
        self.assertEqual(self.core.gathered(1, 0.007), ())
        self.assertEqual(self.core.sync_succeeded(1, 0.015, FILE), (CheckOwner(1),))
        released, covered = self.core.owner_checked(1, 0.016, ours=True)
        self.assertEqual(released, Release((1, 2, 3)))
        self.assertEqual(covered, Covered(0.003, 1))

    def test_pause_ends(self) -> None:
        """A write that does not come in time waits for the next sync."""
        self.sent = [self.gathering.sent(0.0) for _ in range(2)]
        self.assertEqual(self.answered(1, 0.001), (Gather(0.0, 1),))
        self.assertEqual(self.core.gathered(1, 0.001 + SHARE * SYNC_S), (BeginSync(1),))
        self.assertEqual(self.answered(2, 0.010), ())
        effects = self.core.sync_succeeded(1, 0.020, FILE)
        self.assertEqual(effects, (CheckOwner(1), BeginSync(2)))

    def test_early_timer(self) -> None:
        """A timer that fires a little early by this clock begins the sync all the same."""
        self.sent = [self.gathering.sent(0.0) for _ in range(2)]
        self.answered(1, 0.001)
        self.assertEqual(self.core.gathered(1, 0.001), (BeginSync(1),))

    def test_what_is_forced_does_not_wait(self) -> None:
        """Catching up, and a change of the durability, begin at once."""
        self.gathering.sent(0.0)
        self.assertEqual(self.core.force(0.0), (BeginSync(1),))

    def test_stopped_meanwhile(self) -> None:
        """After the end of the tenant the pause's end begins nothing."""
        self.sent = [self.gathering.sent(0.0) for _ in range(2)]
        self.answered(1, 0.001)
        self.core.stop()
        self.assertEqual(self.core.gathered(1, 0.01), ())
