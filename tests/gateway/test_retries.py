from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.holds import Holds
from pbcluster.gateway.retries import (
    LONG_PAUSE_MAX_S,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    SHORT_PAUSES,
    Budget,
    Verdict,
    judge,
    pause_s,
)
from pbcluster.web.interfaces import Attempt, Outcome

OVER, AGAIN, FAILED = Verdict.OVER, Verdict.AGAIN, Verdict.FAILED


class JudgeTests(SynchronousTestCase):
    #: outcome, marked, repeats, → for a GET, → for a POST (bodies whole)
    TABLE = (
        (Outcome.COMPLETED, False, 0, OVER, OVER),
        (Outcome.BROKEN, False, 0, OVER, OVER),
        (Outcome.CLIENT_GONE, False, 0, OVER, OVER),
        (Outcome.NOT_SENT, False, 0, AGAIN, AGAIN),
        (Outcome.NOT_SENT, False, 9, AGAIN, AGAIN),
        (Outcome.REFUSED, True, 0, AGAIN, AGAIN),
        (Outcome.REFUSED, True, 9, AGAIN, AGAIN),
        (Outcome.REFUSED, False, 0, FAILED, FAILED),
        (Outcome.NO_RESPONSE, False, 0, AGAIN, FAILED),
        (Outcome.NO_RESPONSE, False, 1, AGAIN, FAILED),
        (Outcome.NO_RESPONSE, False, 2, FAILED, FAILED),
        (Outcome.TIMEOUT, False, 0, FAILED, FAILED),
    )

    def test_table(self) -> None:
        """Every row, for safe and for other methods."""
        for outcome, marked, repeats, safe, unsafe in self.TABLE:
            attempt = Attempt(outcome, True)
            for methods, expected in (
                ((b"GET", b"HEAD", b"OPTIONS"), safe),
                ((b"POST", b"PUT", b"PATCH", b"DELETE"), unsafe),
            ):
                for method in methods:
                    verdict = judge(attempt, method, marked=marked, repeats=repeats)
                    self.assertIs(verdict, expected, (outcome, method))

    def test_body_is_gone(self) -> None:
        """Nothing whose body is no longer whole is made again."""
        for outcome, marked, *_ in self.TABLE:
            verdict = judge(Attempt(outcome, False), b"GET", marked=marked, repeats=0)
            self.assertIsNot(verdict, AGAIN, outcome)


class PauseTests(SynchronousTestCase):
    def test_full_jitter(self) -> None:
        """Pauses lie between 25 and 250 ms, after some of them up to 500 ms."""
        random = Random(3)
        short = [pause_s(0, random) for _ in range(500)]
        long = [pause_s(SHORT_PAUSES, random) for _ in range(500)]
        self.assertTrue(all(PAUSE_MIN_S <= pause <= PAUSE_MAX_S for pause in short))
        self.assertTrue(all(PAUSE_MIN_S <= pause <= LONG_PAUSE_MAX_S for pause in long))
        self.assertGreater(max(long), PAUSE_MAX_S)
        self.assertGreater(max(short) - min(short), 0.2)


class BudgetTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Three, or a fifth of what is under way, whichever is more."""
        for active, allowed in ((0, 3), (15, 3), (20, 4), (1000, 200)):
            budget = Budget()
            self.assertEqual(sum(budget.take(active) for _ in range(2000)), allowed, active)

    def test_given_back(self) -> None:
        """A repeat that is over makes room."""
        budget = Budget()
        while budget.take(0):
            pass
        budget.give_back()
        self.assertTrue(budget.take(0))
        self.assertFalse(budget.take(0))


class HoldsTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        """One tenant's crowd and all crowds together are bounded; leaving makes room."""
        holds = Holds(max_per_tenant=2, max_total=3)
        self.assertEqual([holds.enter("a") for _ in range(3)], [True, True, False])
        self.assertEqual([holds.enter("b") for _ in range(2)], [True, False])
        self.assertEqual((holds.total, holds.refused), (3, 2))
        holds.leave("a")
        self.assertTrue(holds.enter("b"))
        for name in ("a", "b", "b"):
            holds.leave(name)
        self.assertEqual((holds.total, holds.waiting_for("a"), holds.waiting_for("b")), (0, 0, 0))
