"""Which member is asked next."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.transport.member_choice import (
    ATTEMPT_TIMEOUT_S,
    HINTS_AT_ONCE,
    LONGEST_PAUSE_S,
    Attempt,
    Choice,
    Members,
)


class Rules(SynchronousTestCase):
    def setUp(self) -> None:
        names = [(f"tcp://127.0.0.1:{n}", f"member_{n}") for n in (1, 2, 3)]
        self.members = Members(names, Random(1))

    def choice(self, timeout_s: float = 10.0, any_member: bool = False) -> Choice:
        return Choice(self.members, deadline=timeout_s, any_member=any_member)

    def next(self, choice: Choice, now: float = 0.0) -> Attempt:
        attempt = choice.next(now)
        assert attempt is not None
        return attempt

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
            choice.not_leader(0, hint)
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
