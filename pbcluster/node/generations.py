"""This node serves only while its cluster is the one that the bucket belongs to.

At the start a bucket without an owner is claimed for our cluster, and one of another cluster ends
the node. From then on a look each 5 s finds out whether the cluster was recovered under another id:
then members of the old one, which may have come back, must not be obeyed any more, whatever leases
they grant. While S3 does not answer nothing is known, and the node goes on: ownership of each
tenant still rests on its owner object. The rules stand in ``pbcluster.generations``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster import generations
from pbcluster.errors import S3Unavailable, StorageCorrupt
from pbcluster.generations import LOOK_INTERVAL_S, LOOK_TIMEOUT_S, ForeignBucket, Generation
from pbcluster.node.parts import pause, spawn
from pbcluster.node.s3 import ObjectStore, PreconditionFailed, S3Refused

log = Logger()

#: The pause before a look is up to so much shorter, so that not all nodes ask at once.
LOOK_JITTER = 0.2
#: While S3 is away the log says so again after so many looks.
TELL_EVERY = 60


class GenerationStore(Protocol):
    """The generations of the cluster's bucket."""

    async def newest(self) -> Generation | None:
        """The newest one, None if there is none.

        :raises S3Unavailable: it cannot be known now.
        :raises StorageCorrupt: something is there that we do not write.
        """

    async def claim(self, wanted: Generation) -> None:
        """Store it if nothing is stored under its number; :meth:`newest` tells who won.

        :raises S3Unavailable: whether it is stored is not known.
        """


class S3Generations:
    """:class:`GenerationStore` on an :class:`~pbcluster.node.s3.ObjectStore`."""

    def __init__(self, objects: ObjectStore) -> None:
        """
        :param objects: the cluster's bucket.
        """
        self._objects = objects

    async def newest(self) -> Generation | None:
        """See :class:`GenerationStore`."""
        number = generations.highest((await self._objects.list(generations.PREFIX)).keys)
        if not number:
            return None
        stored = await self._objects.get(generations.key_of(number))
        if stored is None:
            raise S3Unavailable(f"S3 lists {generations.key_of(number)} but does not have it")
        return generations.decode(number, stored.body)

    async def claim(self, wanted: Generation) -> None:
        """See :class:`GenerationStore`."""
        key = generations.key_of(wanted.generation)
        try:
            await self._objects.put(key, generations.encode(wanted), if_absent=True)
        except PreconditionFailed:
            log.info("{key} was claimed by another first", key=key)


class GenerationWatch:
    """See the module. Call :meth:`enter` until it returns, then :meth:`start`."""

    def __init__(
        self,
        store: GenerationStore,
        *,
        cluster_id: str,
        bucket: str,
        clock: IReactorTime,
        utc_now: Callable[[], datetime],
        random: Callable[[], float],
        superseded: Callable[[ForeignBucket], None],
    ) -> None:
        """
        :param bucket: its name, for what people read. :param random: 0 up to 1.
        :param superseded: called once, within the look that found the newer generation; when it
            returns nothing may be answered any more.
        """
        self._store = store
        self._cluster_id = cluster_id
        self._bucket = bucket
        self._clock = clock
        self._utc_now = utc_now
        self._random = random
        self._superseded = superseded
        self._known = 0
        self._failures = 0
        self._looking: Deferred[None] | None = None

    async def enter(self) -> None:
        """Make sure that the bucket is our cluster's; one without an owner becomes it.

        :raises ForeignBucket: it is another's. :raises S3Unavailable: not known now; repeatable.
        :raises StorageCorrupt: something is there that we do not write.
        """
        newest = await self._store.newest()
        if newest is None:
            own = generations.first(self._cluster_id, self._utc_now().isoformat())
            await self._store.claim(own)
            # Whoever won, and whatever came after it: only what is the newest now counts.
            newest = await self._store.newest()
        if newest is None:
            raise S3Unavailable("S3 does not list a generation that was claimed just now")
        generations.check_belongs(newest, self._cluster_id, self._bucket)
        self._known = newest.generation

    def start(self) -> None:
        """Begin to look."""
        self._looking = spawn(self._look_again_and_again(), "watch over the bucket's generation")

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look_again_and_again(self) -> None:
        while True:
            await pause(self._clock, LOOK_INTERVAL_S * (1.0 - LOOK_JITTER * self._random()))
            look = Deferred.fromCoroutine(self._store.newest())
            try:
                newest = await look.addTimeout(LOOK_TIMEOUT_S, self._clock)
            except CancelledError:
                raise
            except Exception as error:  # not even a bug may end the watch
                self._not_known(error)
                continue
            self._failures = 0
            try:
                self._judge(newest)
            except ForeignBucket as error:
                self._superseded(error)
                return

    def _judge(self, newest: Generation | None) -> None:
        """:raises ForeignBucket: our cluster is not the newest any more."""
        if newest is None or newest.generation < self._known:
            # They are never removed: what shows less than before is no news.
            log.error("generation {known} of the bucket is gone from S3", known=self._known)
            return
        generations.check_belongs(newest, self._cluster_id, self._bucket)
        self._known = newest.generation

    def _not_known(self, error: Exception) -> None:
        lasting = isinstance(error, S3Refused | StorageCorrupt)
        if self._failures % TELL_EVERY == 0:
            tell = log.error if lasting else log.warn
            tell("whether this cluster was recovered is not known: {error!r}", error=error)
        self._failures += 1
