"""S3 as one node meets it, and the Litestream that writes to it.

One bucket, strongly consistent, as in ``node_fakes``; between it and each process requests and
answers take their time, are lost, or meet an outage. A request that was sent reaches S3 even if its
sender is paused, has given up or is dead; its answer waits for a paused sender.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred

from pbcluster.errors import S3Unavailable
from pbcluster.node.claims import ready_key, replica_path
from pbcluster.node.interfaces import Owner
from pbcluster.node.s3 import S3Refused
from pbcluster.testing.node_fakes.database import Database
from pbcluster.testing.node_fakes.disk import FakeDisk
from pbcluster.testing.node_fakes.replication import FakeReplication
from pbcluster.testing.node_fakes.s3 import FakeS3, FakeS3Client
from pbcluster.testing.ownership_sim.clocks import ProcessClock

T = TypeVar("T")
#: The nodes' real client gives up after so long.
REQUEST_TIMEOUT_S = 3.0


@attrs.define
class Weather:
    """What a process meets on its way to S3; changed by the world at any time.

    :ivar slow: latencies are so many times the usual. :ivar loss: chance that a request, and
        again that its answer, is lost. :ivar down: nothing arrives. :ivar refused: keys are
        refused. :ivar broken: every request fails at once with a fault of S3's.
    """

    slow: float = 1.0
    loss: float = 0.01
    down: bool = False
    refused: bool = False
    broken: bool = False


class SimS3Client(FakeS3Client):
    """``ObjectStore`` of one process."""

    def __init__(
        self,
        s3: FakeS3,
        name: str,
        clock: ProcessClock,
        random: Random,
        weather: Weather,
        done: Callable[[str, str, str], None],
    ) -> None:
        """
        :param done: told name, method and key of each request at the moment S3 carries it out.
        """
        super().__init__(s3, name)
        self.clock = clock
        self.weather = weather
        self._random = random
        self._done = done

    def _latency(self) -> float:
        usual: float = self._random.choice((0.002, 0.004, 0.01, 0.03, 0.2))
        return usual * (0.5 + self._random.random()) * self.weather.slow

    async def _ask(self, method: str, key: str, act: Callable[[], T]) -> T:
        answer: Deferred[T] = Deferred()
        what, weather = f"{method} {key}", self.weather
        if weather.broken:
            raise S3Unavailable(f"S3 answered {what} with 500")
        timer = self.clock.callLater(REQUEST_TIMEOUT_S, self._timed_out, answer, what)
        if not weather.down and self._random.random() >= weather.loss:
            self.clock.world.callLater(self._latency(), self._arrived, method, key, act, answer)
        try:
            return await answer
        finally:
            if timer.active():
                timer.cancel()

    def _timed_out(self, answer: Deferred[T], what: str) -> None:
        if not answer.called:
            answer.errback(S3Unavailable(f"S3 did not answer {what}"))

    def _arrived(self, method: str, key: str, act: Callable[[], T], answer: Deferred[T]) -> None:
        if self.clock.dead and self._random.random() < 0.5:
            return  # its connection went with the process
        error: Exception | None = None
        result: T
        if self.weather.refused:
            error = S3Refused(f"S3 answered {method} {key} with 403 AccessDenied")
        else:
            try:
                result = act()
            except Exception as raised:
                error = raised
            else:
                self._done(self.name, method, key)
        if self.weather.down or self._random.random() < self.weather.loss:
            return

        def back() -> None:
            if not answer.called:
                answer.errback(error) if error is not None else answer.callback(result)

        self.clock.callLater(self._latency(), back)


class SimDisk(FakeDisk):
    """A machine's disk.

    :ivar replaced: files (by inode) that a tenant itself put in its database's place.
    :ivar saved: an earlier state of this disk; empty: none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced: set[int] = set()
        self.saved = b""

    def image(self) -> bytes:
        """See ``FakeDisk``; with the claim notes, which are files on the same disk."""
        return msgspec.msgpack.encode((super().image(), self.notes))

    def revert(self, image: bytes) -> None:
        """See ``FakeDisk``."""
        kind = tuple[bytes, dict[str, tuple[int, Owner]]]
        rest, self.notes = msgspec.msgpack.decode(image, type=kind)
        super().revert(rest)


class SimReplication(FakeReplication):
    """Litestream, harsher than it is: the first upload of a database comes in two parts, and only
    the second one makes a prefix whole. A file that takes data.db's place is not seen.

    :ivar restored: called with tenant id, epoch and the copy when a restore is about to end.
    """

    def __init__(
        self,
        clock: ProcessClock,
        client: SimS3Client,
        disk: FakeDisk,
        restored: Callable[[str, int, Database, bool], None],
    ) -> None:
        super().__init__(clock, client, disk)
        self.s3: SimS3Client = client
        #: data.db's path → the file that was registered.
        self.identities: dict[Path, tuple[int, int]] = {}
        self._restored = restored
        self._random = client._random
        self._begun: set[Path] = set()

    async def restore(self, tenant_id: str, epoch: int, target: Path, txid: int = 0) -> None:
        """See ``Replication``."""
        await super().restore(tenant_id, epoch, target, txid)
        ready = ready_key(tenant_id, epoch) in self.s3.s3.objects
        self._restored(tenant_id, epoch, self.disk.databases[target], ready)

    async def register(self, tenant_id: str, epoch: int, database: Path) -> None:
        """See ``Replication``."""
        if self.registered.get(database) != (tenant_id, epoch):
            self._begun.discard(database)
            self.identities[database] = (1, self.disk.databases[database].inode)
        await super().register(tenant_id, epoch, database)

    async def unregister(self, database: Path) -> bool:
        """See ``Replication``. Of a file that was moved away there is nothing to sync."""
        if database not in self.disk.databases:
            self.registered.pop(database, None)
        return await super().unregister(database)

    async def sync(self, database: Path, *, timeout_s: float) -> int:
        """See ``Replication``."""
        found = self.disk.databases.get(database)
        if database in self.registered and found is not None:
            if self.identities.get(database) != (1, found.inode):
                return await self._sync_of_the_old_file()
            if database not in self._begun:
                await self._first_part(database, found)
        return await super().sync(database, timeout_s=timeout_s)

    async def _sync_of_the_old_file(self) -> int:
        """It has the file open that stood there before: nothing new, or a fault."""
        self._check_running()
        if self._random.random() < 0.5:
            raise S3Unavailable("Litestream answered a sync with 500")
        return 1

    async def _first_part(self, database: Path, found: Database) -> None:
        tenant_id, epoch = self.registered[database]
        if found.txid > 1 and ready_key(tenant_id, epoch) not in self.s3.s3.objects:
            part = Database(found.rows[: len(found.rows) // 2], 1, found.inode)
            name = f"/0000/{1:016x}-{1:016x}.ltx"
            key = replica_path(tenant_id, epoch) + name
            await self.s3.put(key, msgspec.msgpack.encode(part))
        self._begun.add(database)
