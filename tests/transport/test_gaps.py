"""Numbered broadcasts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.transport.gaps import MAX_PUBLISHERS, SILENCE_S, Deliver, Gap, Gaps
from pbcluster.wire import BEACON, Broadcast
from tests.transport.bodies import broadcast


def beacon(index: int, previous: int = 0) -> Broadcast:
    return broadcast(index, previous, BEACON)


class Rules(SynchronousTestCase):
    def setUp(self) -> None:
        self.gaps = Gaps()
        self.now = 0.0

    def got(self, message: Broadcast, publisher: str = "member_1") -> list[int | str]:
        found: list[int | str] = []
        for effect in self.gaps.received(publisher, message, self.now):
            is_gap = isinstance(effect, Gap)
            found.append(f"gap {effect.index}" if is_gap else effect.broadcast.index)
        return found

    def test_first_contact(self) -> None:
        """The first message is a gap, a beacon's without a delivery."""
        self.assertEqual(self.got(broadcast(10, 7)), ["gap 10", 10])
        self.gaps = Gaps()
        self.assertEqual(self.got(beacon(10)), ["gap 10"])
        self.assertEqual(self.got(broadcast(12, 10)), [12])

    def test_in_order(self) -> None:
        """What follows without a hole is delivered without a gap, and its beacons are silent."""
        self.got(beacon(10))
        self.assertEqual(self.got(broadcast(11, 10)), [11])
        self.assertEqual(self.got(beacon(11, 10)), [])
        self.assertEqual(self.got(broadcast(20, 11)), [20])

    def test_loss(self) -> None:
        """A lost broadcast shows at the next one, or at the next beacon."""
        self.got(beacon(10))
        self.assertEqual(self.got(broadcast(12, 11)), ["gap 12", 12])
        self.assertEqual(self.got(beacon(15, 12)), ["gap 15"])
        self.assertEqual(self.got(broadcast(16, 15)), [16])

    def test_duplicates_and_late_ones(self) -> None:
        """A repeated or overtaken broadcast is dropped and counted, none is delivered twice."""
        self.got(beacon(10))
        self.assertEqual(self.got(broadcast(12, 11)), ["gap 12", 12])
        self.assertEqual(self.got(broadcast(11, 10)), [])
        self.assertEqual(self.got(broadcast(12, 11)), [])
        self.assertEqual(self.gaps.dropped, 2)

    def test_another_member_goes_on(self) -> None:
        """A new leader that goes on with the cluster's numbers causes no gap."""
        self.got(broadcast(10, 7), "member_1")
        self.assertEqual(self.got(broadcast(14, 10), "member_2"), [14])
        self.assertEqual(self.got(beacon(14), "member_2"), [])

    def test_new_leader_that_knows_less(self) -> None:
        """A newer index whose ``previous`` is older than what we saw is treated as a gap."""
        self.got(broadcast(10, 7))
        self.assertEqual(self.got(broadcast(14, 7), "member_2"), ["gap 14", 14])

    def test_deposed_leader_keeps_repeating(self) -> None:
        """The old beacons of a member that no longer leads change nothing."""
        self.got(broadcast(10, 7), "member_1")
        self.got(broadcast(14, 10), "member_2")
        for _ in range(30):
            self.now += 1.0
            self.assertEqual(self.got(beacon(10), "member_1"), [])
            self.assertEqual(self.got(beacon(14), "member_2"), [])
        self.assertEqual(self.got(broadcast(15, 14), "member_2"), [15])

    def test_restart_with_a_lower_index(self) -> None:
        """A publisher that goes back and stays there is believed at its second beacon."""
        self.got(broadcast(100, 90))
        self.assertEqual(self.got(broadcast(5, 0)), [])
        self.assertEqual(self.got(beacon(5)), [])
        self.assertEqual(self.got(beacon(5)), ["gap 5"])
        self.assertEqual(self.got(broadcast(6, 5)), [6])

    def test_one_late_beacon_is_no_restart(self) -> None:
        """A single beacon that was overtaken does not turn the numbers back."""
        self.got(broadcast(100, 90))
        for index in range(101, 110):
            self.assertEqual(self.got(beacon(index - 1)), [])
            self.assertEqual(self.got(beacon(index - 2)), [])
            self.assertEqual(self.got(broadcast(index, index - 1)), [index])

    def test_late_beacons_between_current_ones(self) -> None:
        """Late beacons do not add up while the publisher still repeats the newest."""
        self.got(broadcast(100, 90))
        for _ in range(5):
            self.assertEqual(self.got(beacon(99)), [])
            self.assertEqual(self.got(beacon(100)), [])

    def test_another_member_with_a_lower_index(self) -> None:
        """It is believed only after who gave us the newest was silent for long."""
        self.got(broadcast(100, 90), "member_1")
        for _ in range(int(SILENCE_S) - 1):
            self.now += 1.0
            self.assertEqual(self.got(beacon(5), "member_2"), [])
        self.now = SILENCE_S
        self.assertEqual(self.got(beacon(5), "member_2"), [])
        self.now += 1.0
        self.assertEqual(self.got(beacon(5), "member_2"), ["gap 5"])

    def test_memory_is_bounded(self) -> None:
        """Any number of publishers' names takes a bounded table."""
        self.got(broadcast(100, 90))
        self.now = 100.0
        for number in range(10 * MAX_PUBLISHERS):
            self.got(beacon(5), f"junk_{number}")
        self.assertLessEqual(len(self.gaps._lower), MAX_PUBLISHERS)

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_nothing_missed_goes_unnoticed(self, data: st.DataObject) -> None:
        """Whatever is lost, doubled or late: deliveries rise, and every undelivered index up to
        the newest is followed by a gap at or above it."""
        indexes = sorted(data.draw(st.sets(st.integers(1, 60), min_size=2, max_size=15)))
        sent = [
            broadcast(index, previous)
            for previous, index in zip([0, *indexes], indexes, strict=False)
        ]
        wire = data.draw(st.lists(st.sampled_from(sent), max_size=30))
        wire.append(beacon(indexes[-1]))
        gaps, delivered, told = Gaps(), [], []
        for message in wire:
            for effect in gaps.received("member_1", message, 0.0):
                if isinstance(effect, Deliver):
                    delivered.append(effect.broadcast.index)
                else:
                    told.append(effect.index)
        self.assertEqual(delivered, sorted(set(delivered)))
        for index in set(indexes) - set(delivered):
            self.assertTrue(any(gap >= index for gap in told), (wire, index))
