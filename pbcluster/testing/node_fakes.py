"""A node's outside without processes or network: S3, Litestream, PocketBase and the disk.

Everything runs on a ``task.Clock`` and answers at once unless a delay is set. Several nodes may
share one :class:`FakeS3`, each through its own :meth:`FakeS3.client` with faults of its own, as
through its own network; ``claims`` is the real :class:`~pbcluster.node.claims.S3ClaimStore` on it.

    clock = task.Clock()
    s3 = FakeS3(clock)
    a, b = fake_node(clock, s3), fake_node(clock, s3)
    a.s3.faults.down = True                 # only this node is cut off
    a.s3.faults.lose_answers = 1            # the next write is done, its answer is lost
    a.workloads.fail_next("exit status 1")  # the next start fails
    a.workloads.running[tenant_id].write("row")
    s3.rows(tenant_id, epoch)               # what a restore would give

A database is a list of rows and a transaction number. A sync puts all of it under the epoch's
prefix with the name that Litestream gives its files. What the real ones refuse is refused here: two
processes on one directory, a replica under an unknown path, a restore over an existing file.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pbcluster.errors import ProcessFailed, S3Unavailable, StorageCorrupt, Unavailable
from pbcluster.node.claims import S3ClaimStore, highest_txid, replica_path
from pbcluster.node.interfaces import Owner, WorkloadSpec
from pbcluster.node.s3 import Listing, PreconditionFailed, S3Refused, Stored
from pbcluster.node.warm_budget import LocalCopy
from pbcluster.node.warming import WarmFiles

T = TypeVar("T")


async def _pass(clock: Clock, seconds: float) -> None:
    if seconds > 0:
        waiting: Deferred[None] = Deferred()
        clock.callLater(seconds, waiting.callback, None)
        await waiting


# -- S3 -------------------------------------------------------------------------------------------


@attrs.define
class S3Faults:
    """What goes wrong between one node and S3.

    :ivar delay_s: a request arrives after half of it, its answer after the other half.
    :ivar down: no request arrives; each fails at once.
    :ivar refused: S3 refuses our keys.
    :ivar lose_answers: so many writes are done, but their caller is told it is unknown.
    :ivar lose_requests: so many requests of any kind never arrive; each fails.
    :ivar conflicts: so many conditional writes meet a 412 though nobody else wrote.
    """

    delay_s: float = 0.0
    down: bool = False
    refused: bool = False
    lose_answers: int = 0
    lose_requests: int = 0
    conflicts: int = 0


class FakeS3:
    """One strongly consistent bucket in memory.

    :ivar objects: key → what is stored. :ivar requests: (client, method, key) of all that arrived.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.objects: dict[str, Stored] = {}
        self.requests: list[tuple[str, str, str]] = []
        self._numbers = itertools.count(1)

    def client(self, name: str = "") -> FakeS3Client:
        """A way to it with faults of its own."""
        return FakeS3Client(self, name)

    def write(self, key: str, body: bytes) -> Stored:
        """Put an object, without a condition."""
        stored = Stored(body, f'"{next(self._numbers):032x}"')
        self.objects[key] = stored
        return stored

    def rows(self, tenant_id: str, epoch: int) -> list[str]:
        """What a restore of the epoch would give; empty if there is nothing."""
        return _newest(self, tenant_id, epoch).rows


class FakeS3Client:
    """``ObjectStore`` of one node. :ivar faults: may be changed at any time."""

    def __init__(self, s3: FakeS3, name: str) -> None:
        self.s3 = s3
        self.name = name
        self.faults = S3Faults()

    async def get(self, key: str) -> Stored | None:
        """See ``ObjectStore``."""
        return await self._ask("GET", key, lambda: self.s3.objects.get(key))

    async def head(self, key: str) -> str | None:
        """See ``ObjectStore``."""
        found = await self._ask("HEAD", key, lambda: self.s3.objects.get(key))
        return found.etag if found is not None else None

    async def put(
        self, key: str, body: bytes, *, if_match: str = "", if_absent: bool = False
    ) -> str:
        """See ``ObjectStore``."""

        def write() -> str:
            there = self.s3.objects.get(key)
            wrong = (if_absent and there is not None) or (
                if_match and (there is None or there.etag != if_match)
            )
            if (if_absent or if_match) and self.faults.conflicts > 0:
                self.faults.conflicts -= 1
                wrong = True
            if wrong:
                raise PreconditionFailed(f"PUT {key}: the object is not what was expected")
            return self.s3.write(key, body).etag

        return await self._ask("PUT", key, write)

    async def list(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> Listing:
        """See ``ObjectStore``."""

        def find() -> Listing:
            keys, groups = [], []
            for key in sorted(self.s3.objects):
                if not key.startswith(prefix) or key <= start_after:
                    continue
                first, found, _ = (
                    key[len(prefix) :].partition(delimiter) if delimiter else ("",) * 3
                )
                if found and prefix + first + delimiter not in groups:
                    groups.append(prefix + first + delimiter)
                elif not found:
                    keys.append(key)
            return Listing(tuple(keys), tuple(groups))

        return await self._ask("LIST", prefix, find)

    async def delete(self, key: str) -> None:
        """See ``ObjectStore``."""
        await self._ask("DELETE", key, lambda: self.s3.objects.pop(key, None))

    async def first(self, prefix: str, limit: int) -> tuple[str, ...]:
        """See ``ObjectStore``."""
        return (await self.list(prefix)).keys[:limit]

    async def delete_many(self, keys: tuple[str, ...]) -> None:
        """See ``ObjectStore``."""
        for key in keys:
            await self.delete(key)

    async def _ask(self, method: str, key: str, act: Callable[[], T]) -> T:
        await _pass(self.s3.clock, self.faults.delay_s / 2)
        if self.faults.down or self.faults.lose_requests > 0:
            self.faults.lose_requests = max(0, self.faults.lose_requests - 1)
            raise S3Unavailable(f"S3 did not answer {method} {key}")
        if self.faults.refused:
            raise S3Refused(f"S3 answered {method} {key} with 403 AccessDenied")
        self.s3.requests.append((self.name, method, key))
        result = act()
        await _pass(self.s3.clock, self.faults.delay_s / 2)
        if method in ("PUT", "DELETE") and self.faults.lose_answers > 0:
            self.faults.lose_answers -= 1
            raise S3Unavailable(f"S3 did not answer {method} {key}")
        return result


# -- the disk -------------------------------------------------------------------------------------


class Database(msgspec.Struct):
    """data.db: its rows, the number of its last transaction, and the file it is."""

    rows: list[str]
    txid: int = 0
    inode: int = 0


class FakeDisk:
    """Files of one node that outlive its processes.

    :ivar databases: data.db's path → its content.
    :ivar metadata: the same path → TXID in Litestream's local metadata.
    :ivar notes: tenant id → claim note. :ivar aside: what was set aside, in order.
    :ivar boot: counts starts of the machine; a note of another one is not trusted.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        """
        :param now: seconds since 1970.
        """
        self.now = now
        self.databases: dict[Path, Database] = {}
        self.metadata: dict[Path, int] = {}
        self.notes: dict[str, tuple[int, Owner]] = {}
        self.aside: list[Database] = []
        self.aside_names: dict[str, Database] = {}
        self.aside_numbers = itertools.count(1)
        #: Tenant id → when all of its copy was in S3 with nothing running on it.
        self.settled: dict[str, float] = {}
        #: Tenant ids whose copy was taken away, in order.
        self.discarded: list[str] = []
        self.room_bytes = 10**12
        self.boot = 1
        self._inodes = itertools.count(100)

    def create(self, database: Path, rows: list[str] | None = None, txid: int = 0) -> Database:
        """A new file."""
        made = Database(list(rows or ()), txid, next(self._inodes))
        self.databases[database] = made
        return made

    def image(self) -> bytes:
        """A copy of the databases and Litestream's metadata, for :meth:`revert`."""
        rows = {str(path): value for path, value in self.databases.items()}
        return msgspec.msgpack.encode((rows, {str(p): n for p, n in self.metadata.items()}))

    def revert(self, image: bytes) -> None:
        """The disk shows an earlier state again, as a restored virtual machine does."""
        kind = tuple[dict[str, Database], dict[str, int]]
        rows, metadata = msgspec.msgpack.decode(image, type=kind)
        self.databases = {Path(path): value for path, value in rows.items()}
        self.metadata = {Path(path): number for path, number in metadata.items()}


class FakeLock:
    """``DirectoryLock``."""

    def __init__(self, directories: FakeDirectories, tenant_id: str) -> None:
        self._directories = directories
        self._tenant_id = tenant_id

    def release(self) -> None:
        """Give it back; harmless if it was given back already."""
        if self._directories.locks.get(self._tenant_id) is self:
            del self._directories.locks[self._tenant_id]


class FakeDirectories:
    """``TenantDirectories`` on a :class:`FakeDisk`. :ivar locks: who is locked."""

    def __init__(self, disk: FakeDisk, root: Path = Path("/fake")) -> None:
        self.disk = disk
        self.root = root
        self.locks: dict[str, FakeLock] = {}

    def path(self, tenant_id: str) -> Path:
        """See ``TenantDirectories``."""
        return self.root / "tenants" / tenant_id

    def database(self, tenant_id: str) -> Path:
        """Path of the tenant's data.db."""
        return self.path(tenant_id) / "data" / "data.db"

    def lock(self, tenant_id: str) -> FakeLock:
        """See ``TenantDirectories``."""
        if tenant_id in self.locks:
            raise Unavailable(f"the directory of {tenant_id} is locked by another process")
        self.locks[tenant_id] = FakeLock(self, tenant_id)
        return self.locks[tenant_id]

    def claim_note(self, tenant_id: str) -> Owner | None:
        """See ``TenantDirectories``."""
        boot, owner = self.disk.notes.get(tenant_id, (0, None))
        return owner if boot == self.disk.boot else None

    def write_claim_note(self, tenant_id: str, owner: Owner) -> None:
        """See ``TenantDirectories``."""
        self.disk.notes[tenant_id] = (self.disk.boot, owner)

    def set_aside(self, tenant_id: str) -> Path | None:
        """See ``TenantDirectories``."""
        self.disk.notes.pop(tenant_id, None)
        self.disk.metadata.pop(self.database(tenant_id), None)
        found = self.disk.databases.pop(self.database(tenant_id), None)
        self.disk.settled.pop(tenant_id, None)
        if found is None:
            return None
        self.disk.aside.append(found)
        name = f"{tenant_id}-{next(self.disk.aside_numbers)}"
        self.disk.aside_names[name] = found
        return self.root / "aside" / name

    def settle(self, tenant_id: str) -> None:
        """See ``TenantDirectories``."""
        self.disk.settled[tenant_id] = self.disk.now()

    def unsettle(self, tenant_id: str) -> None:
        """See ``TenantDirectories``."""
        self.disk.settled.pop(tenant_id, None)

    def is_settled(self, tenant_id: str) -> bool:
        """See ``TenantDirectories``."""
        return tenant_id in self.disk.settled

    def discard(self, tenant_id: str, *, whole: bool = False) -> None:
        """See ``TenantDirectories``."""
        assert tenant_id in self.locks, "a copy is discarded under its lock only"
        for found in (self.disk.databases, self.disk.metadata):
            found.pop(self.database(tenant_id), None)
        self.disk.notes.pop(tenant_id, None)
        self.disk.settled.pop(tenant_id, None)
        self.disk.discarded.append(tenant_id)

    def discard_aside(self, aside: Path) -> None:
        """See ``TenantDirectories``."""
        tenant_id, _, _ = aside.name.rpartition("-")
        gone = self.disk.aside_names.pop(aside.name)
        self.disk.aside = [each for each in self.disk.aside if each is not gone]
        self.disk.discarded.append(tenant_id)

    def copies(self) -> tuple[LocalCopy, ...]:
        """See ``TenantDirectories``. A row is a byte, and so is an empty database."""
        return tuple(
            LocalCopy(name, 1 + self.database_bytes(name) // 100, self.disk.settled.get(name))
            for name in self.known()
        )

    def empty_trash(self) -> int:
        """See ``TenantDirectories``."""
        return 0

    def prune_aside(self, most_bytes: int | None = None) -> int:
        """See ``TenantDirectories``."""
        return 0

    def room_bytes(self) -> int:
        """See ``TenantDirectories``."""
        return self.disk.room_bytes

    def database_position(self, tenant_id: str) -> bytes | None:
        """See ``TenantDirectories``."""
        found = self.disk.databases.get(self.database(tenant_id))
        return None if found is None else b"%d" % found.txid

    def database_identity(self, tenant_id: str) -> tuple[int, int] | None:
        """See ``TenantDirectories``."""
        found = self.disk.databases.get(self.database(tenant_id))
        return (1, found.inode) if found is not None else None

    def database_bytes(self, tenant_id: str) -> int:
        """See ``TenantDirectories``; 100 bytes a row."""
        found = self.disk.databases.get(self.database(tenant_id))
        return 100 * len(found.rows) if found is not None else 0

    def has_wal(self, tenant_id: str) -> bool:
        """See ``TenantDirectories``: a fake database has none."""
        return False

    def known(self) -> tuple[str, ...]:
        """See ``TenantDirectories``."""
        found = {
            path.parent.parent.name
            for path in self.disk.databases
            if path.parent.parent.parent.name == "tenants"
        }
        return tuple(sorted(found | set(self.disk.notes)))


# -- Litestream -----------------------------------------------------------------------------------


def _replica_name(txid: int) -> str:
    return f"/0000/{1:016x}-{txid:016x}.ltx"


def _newest(s3: FakeS3, tenant_id: str, epoch: int, txid: int = 0) -> Database:
    root = replica_path(tenant_id, epoch) + "/"
    txid = txid or highest_txid(tuple(key for key in s3.objects if key.startswith(root)))
    key = replica_path(tenant_id, epoch) + _replica_name(txid)
    if key not in s3.objects:
        return Database([])
    return msgspec.msgpack.decode(s3.objects[key].body, type=Database)


class FakeWarmFiles(WarmFiles):
    """``WarmFiles`` on a :class:`FakeDisk`."""

    def __init__(self, disk: FakeDisk) -> None:
        super().__init__(Path("/fake"))
        self.disk = disk

    def size(self, tenant_id: str) -> int:
        """See ``WarmFiles``."""
        found = self.disk.databases.get(self.path(tenant_id))
        return 0 if found is None else 1 + len(found.rows)

    def move(self, tenant_id: str, target: Path) -> None:
        """See ``WarmFiles``."""
        if target in self.disk.databases:
            raise FileExistsError(f"{target} exists: never overwrite a copy")
        self.disk.databases[target] = self.disk.databases.pop(self.path(tenant_id))

    def remove(self, tenant_id: str) -> None:
        """See ``WarmFiles``."""
        self.disk.databases.pop(self.path(tenant_id), None)

    def clear(self) -> None:
        """See ``WarmFiles``."""
        for path in [each for each in self.disk.databases if "warming" in each.parts]:
            del self.disk.databases[path]


class FakeReplication:
    """``Replication``: a sync puts the whole database under its prefix.

    :ivar registered: data.db's path → (tenant id, epoch).
    :ivar sync_delay_s: a sync that finds something new takes so much longer than its PUT.
    :ivar broken_syncs: so many syncs answer with a failure.
    :ivar corrupt: restores of these (tenant id, epoch) fail their check.
    :ivar syncs: paths of all syncs asked for, in order.
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

    def lose(self, reason: str = "litestream was killed by SIGKILL") -> None:
        """The daemon dies."""
        self.running = False
        self.registered.clear()
        for callback in list(self._lost):
            callback(reason)

    async def restore(self, tenant_id: str, epoch: int, target: Path, txid: int = 0) -> None:
        """See ``Replication``."""
        await _pass(self.clock, self.restore_delay_s)
        prefix = replica_path(tenant_id, epoch) + "/"
        keys = (await self.s3.list(prefix)).keys
        if not keys:
            raise S3Unavailable(f"there is nothing to restore under {prefix}")
        if (tenant_id, epoch) in self.corrupt:
            raise StorageCorrupt(f"the restored copy of {tenant_id} fails its check")
        assert target not in self.disk.databases, f"{target} exists: never overwrite a copy"
        assert target not in self.registered, f"{target} still feeds {self.registered.get(target)}"
        found = _newest(self.s3.s3, tenant_id, epoch, txid)
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
            await _pass(self.clock, self.sync_delay_s)
            await self.s3.put(replica_path(tenant_id, epoch) + _replica_name(txid), content)
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


# -- PocketBase -----------------------------------------------------------------------------------


class FakeWorkload:
    """``RunningWorkload``. :ivar alive: whether it still runs."""

    def __init__(self, workloads: FakeWorkloads, spec: WorkloadSpec, pid: int) -> None:
        self.spec = spec
        self.alive = True
        self.stopped_by = ""
        self.replies: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._workloads = workloads
        self._pid = pid
        self._generation = 1
        self._ended: list[Callable[[str], None]] = []

    @property
    def host(self) -> str:
        """See ``RunningWorkload``."""
        return self._workloads.address[0]

    @property
    def port(self) -> int:
        """See ``RunningWorkload``."""
        return self._workloads.address[1] or 20000 + self._pid

    @property
    def pid(self) -> int:
        """See ``RunningWorkload``."""
        return self._pid

    @property
    def database(self) -> Path:
        """Path of its data.db."""
        return self.spec.directory / "data" / "data.db"

    def write(self, row: str) -> None:
        """Commit a row, as PocketBase does before it answers."""
        assert self.alive, "a dead PocketBase was asked to write"
        found = self._workloads.disk.databases[self.database]
        found.rows.append(row)
        found.txid += 1

    def rows(self) -> list[str]:
        """What a client would read."""
        assert self.alive, "a dead PocketBase was asked to read"
        return list(self._workloads.disk.databases[self.database].rows)

    def replace_database(self, rows: list[str]) -> None:
        """A backup restore of PocketBase: a new file takes data.db's place."""
        self._workloads.disk.create(self.database, rows, 1)

    async def ask(self, what: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """See ``RunningWorkload``; answered from ``replies``, else from those of all."""
        self.asked.append((what, dict(question)))
        answers = self._workloads.replies | self.replies
        if what not in answers:
            raise ProcessFailed("it does not answer")
        return answers[what]

    def generation(self) -> str:
        """See ``RunningWorkload``."""
        return f"{self._pid}/{self._generation}" if self.alive else ""

    async def answers(self) -> bool:
        """See ``RunningWorkload``."""
        return self.alive

    async def knows(self, authorization: bytes) -> bool:
        """See ``RunningWorkload``."""
        return authorization == b"superuser"

    def restore_backup(self, rows: list[str]) -> None:
        """What PocketBase does about a second after its 204: another file, executed anew."""
        self.replace_database(rows)
        self._generation += 1

    def when_ended(self, callback: Callable[[str], None]) -> None:
        """See ``RunningWorkload``."""
        if self.alive:
            self._ended.append(callback)
        else:
            callback(self.stopped_by)

    def end(self, reason: str = "exit status 2") -> None:
        """It ends by itself."""
        if self.alive:
            self.alive, self.stopped_by = False, reason
            if self._workloads.running.get(self.spec.tenant_id) is self:
                del self._workloads.running[self.spec.tenant_id]
            for callback in self._ended:
                callback(reason)

    async def stop(self) -> None:
        """See ``RunningWorkload``."""
        await _pass(self._workloads.clock, self._workloads.stop_delay_s)
        self.end("exit status 0")

    async def kill(self) -> None:
        """See ``RunningWorkload``."""
        self.end("killed by SIGKILL")


class FakeWorkloads:
    """``Workloads``.

    :ivar running: tenant id → its living workload. :ivar started: all specs ever started.
    :ivar address: host and port they say; port 0: one that nobody listens on, from their pid.
    :ivar answers: what they say to the platform, by its question.
    """

    def __init__(self, clock: Clock, disk: FakeDisk) -> None:
        self.clock = clock
        self.disk = disk
        self.start_delay_s = 0.0
        self.stop_delay_s = 0.0
        self.address = ("127.0.0.1", 0)
        self.replies: dict[str, dict[str, Any]] = {}
        self.running: dict[str, FakeWorkload] = {}
        self.started: list[WorkloadSpec] = []
        self._failures: list[str] = []
        self._pids = itertools.count(1000)

    def fail_next(self, reason: str, times: int = 1) -> None:
        """The next start(s) fail."""
        self._failures += [reason] * times

    async def start(self, spec: WorkloadSpec) -> FakeWorkload:
        """See ``Workloads``."""
        self.started.append(spec)
        assert spec.tenant_id not in self.running, "two processes on one directory"
        await _pass(self.clock, self.start_delay_s)
        if self._failures:
            raise ProcessFailed(f"PocketBase did not start: {self._failures.pop(0)}")
        workload = FakeWorkload(self, spec, next(self._pids))
        if workload.database not in self.disk.databases:
            self.disk.create(workload.database, [], 1)
        self.running[spec.tenant_id] = workload
        return workload


# -- a whole node ---------------------------------------------------------------------------------


@attrs.frozen
class FakeNode:
    """All that a node's cores need, on one disk and one way to S3."""

    s3: FakeS3Client
    disk: FakeDisk
    claims: S3ClaimStore
    replication: FakeReplication
    workloads: FakeWorkloads
    directories: FakeDirectories

    def die(self) -> None:
        """kill -9 of the node: its processes and locks are gone, its disk stays."""
        for workload in list(self.workloads.running.values()):
            workload.alive = False
        self.workloads.running.clear()
        self.directories.locks.clear()
        self.replication.running = False
        self.replication.registered.clear()

    def reboot(self) -> None:
        """As :meth:`die`, and the machine starts anew: claim notes are not trusted any more."""
        self.die()
        self.disk.boot += 1


def fake_node(clock: Clock, s3: FakeS3, name: str = "", disk: FakeDisk | None = None) -> FakeNode:
    """A node's shells. Its replication is running.

    :param disk: an earlier node's disk, for a restart; None: an empty one.
    """
    client, disk = s3.client(name), disk or FakeDisk(clock.seconds)
    replication = FakeReplication(clock, client, disk)
    replication.running = True
    return FakeNode(
        client,
        disk,
        S3ClaimStore(client),
        replication,
        FakeWorkloads(clock, disk),
        FakeDirectories(disk),
    )
