"""The log of one member."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.raft import ConfState, Entry, EntryKind, InvariantViolated, SnapshotMeta
from pbcluster.raft.log import RaftLog


def entries(first: int, *terms: int) -> tuple[Entry, ...]:
    return tuple(
        Entry(index, term, EntryKind.COMMAND, b"%d@%d" % (index, term))
        for index, term in enumerate(terms, first)
    )


def log_of(*terms: int) -> RaftLog:
    return RaftLog(SnapshotMeta(), entries(1, *terms))


class StartTests(SynchronousTestCase):
    def test_a_gap_is_refused(self) -> None:
        """Entries that do not follow the snapshot, or each other, end the start."""
        meta = SnapshotMeta(5, 2, ConfState(("a",)))
        self.assertRaises(InvariantViolated, RaftLog, meta, entries(7, 2))
        broken = (*entries(6, 2), *entries(8, 2))
        self.assertRaises(InvariantViolated, RaftLog, meta, broken)

    def test_entries_before_the_snapshot_are_left_out(self) -> None:
        """The log begins after the snapshot, whatever is still on disk before it."""
        log = RaftLog(SnapshotMeta(3, 2, ConfState(("a",))), entries(2, 1, 2, 2, 3))
        self.assertEqual((log.compacted_index, log.last_index, log.last_term), (3, 5, 3))
        self.assertEqual([log.term(i) for i in range(2, 7)], [None, 2, 2, 3, None])
        self.assertEqual((log.durable, log.saved, log.applied), (5, 5, 3))


class AppendTests(SynchronousTestCase):
    def test_no_match_changes_nothing(self) -> None:
        """An append after a position this log does not have is refused."""
        log = log_of(1, 1)
        self.assertIsNone(log.try_append(2, 2, entries(3, 2)))
        self.assertIsNone(log.try_append(3, 1, entries(4, 2)))
        self.assertEqual(log.last_index, 2)

    def test_known_entries_cut_nothing(self) -> None:
        """An old append leaves what came after it, durable positions included."""
        log = log_of(1, 1, 1)
        self.assertEqual(log.try_append(0, 0, entries(1, 1)), 1)
        self.assertEqual((log.last_index, log.durable), (3, 3))

    def test_a_conflict_cuts_the_tail_and_its_durability(self) -> None:
        """What is replaced is not durable any more, nor handed out for writing."""
        log = log_of(1, 1, 1)
        self.assertEqual(log.try_append(1, 1, entries(2, 2)), 2)
        self.assertEqual((log.last_index, log.last_term), (2, 2))
        self.assertEqual((log.durable, log.saved), (1, 1))
        self.assertEqual(log.unsaved(), entries(2, 2))

    def test_committed_entries_are_never_replaced(self) -> None:
        """A conflict at or below commit ends the member."""
        log = log_of(1, 1, 1)
        log.commit_to(2)
        self.assertRaises(InvariantViolated, log.try_append, 1, 1, entries(2, 2))
        self.assertEqual(log.last_index, 3)

    def test_commit_beyond_the_end_is_impossible(self) -> None:
        """Nobody commits what this log does not have."""
        self.assertRaises(InvariantViolated, log_of(1).commit_to, 2)

    @given(
        st.lists(st.integers(0, 2), max_size=8),
        st.lists(st.integers(0, 2), max_size=8),
        st.integers(0, 8),
    )
    def test_after_an_append_the_logs_agree(
        self, own_steps: list[int], other_steps: list[int], start: int
    ) -> None:
        """If it succeeds, the log equals the other's up to the last entry sent."""
        own_terms = [1 + sum(own_steps[: i + 1]) for i in range(len(own_steps))]
        other_terms = [1 + sum(other_steps[: i + 1]) for i in range(len(other_steps))]
        prev = min(start, len(other_terms))
        prev_term = other_terms[prev - 1] if prev else 0
        sent = entries(1, *other_terms)[prev:]
        log = log_of(*own_terms)
        same_before = own_terms[:prev] == other_terms[:prev]
        last = log.try_append(prev, prev_term, sent)
        if last is None:
            self.assertEqual([log.term(i + 1) for i in range(len(own_terms))], own_terms)
        elif same_before:
            kept = [log.term(i) for i in range(1, last + 1)]
            self.assertEqual(kept, other_terms)

    @given(
        st.lists(st.integers(0, 2), min_size=1, max_size=10), st.integers(0, 12), st.integers(0, 9)
    )
    def test_the_hint_is_the_highest_possible(
        self, steps: list[int], index: int, term: int
    ) -> None:
        """Above the hint, up to the index asked about, all terms are higher than the one given."""
        terms = [1 + sum(steps[: i + 1]) for i in range(len(steps))]
        log = log_of(*terms)
        hint, hint_term = log.conflict_hint(index, term)
        self.assertLessEqual(hint, index)
        self.assertEqual(hint_term, terms[hint - 1] if hint else 0)
        self.assertTrue(hint_term <= term or hint == 0)
        for above in range(hint + 1, min(index, len(terms)) + 1):
            self.assertGreater(terms[above - 1], term)


class DurabilityTests(SynchronousTestCase):
    def test_a_token_of_a_replaced_entry_says_nothing(self) -> None:
        """The write of an entry that was replaced meanwhile does not make its successor durable."""
        log = RaftLog(SnapshotMeta())
        log.append(entries(1, 1, 1))
        log.unsaved()
        log.try_append(1, 1, entries(2, 2))
        log.unsaved()
        self.assertFalse(log.stable_to(2, 1))
        self.assertEqual(log.durable, 0)
        self.assertTrue(log.stable_to(2, 2))
        self.assertEqual(log.durable, 2)

    def test_only_durable_entries_are_applied(self) -> None:
        """Committed and not durable here is not handed out."""
        log = RaftLog(SnapshotMeta())
        log.append(entries(1, 1, 1))
        log.commit_to(2)
        self.assertEqual(log.next_to_apply(1000), ())
        log.unsaved()
        log.stable_to(1, 1)
        self.assertEqual(log.next_to_apply(1000), entries(1, 1))
        self.assertEqual(log.next_to_apply(1000), ())

    def test_what_is_being_applied_is_bounded(self) -> None:
        """No more is handed out than the bound until some of it is applied."""
        log = log_of(1, 1, 1)
        log.commit_to(3)
        self.assertEqual(len(log.next_to_apply(1)), 1)
        self.assertEqual(log.next_to_apply(1), ())
        log.applied_to(1)
        self.assertEqual(len(log.next_to_apply(1)), 1)

    def test_nothing_is_applied_that_was_not_handed_out(self) -> None:
        """A driver that applies too much is stopped."""
        self.assertRaises(InvariantViolated, log_of(1).applied_to, 1)


class SnapshotTests(SynchronousTestCase):
    def test_compaction_keeps_terms_at_the_border(self) -> None:
        """The last forgotten entry's term is still known; entries after it stay."""
        log = log_of(1, 2, 2, 3)
        log.commit_to(4)
        log.next_to_apply(1000)
        log.applied_to(4)
        meta = SnapshotMeta(4, 3, ConfState(("a",)))
        log.compact(meta, 2)
        self.assertEqual([log.term(i) for i in range(1, 6)], [None, 2, 2, 3, None])
        self.assertEqual(log.read(3, 1000), entries(3, 2, 3))
        self.assertEqual(log.snapshot, meta)

    def test_what_is_not_applied_is_not_compacted(self) -> None:
        """A snapshot beyond the applied state is a mistake of the driver."""
        log = log_of(1, 1)
        self.assertRaises(InvariantViolated, log.compact, SnapshotMeta(1, 1), 1)

    def test_a_restored_snapshot_is_handed_out_once_and_holds_up_applying(self) -> None:
        """Until it is durable, nothing after it is applied."""
        log = log_of(1)
        meta = SnapshotMeta(5, 3, ConfState(("a",)))
        log.restore(meta)
        self.assertEqual(log.take_snapshot_to_persist(), meta)
        self.assertIsNone(log.take_snapshot_to_persist())
        log.append(entries(6, 3))
        log.unsaved()
        log.commit_to(6)
        log.stable_to(6, 3)
        self.assertEqual(log.next_to_apply(1000), ())
        log.snapshot_durable(5)
        self.assertEqual(log.next_to_apply(1000), entries(6, 3))

    def test_a_snapshot_behind_the_commit_is_refused(self) -> None:
        """Committed entries are not given up for an older state."""
        log = log_of(1, 1)
        log.commit_to(2)
        self.assertRaises(InvariantViolated, log.restore, SnapshotMeta(2, 1))
