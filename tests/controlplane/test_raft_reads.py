"""Reads that share a question: who joins which, and how each ends."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import raft_reads
from pbcluster.controlplane.raft_reads import (
    MANY,
    MANY_PATIENT,
    PACE_S,
    PATIENT_S,
    READ_TIMEOUT_S,
    Reads,
)
from pbcluster.errors import Busy, DeadlineExceeded, NotLeader, Unavailable


class Driver:
    """Gives contexts 1, 2, …, or an error."""

    def __init__(self) -> None:
        self.running = True
        self.contexts = 0
        self.error: Exception | None = None

    def read_index(self) -> int:
        if self.error is not None:
            raise self.error
        self.contexts += 1
        return self.contexts


class ReadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.driver = Driver()
        self.reads = Reads(self.clock, self.driver, lambda: NotLeader("not now"))

    def read(self, *, patient: bool = False) -> Deferred[None]:
        return Deferred.fromCoroutine(self.reads.barrier(patient=patient))

    def test_after_a_pause_a_question_goes_out_at_once(self) -> None:
        """Who comes alone waits for nobody."""
        for number in (1, 2, 3):
            asked = self.read()
            self.assertEqual(self.driver.contexts, number)
            self.reads.allowed(number, 5, 5)
            self.successResultOf(asked)
            self.clock.advance(PACE_S)

    def test_those_that_come_together_share_the_next_question(self) -> None:
        """Not the one under way, which began before they came."""
        first = self.read()
        more = [self.read() for _ in range(MANY - 1)]
        self.reads.allowed(1, 5, 5)
        self.successResultOf(first)
        for one in more:
            self.assertNoResult(one)
        self.clock.advance(PACE_S)
        self.assertEqual(self.driver.contexts, 2)
        late = self.read()
        self.reads.allowed(2, 7, 5)
        self.reads.answer(6)
        self.assertNoResult(more[0])
        self.reads.answer(7)
        for one in more:
            self.successResultOf(one)
        self.assertNoResult(late)

    def test_the_patient_wait_longer(self) -> None:
        """Until somebody comes who is not: then all go at that one's time."""
        self.read()
        patient = self.read(patient=True)
        self.clock.advance(PACE_S)
        self.assertEqual(self.driver.contexts, 1)
        self.clock.advance(PATIENT_S - PACE_S)
        self.assertEqual(self.driver.contexts, 2)
        self.reads.allowed(2, 5, 5)
        self.successResultOf(patient)
        patient = self.read(patient=True)
        asked = self.read()
        self.clock.advance(PACE_S)
        self.assertEqual(self.driver.contexts, 3)
        self.reads.allowed(3, 5, 5)
        self.successResultOf(patient)
        self.successResultOf(asked)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_do_not_wait(self) -> None:
        """As soon as so many are together their question is asked."""
        self.read()
        for _ in range(2 * MANY):
            self.read()
        self.assertEqual(self.driver.contexts, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_patient_share_with_more(self) -> None:
        """Some leases are no reason to ask sooner; those who hurry are."""
        first = self.read()
        self.reads.allowed(1, 5, 5)
        self.successResultOf(first)
        patient = [self.read(patient=True) for _ in range(2 * MANY - 1)]
        self.assertEqual(self.driver.contexts, 1)
        hurried = [self.read() for _ in range(MANY)]
        self.assertEqual(self.driver.contexts, 2)
        self.reads.allowed(2, 5, 5)
        for each in (*patient, *hurried):
            self.successResultOf(each)

    def test_very_many_patient_ones_do_not_wait(self) -> None:
        """Each pays little for a question of so many: whoever asks in a loop is not held up."""
        self.read()
        patient = [self.read(patient=True) for _ in range(2 * MANY_PATIENT)]
        self.assertEqual(self.driver.contexts, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.reads.allowed(3, 5, 5)
        for each in patient[:MANY_PATIENT]:
            self.assertNoResult(each)
        for each in patient[MANY_PATIENT:]:
            self.successResultOf(each)

    def test_how_a_question_ends_is_how_all_of_it_end(self) -> None:
        """Cancelled, refused when it is asked, or when nothing runs any more."""
        first = self.read()
        both = [self.read(), self.read()]
        self.reads.cancelled(1)
        self.failureResultOf(first, NotLeader)
        self.driver.error = Unavailable("nothing committed yet")
        self.clock.advance(PACE_S)
        for one in both:
            self.failureResultOf(one, Unavailable)
        self.driver.error = None
        self.clock.advance(PACE_S)
        asked, joined = self.read(), self.read()
        self.driver.running = False
        self.clock.advance(PACE_S)
        self.failureResultOf(joined, NotLeader)
        self.failureResultOf(self.read(), NotLeader)
        self.reads.give_up(lambda: Unavailable("this member stops"))
        self.failureResultOf(asked, Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_waits_for_ever(self) -> None:
        """Neither for a round nor for an index."""
        unconfirmed = self.read()
        self.clock.advance(PACE_S)
        behind = self.read()
        self.reads.allowed(2, 9, 5)
        self.reads.end_overdue(self.clock.seconds() + READ_TIMEOUT_S / 2)
        self.assertNoResult(unconfirmed)
        self.reads.end_overdue(self.clock.seconds() + READ_TIMEOUT_S)
        self.failureResultOf(unconfirmed, DeadlineExceeded)
        self.failureResultOf(behind, DeadlineExceeded)

    def test_bound(self) -> None:
        """More than so many are refused, until others have their answer."""
        self.patch(raft_reads, "MAX_READS", 3)
        waiting = [self.read() for _ in range(3)]
        self.failureResultOf(self.read(), Busy)
        self.reads.allowed(1, 0, 0)
        self.successResultOf(waiting[0])
        self.assertNoResult(self.read())

    def test_who_goes_away_harms_nobody(self) -> None:
        """The others that share its question get their answer."""
        first, gone, stays = self.read(), self.read(), self.read()
        gone.cancel()
        self.failureResultOf(gone)
        self.clock.advance(PACE_S)
        for context in (1, 2):
            self.reads.allowed(context, 0, 0)
        self.successResultOf(first)
        self.successResultOf(stays)
