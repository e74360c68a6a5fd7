"""Which member is asked next."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import LocalProtocolError
from pbcluster.transport.member_choice import (
    ATTEMPT_TIMEOUT_S,
    HINTS_AT_ONCE,
    LONGEST_PAUSE_S,
    Attempt,
    Choice,
    Members,
)


class ChoiceCase(SynchronousTestCase):
    def setUp(self) -> None:
        names = [(f"tcp://127.0.0.1:{n}", f"member_{n}") for n in (1, 2, 3)]
        self.members = Members(names, Random(1))

    def choice(self, timeout_s: float = 10.0, any_member: bool = False) -> Choice:
        return Choice(self.members, deadline=timeout_s, any_member=any_member)

    def next(self, choice: Choice, now: float = 0.0) -> Attempt:
        attempt = choice.next(now)
        assert attempt is not None
        return attempt


class Rules(ChoiceCase):
    def test_last_leader_first(self) -> None:
        """Who answered as the leader is asked first by the next question."""
        self.choice().answered(2)
        self.assertEqual(self.next(self.choice()).member, 2)

    def test_hint_is_followed_at_once(self) -> None:
        """NotLeader with an endpoint or an id leads there without a pause, and is remembered."""
        for word in ("tcp://127.0.0.1:3", "member_3"):
            self.members.leader = 0
            choice = self.choice()
            self.assertEqual(self.next(choice).member, 0)
            choice.not_leader(0, word)
            attempt = self.next(choice)
            self.assertEqual((attempt.member, attempt.pause_s), (2, 0.0))
            self.assertEqual(self.members.leader, 2)

    def test_unknown_hint(self) -> None:
        """A hint that names nobody, nobody we know or the same member again is no hint."""
        for hint in (None, "", "tcp://10.0.0.1:1", 17, "member_1"):
            self.members.leader = 0
            choice = self.choice()
            self.next(choice)
            stranger = choice.not_leader(0, hint)
            self.assertEqual(stranger, hint == "tcp://10.0.0.1:1")
            self.assertIsNone(self.members.leader)
            self.assertNotEqual(self.next(choice).member, 0)

    def test_members_that_point_at_each_other(self) -> None:
        """A circle of hints is followed a few times, then with pauses: no busy loop."""
        choice = self.choice()
        self.members.leader = 0
        pauses = []
        for _ in range(8):
            attempt = self.next(choice)
            pauses.append(attempt.pause_s)
            choice.not_leader(attempt.member, f"member_{2 - attempt.member}")
        self.assertEqual(pauses[: HINTS_AT_ONCE + 1], [0.0] * (HINTS_AT_ONCE + 1))
        self.assertTrue(all(pause > 0 for pause in pauses[HINTS_AT_ONCE + 1 :]), pauses)

    def test_silence_moves_on_through_all(self) -> None:
        """After silence each other member is asked once without a pause, then comes a pause."""
        choice = self.choice()
        seen = []
        for _ in range(3):
            attempt = self.next(choice)
            self.assertEqual(attempt.pause_s, 0.0)
            seen.append(attempt.member)
            choice.silent(attempt.member)
        self.assertEqual(sorted(seen), [0, 1, 2])
        self.assertGreater(self.next(choice).pause_s, 0.0)

    def test_reachable_before_unreachable(self) -> None:
        """A member with an open session is preferred to one without."""
        for reachable in (0, 1, 2):
            self.members.reachable = {reachable}
            self.assertEqual(self.next(self.choice()).member, reachable)

    def test_pauses_grow_to_a_bound_and_differ(self) -> None:
        """Pauses grow, never beyond the bound, and two processes do not pause alike."""

        def pauses(seed: int) -> list[float]:
            choice = Choice(Members([("a",)], Random(seed)), deadline=1e6, any_member=False)
            found = []
            for _ in range(20):
                attempt = self.next(choice)
                found.append(attempt.pause_s)
                choice.silent(0)
            return found[1:]

        one, two = pauses(1), pauses(2)
        self.assertLessEqual(max(one), LONGEST_PAUSE_S)
        self.assertGreaterEqual(min(one[-5:]), LONGEST_PAUSE_S / 2)
        self.assertLess(one[0], 0.051)
        self.assertNotEqual(one, two)

    def test_busy_leader_is_asked_again_after_a_pause(self) -> None:
        """Busy does not send a question away from the leader."""
        self.members.leader = 1
        choice = self.choice()
        self.next(choice)
        choice.busy(1)
        attempt = self.next(choice)
        self.assertEqual(attempt.member, 1)
        self.assertGreater(attempt.pause_s, 0.0)

    def test_busy_member_is_left_when_any_will_do(self) -> None:
        """A look-up goes to another member than the busy one."""
        choice = self.choice(any_member=True)
        first = self.next(choice).member
        choice.busy(first)
        self.assertNotEqual(self.next(choice).member, first)

    def test_any_member_stays_with_who_answers(self) -> None:
        """Look-ups stay with one member, and do not change who is believed to lead."""
        self.members.leader = 0
        self.choice(any_member=True).answered(2)
        self.assertEqual(self.next(self.choice(any_member=True)).member, 2)
        self.assertEqual(self.next(self.choice()).member, 0)

    def test_attempts_fit_into_the_deadline(self) -> None:
        """No attempt ends after the deadline; each leaves half to others while that is enough."""
        for timeout_s in (0.001, 0.04, 0.08, 0.4, 1.5, 30.0):
            choice, now = self.choice(timeout_s), 0.0
            count = 0
            while (attempt := choice.next(now)) is not None:
                self.assertLessEqual(attempt.timeout_s, ATTEMPT_TIMEOUT_S)
                now += attempt.pause_s + attempt.timeout_s
                self.assertLessEqual(now, timeout_s + 1e-9)
                choice.silent(attempt.member)
                count += 1
                self.assertLess(count, 200)
            self.assertAlmostEqual(now, timeout_s, delta=1e-6)
            if timeout_s >= 0.4:
                self.assertGreaterEqual(count, 3)


class Changes(ChoiceCase):
    """Members that come and go."""

    def add(self, number: int) -> int:
        return self.members.add((f"tcp://127.0.0.1:{number}", f"member_{number}"))

    def test_numbers_are_never_used_again(self) -> None:
        """Not even the highest one's, after it left."""
        self.members.remove(2)
        self.assertEqual(self.add(4), 3)
        self.members.remove(3)
        self.assertEqual(self.add(5), 4)
        self.assertEqual(self.members.numbers(), [0, 1, 4])

    def test_added_member_is_asked(self) -> None:
        """By a question that was under way before, in the same round, and by hints."""
        choice = self.choice()
        for _ in range(3):
            choice.silent(self.next(choice).member)
        added = self.add(4)
        attempt = self.next(choice)
        self.assertEqual((attempt.member, attempt.pause_s), (added, 0.0))
        choice.silent(added)
        self.assertGreater(self.next(choice).pause_s, 0.0)
        choice.not_leader(0, "member_4")
        self.assertEqual(self.next(choice).member, added)

    def test_removed_member_is_asked_no_more(self) -> None:
        """Neither as leader, nor as preferred, nor by a hint from before or after, nor in turn."""
        for any_member in (False, True):
            self.setUp()
            self.members.leader = self.members.preferred = 1
            choice = self.choice(any_member=any_member)
            choice.not_leader(0, "member_2")
            self.members.reachable = {1}
            self.members.remove(1)
            choice.answered(1)  # late
            choice.not_leader(0, "member_2")
            for _ in range(10):
                attempt = self.next(choice)
                self.assertIn(attempt.member, (0, 2))
                choice.silent(attempt.member)
        self.assertNotIn(1, self.members.reachable)
        self.assertIsNone(self.members.leader)

    def test_round_without_the_removed(self) -> None:
        """Who is gone is not waited for: the round is over when all that are left were asked."""
        choice = self.choice()
        first = self.next(choice).member
        choice.silent(first)
        second = self.next(choice).member
        self.members.remove(({0, 1, 2} - {first, second}).pop())
        choice.silent(second)
        self.assertGreater(self.next(choice).pause_s, 0.0)

    def test_all_replaced_while_a_question_runs(self) -> None:
        """It goes to the new ones."""
        choice = self.choice()
        choice.silent(self.next(choice).member)
        added = {self.add(number) for number in (4, 5)}
        for number in (0, 1, 2):
            self.members.remove(number)
        seen = set()
        for _ in range(2):
            attempt = self.next(choice)
            seen.add(attempt.member)
            choice.silent(attempt.member)
        self.assertEqual(seen, added)

    def test_hint_after_a_reconnect(self) -> None:
        """Of two with one name, the newer one is meant, and then the one that is left."""
        added = self.add(1)
        self.assertEqual(self.members.by_name("member_1"), added)
        self.members.remove(added)
        self.assertEqual(self.members.by_name("member_1"), 0)

    def test_the_last_one_stays(self) -> None:
        """There is always somebody to ask."""
        self.members.remove(0)
        self.members.remove(1)
        self.assertRaises(LocalProtocolError, self.members.remove, 2)
        self.assertEqual(self.next(self.choice()).member, 2)
