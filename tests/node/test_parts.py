"""Waiting, and doing two things at once."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import Conflict, NotFound, Unavailable
from pbcluster.node.parts import Changes, both, pause, spawn


class ChangesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.changes = Changes(self.clock, 2)

    def wait(self, timeout_s: float = 1.0) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.changes.wait(timeout_s))

    def test_all_are_woken(self) -> None:
        """A change wakes everybody and leaves no timer."""
        waiting = [self.wait(), self.wait()]
        self.changes.fire()
        self.assertEqual([self.successResultOf(each) for each in waiting], [True, True])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timeout(self) -> None:
        """Without a change the wait ends by its limit, and takes no place any more."""
        waiting = self.wait()
        self.clock.advance(1.0)
        self.assertFalse(self.successResultOf(waiting))
        self.assertEqual(len(self.changes), 0)
        self.assertFalse(self.successResultOf(self.wait(0)))

    def test_bound(self) -> None:
        """One waiter too many is refused."""
        self.wait()
        self.wait()
        self.failureResultOf(self.wait(), Unavailable)


class BothTests(SynchronousTestCase):
    def test_at_once(self) -> None:
        """Two run beside each other, and both results come."""
        clock = Clock()

        async def later(seconds: float) -> float:
            await pause(clock, seconds)
            return seconds

        done = Deferred.fromCoroutine(both(later(1.0), later(2.0)))
        clock.advance(1.0)
        self.assertNoResult(done)
        clock.advance(1.0)
        self.assertEqual(self.successResultOf(done), (1.0, 2.0))

    def test_errors(self) -> None:
        """The first's error counts; none is left unhandled."""

        async def fail(error: Exception) -> None:
            raise error

        done = Deferred.fromCoroutine(both(fail(NotFound("a")), fail(Conflict("b"))))
        self.failureResultOf(done, NotFound)

    def test_spawn_logs(self) -> None:
        """A fault of a spawned coroutine is logged and harms nobody."""

        async def fail() -> None:
            raise ValueError("a bug")

        self.assertIsNone(self.successResultOf(spawn(fail(), "a test")))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
