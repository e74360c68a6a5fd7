"""Rounds of reads."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.raft import ConfState
from pbcluster.raft.readonly import PendingRead, ReadRounds

ABC = ConfState(("a", "b", "c"))


class RoundTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rounds = ReadRounds()
        self.first = PendingRead("a", 1, 10)
        self.second = PendingRead("b", 1, 11)

    def test_a_read_is_released_by_its_round(self) -> None:
        """Not before a majority, leader included, answered it."""
        self.rounds.add(self.first)
        number = self.rounds.begin("a")
        self.assertEqual(self.rounds.release(ABC), [])
        self.rounds.acknowledge("b", number)
        self.assertEqual(self.rounds.release(ABC), [self.first])
        self.assertEqual(self.rounds.release(ABC), [])
        self.assertEqual(self.rounds.count, 0)

    def test_a_later_read_does_not_join_a_round_under_way(self) -> None:
        """An answer to a question asked before the read came proves nothing for it."""
        self.rounds.add(self.first)
        number = self.rounds.begin("a")
        self.rounds.add(self.second)
        self.rounds.acknowledge("b", number)
        self.assertEqual(self.rounds.release(ABC), [self.first])
        self.assertEqual(self.rounds.everything(), [self.second])

    def test_a_later_round_confirms_the_earlier(self) -> None:
        """Lost answers to the first round do no harm; the order is kept."""
        self.rounds.add(self.first)
        self.rounds.begin("a")
        self.rounds.add(self.second)
        number = self.rounds.begin("a")
        self.rounds.acknowledge("c", number)
        self.assertEqual(self.rounds.release(ABC), [self.first, self.second])

    def test_answers_to_rounds_never_begun_are_ignored(self) -> None:
        """As are those of learners and strangers."""
        self.rounds.add(self.first)
        number = self.rounds.begin("a")
        self.rounds.acknowledge("b", number + 1)
        self.rounds.acknowledge("l", number)
        self.assertEqual(self.rounds.release(ABC), [])

    def test_a_leader_without_a_vote_does_not_count_itself(self) -> None:
        """Two others must answer."""
        self.rounds.add(self.first)
        number = self.rounds.begin("x")
        self.rounds.acknowledge("b", number)
        self.assertEqual(self.rounds.release(ABC), [])
        self.rounds.acknowledge("c", number)
        self.assertEqual(self.rounds.release(ABC), [self.first])
