"""Litestream: brings databases of a fake disk to the fake S3, and back.

It refuses what Litestream refuses, and forgets what Litestream forgets: a daemon that was started
anew knows no database, and one whose unregister failed is let go of without a sync the next time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from twisted.internet.task import Clock

from pbcluster.errors import S3Unavailable, StorageCorrupt
from pbcluster.node.claims import replica_path
from pbcluster.testing.node_fakes.database import newest, replica_name
from pbcluster.testing.node_fakes.delays import passing
from pbcluster.testing.node_fakes.disk import FakeDisk
from pbcluster.testing.node_fakes.s3 import FakeS3Client


class FakeReplication:
    """``Replication``: a sync puts the whole database under its prefix.

    :ivar registered: data.db's path → (tenant id, epoch).
    :ivar sync_delay_s: a sync that finds something new takes so much longer than its PUT.
    :ivar broken_syncs: so many syncs answer with a failure.
    :ivar corrupt: restores of these (tenant id, epoch) fail their check.
    :ivar syncs: paths of all syncs asked for, in order.
    :ivar waiting: when each sync began that is under way.
    """

    def __init__(self, clock: Clock, s3: FakeS3Client, disk: FakeDisk) -> None:
        self.clock = clock
        self.s3 = s3
        self.disk = disk
        self.running = False
        self.starts = 0
        self.registered: dict[Path, tuple[str, int]] = {}
        self.sync_delay_s = 0.0
        self.restore_delay_s = 0.0
        self.broken_syncs = 0
        self.corrupt: set[tuple[str, int]] = set()
        self.syncs: list[Path] = []
        self.waiting: list[float] = []
        self._uploaded: dict[Path, int] = {}
        #: Their last unregister failed: the next one succeeds without a sync, as Litestream's does.
        self._doubtful: set[Path] = set()
        self._lost: list[Callable[[str], None]] = []

    async def start(self) -> None:
        """See ``Replication``."""
        self.running = True
        self.starts += 1

    async def stop(self) -> None:
        """See ``Replication``."""
        for database in list(self.registered):
            with contextlib.suppress(S3Unavailable):
                await self.unregister(database)
        self.registered.clear()
        self.running = False

    def when_lost(self, callback: Callable[[str], None]) -> None:
        """See ``Replication``."""
        self._lost.append(callback)

    def waiting_since(self) -> float | None:
        """See ``Replication``."""
        return min(self.waiting, default=None)

    async def end_hanging(self) -> None:
        """See ``Replication``."""
        self.lose()

    def lose(self, reason: str = "litestream was killed by SIGKILL") -> None:
        """The daemon dies."""
        self.running = False
        self.registered.clear()
        self.waiting.clear()
        for callback in list(self._lost):
            callback(reason)

    async def restore(self, tenant_id: str, epoch: int, target: Path, txid: int = 0) -> None:
        """See ``Replication``."""
        await passing(self.clock, self.restore_delay_s)
        prefix = replica_path(tenant_id, epoch) + "/"
        keys = (await self.s3.list(prefix)).keys
        if not keys:
            raise S3Unavailable(f"there is nothing to restore under {prefix}")
        if (tenant_id, epoch) in self.corrupt:
            raise StorageCorrupt(f"the restored copy of {tenant_id} fails its check")
        assert target not in self.disk.databases, f"{target} exists: never overwrite a copy"
        assert target not in self.registered, f"{target} still feeds {self.registered.get(target)}"
        found = newest(self.s3.s3.objects, tenant_id, epoch, txid)
        self.disk.create(target, found.rows, found.txid)

    async def register(self, tenant_id: str, epoch: int, database: Path) -> None:
        """See ``Replication``."""
        self._check_running()
        if self.registered.get(database) == (tenant_id, epoch):
            return
        await self.unregister(database)
        self.registered[database] = (tenant_id, epoch)
        self._uploaded.pop(database, None)

    async def unregister(self, database: Path) -> bool:
        """See ``Replication``."""
        if database not in self.registered:
            return False
        known = database not in self._doubtful
        if known:
            self._doubtful.add(database)
            await self.sync(database, timeout_s=10)  # it stays registered if this fails
        self.registered.pop(database, None)
        self._doubtful.discard(database)
        return known

    async def sync(self, database: Path, *, timeout_s: float) -> int:
        """See ``Replication``."""
        self.syncs.append(database)
        began = self.clock.seconds()
        self.waiting.append(began)
        try:
            return await self._sync(database)
        finally:
            if began in self.waiting:
                self.waiting.remove(began)

    async def _sync(self, database: Path) -> int:
        self._check_running()
        found = self.disk.databases.get(database)
        if database not in self.registered or found is None:
            raise S3Unavailable(f"Litestream does not know {database}")
        if self.broken_syncs > 0:
            self.broken_syncs -= 1
            raise S3Unavailable("Litestream answered a sync with 500")
        tenant_id, epoch = self.registered[database]
        content, txid = msgspec.msgpack.encode(found), max(found.txid, 1)
        if self._uploaded.get(database) != txid:
            self.disk.metadata[database] = txid
            await passing(self.clock, self.sync_delay_s)
            await self.s3.put(replica_path(tenant_id, epoch) + replica_name(txid), content)
            self._uploaded[database] = txid
        self._check_running()
        return txid

    def local_txid(self, database: Path) -> int:
        """See ``Replication``."""
        return self.disk.metadata.get(database, 0)

    def forget(self, database: Path) -> None:
        """See ``Replication``."""
        self.disk.metadata.pop(database, None)

    def _check_running(self) -> None:
        if not self.running:
            raise S3Unavailable("Litestream is not running")
