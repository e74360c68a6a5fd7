"""A node that is stopped lets its tenants go first, within bounds."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.leaving import STALLED_S, leave

LIMIT_S = 15.0


class Leaving(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told = 0
        self.left = 3
        self.other_nodes = True

    async def announce(self) -> bool:
        self.told += 1
        return self.other_nodes

    def begin(self, limit_s: float = LIMIT_S) -> Deferred[int]:
        leaving = leave(self.clock, self.announce, lambda: self.left, limit_s)
        return Deferred.fromCoroutine(leaving)

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def test_it_ends_with_the_last_tenant(self) -> None:
        """Meanwhile whoever leads is told again and again."""
        ending = self.begin()
        self.run_for(2.0)
        self.assertNoResult(ending)
        self.assertGreaterEqual(self.told, 3)
        self.left = 0
        self.run_for(0.1)
        self.assertEqual(self.successResultOf(ending), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_is_waited_for_in_vain(self) -> None:
        """With nothing running, no other node, or a limit of 0 it ends at once."""
        self.assertEqual(self.successResultOf(self.begin(0.0)), 3)
        self.other_nodes = False
        self.assertEqual(self.successResultOf(self.begin()), 3)
        self.left = 0
        self.assertEqual((self.successResultOf(self.begin()), self.told), (0, 1))

    def test_it_ends_when_nothing_moves_on(self) -> None:
        """Each tenant that leaves begins the time anew; the limit holds all the same."""
        ending = self.begin()
        self.run_for(STALLED_S - 1)
        self.left = 2
        self.run_for(STALLED_S - 1)
        self.assertNoResult(ending)
        self.run_for(2.0)
        self.assertEqual(self.successResultOf(ending), 2)
        ending = self.begin(limit_s=3.0)
        self.run_for(3.1)
        self.assertEqual(self.successResultOf(ending), 2)
