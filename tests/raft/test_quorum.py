"""Majorities."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.raft import ConfState
from pbcluster.raft.quorum import VoteResult, agreed_index, vote_result


class AgreedIndexTests(SynchronousTestCase):
    def test_it_is_what_a_majority_has(self) -> None:
        """For every assignment to up to five voters: a majority has it, and no more than that."""
        for size in range(1, 6):
            voters = tuple("abcde"[:size])
            for numbers in product(range(3), repeat=size):
                given = dict(zip(voters, numbers, strict=True))
                index = agreed_index(ConfState(voters), given)
                having = sum(number >= index for number in numbers)
                more = sum(number >= index + 1 for number in numbers)
                self.assertGreater(having, size // 2)
                self.assertLessEqual(more, size // 2)

    def test_joint_needs_both_halves(self) -> None:
        """The lower of both halves counts."""
        conf = ConfState(("a", "b", "c"), ("c", "d", "e"))
        self.assertEqual(agreed_index(conf, {"a": 9, "b": 9, "c": 9, "d": 4}), 4)
        self.assertEqual(agreed_index(conf, {"a": 3, "b": 9, "c": 2, "d": 7, "e": 7}), 3)

    def test_strangers_and_learners_do_not_count(self) -> None:
        """Only voters are asked."""
        conf = ConfState(("a", "b", "c"), (), ("l",))
        self.assertEqual(agreed_index(conf, {"a": 5, "l": 5, "x": 5}), 0)

    def test_nobody_agrees_on_nothing(self) -> None:
        """Without voters nothing is agreed on."""
        self.assertEqual(agreed_index(ConfState(), {"a": 5}), 0)


class VoteResultTests(SynchronousTestCase):
    def test_three_voters(self) -> None:
        """Two grants win, two refusals lose, anything else is open."""
        conf = ConfState(("a", "b", "c"))
        self.assertIs(vote_result(conf, {"a": True}), VoteResult.PENDING)
        self.assertIs(vote_result(conf, {"a": True, "b": False}), VoteResult.PENDING)
        self.assertIs(vote_result(conf, {"a": True, "b": False, "c": True}), VoteResult.WON)
        self.assertIs(vote_result(conf, {"a": True, "b": False, "c": False}), VoteResult.LOST)

    def test_four_voters_need_three(self) -> None:
        """Half is no majority; and half refusing ends it."""
        conf = ConfState(("a", "b", "c", "d"))
        self.assertIs(vote_result(conf, {"a": True, "b": True}), VoteResult.PENDING)
        self.assertIs(vote_result(conf, {"a": False, "b": False}), VoteResult.LOST)

    def test_joint_needs_both(self) -> None:
        """One half lost is lost; one half won alone is open."""
        conf = ConfState(("a", "b", "c"), ("c", "d", "e"))
        self.assertIs(vote_result(conf, {"a": True, "b": True}), VoteResult.PENDING)
        both = {"a": True, "b": True, "d": True, "e": True}
        self.assertIs(vote_result(conf, both), VoteResult.WON)
        self.assertIs(
            vote_result(conf, {"a": True, "b": True, "d": False, "e": False}), VoteResult.LOST
        )

    def test_learners_do_not_vote(self) -> None:
        """A learner's yes is no vote."""
        conf = ConfState(("a", "b", "c"), (), ("l",))
        self.assertIs(vote_result(conf, {"a": True, "l": True}), VoteResult.PENDING)
