"""How many syncs of a database may be under way in Litestream, and who waits for one to end.

Litestream lets a sync that nobody waits for any more go on, and after an outage it continues only
when the pause between its own tries is over, some seconds later. Until then another one would just
stand behind it. So few are asked for at once, and whoever comes then waits for a place, within its
own time: its caller sees a delay and not an error. What holds: no more than ``most`` places of a
database are taken, one that is given back, or taken back by :meth:`SyncPlaces.reset`, is had by who
waits longest, and no more than :data:`MAX_WAITING` wait.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pbcluster.errors import S3Unavailable

#: For places of one database. A tenant has one round of writes and a few steps of its life.
MAX_WAITING = 8


@attrs.frozen(eq=False)
class Place:
    """Of one sync. :ivar began: when it was taken."""

    database: Path
    began: float


class SyncPlaces:
    """The places of all databases."""

    def __init__(self, clock: IReactorTime, most: int) -> None:
        """
        :param most: of one database.
        """
        self._clock = clock
        self._most = most
        self._taken: dict[Path, list[Place]] = {}
        self._queues: dict[Path, list[Deferred[None]]] = {}

    def oldest(self) -> float | None:
        """When the oldest sync began that is under way, None: none is."""
        return min((place.began for each in self._taken.values() for place in each), default=None)

    async def take(self, database: Path, until: float) -> Place:
        """Wait for a place.

        :param until: by then, on the clock. :returns: to be given back.
        :raises S3Unavailable: there was none, or too many wait already.
        """
        while len(self._taken.get(database, ())) >= self._most:
            await self._next_end(database, until)
        place = Place(database, self._clock.seconds())
        self._taken.setdefault(database, []).append(place)
        return place

    def give_back(self, place: Place) -> None:
        """That sync ended."""
        taken = self._taken.get(place.database, [])
        if place in taken:  # else it is one of a daemon that ended
            taken.remove(place)
        if not taken:
            self._taken.pop(place.database, None)
        self._wake(place.database)

    def reset(self) -> None:
        """All syncs are over: Litestream itself ended."""
        self._taken.clear()
        for database in list(self._queues):
            self._wake(database)

    async def _next_end(self, database: Path, until: float) -> None:
        error = S3Unavailable(f"earlier syncs of {database} are still under way")
        if len(self._queues.get(database, ())) >= MAX_WAITING:
            raise error
        waiting: Deferred[None] = Deferred()
        wait_s = max(0.0, until - self._clock.seconds())
        timer = self._clock.callLater(wait_s, waiting.errback, error)
        self._queues.setdefault(database, []).append(waiting)
        try:
            await waiting
        finally:
            if timer.active():
                timer.cancel()
            queue = self._queues.get(database, [])
            if waiting in queue:
                queue.remove(waiting)
                if not queue:
                    del self._queues[database]

    def _wake(self, database: Path) -> None:
        """Everybody looks again; the first finds the place."""
        for waiting in self._queues.pop(database, []):
            waiting.callback(None)
