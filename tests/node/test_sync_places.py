"""Places of syncs that are under way: bounded, waited for, and free again when Litestream ends."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import S3Unavailable
from pbcluster.node.sync_places import MAX_WAITING, Place, SyncPlaces

DB, OTHER = Path("/d/data.db"), Path("/d/other.db")


class PlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.places = SyncPlaces(self.clock, 2)

    def take(self, database: Path = DB, within_s: float = 5.0) -> Deferred[Place]:
        return Deferred.fromCoroutine(self.places.take(database, self.clock.seconds() + within_s))

    def test_bound_of_each_database(self) -> None:
        """Two of one database; another one has its own."""
        self.successResultOf(self.take())
        self.successResultOf(self.take())
        self.assertNoResult(self.take())
        self.successResultOf(self.take(OTHER))

    def test_first_come_first_served(self) -> None:
        """A place that is given back goes to who waits longest; the others wait on."""
        held = [self.successResultOf(self.take()) for _ in range(2)]
        waiting = [self.take() for _ in range(3)]
        self.places.give_back(held[0])
        self.successResultOf(waiting[0])
        for each in waiting[1:]:
            self.assertNoResult(each)
        self.places.give_back(held[1])
        self.successResultOf(waiting[1])
        self.clock.advance(5)
        self.failureResultOf(waiting[2], S3Unavailable)

    def test_too_many_wait(self) -> None:
        """The queue is bounded: one more is refused at once, until there is room."""
        held = [self.successResultOf(self.take()) for _ in range(2)]
        waiting = [self.take() for _ in range(MAX_WAITING)]
        self.failureResultOf(self.take(), S3Unavailable)
        self.places.give_back(held[0])
        self.successResultOf(waiting[0])
        self.assertNoResult(self.take())

    def test_no_time_left(self) -> None:
        """Who may not wait at all is told on the reactor's next turn."""
        for _ in range(2):
            self.successResultOf(self.take())
        late = self.take(within_s=0.0)
        self.clock.advance(0)
        self.failureResultOf(late, S3Unavailable)

    def test_a_daemon_that_ended(self) -> None:
        """Its syncs are over: who waits goes on, and what is given back late frees nobody else's
        place."""
        former = [self.successResultOf(self.take()) for _ in range(2)]
        waiting = [self.take() for _ in range(3)]
        self.assertEqual(self.places.oldest(), 0.0)
        self.places.reset()
        for each in waiting[:2]:
            self.successResultOf(each)
        for place in former:
            self.places.give_back(place)
        self.assertNoResult(waiting[2])

    def test_the_oldest(self) -> None:
        """The time of the oldest that is under way; none when all were given back."""
        first = self.successResultOf(self.take())
        self.clock.advance(3)
        second = self.successResultOf(self.take(OTHER))
        self.assertEqual(self.places.oldest(), 0.0)
        self.places.give_back(first)
        self.assertEqual(self.places.oldest(), 3.0)
        self.places.give_back(second)
        self.assertIsNone(self.places.oldest())
