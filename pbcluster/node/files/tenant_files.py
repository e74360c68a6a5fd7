"""One tenant's files in one life of its PocketBase: what is hidden, what it uses, who may write.

What must be known of S3 (recorded deletions, bytes stored) is read at the first use, by one reader
for all that wait; so a start of PocketBase costs nothing here. Everything is read and changed under
a proof of ownership, and only after the claim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.node.files.bucket import FileBucket
from pbcluster.node.files.deletions import (
    MAX_WAITING,
    Deletion,
    Ledger,
    covered_epoch,
    covered_name,
    read_name,
)
from pbcluster.node.files.errors import S3Error, slow_down
from pbcluster.node.files.names import BUCKETS, TenantNames
from pbcluster.node.files.quota import Usage
from pbcluster.node.parts import pause, spawn
from pbcluster.node.s3 import ObjectStore
from pbcluster.wire import Assignment

T = TypeVar("T")
log = Logger()

#: Requests of one tenant at work at once: most are downloads by slow clients.
MAX_AT_WORK = 128
#: … and those that wait for a place, and for how long.
MAX_QUEUED = 256
QUEUE_S = 20.0
#: Pages of 1000 objects that are counted; a tenant with more is counted only so far.
MAX_PAGES = 500
#: A quota that refuses is counted anew at most so often.
RECOUNT_S = 30.0
COVER_RETRY_S, COVER_RETRY_MAX_S = 0.5, 15.0
#: A removal that a former life of the tenant sent is carried out by S3 within so many seconds of
#: its signing, or never (``collection``); clocks may differ by the rest of the second number.
REMOVAL_EXPIRES_S = 20
SETTLE_S = 60.0


class FilesOwner(Protocol):
    """What is needed of a tenant of this node."""

    @property
    def tenant_id(self) -> str:
        """Its id."""

    @property
    def epoch(self) -> int:
        """Of its assignment."""

    @property
    def assignment(self) -> Assignment:
        """Its assignment."""

    def proven(self) -> bool:
        """Whether a proof of ownership is held right now."""

    async def prove(self) -> None:
        """Get one. :raises OwnershipLost, NoProof: there is none."""

    async def covered(self) -> None:
        """What its PocketBase committed before this call is in S3, and it was ours after that.

        :raises PBClusterError: it cannot be said.
        """


@attrs.frozen(kw_only=True)
class FilesSetting:
    """What all tenants' files of a node share.

    :ivar unix_ms: wall clock. :ivar window_s: a deleted file stays in S3 for so long.
    :ivar default_max_bytes: for tenants whose quotas name no number; 0: no limit.
    :ivar places: of the node for requests at work.
    """

    clock: IReactorTime
    unix_ms: Callable[[], int]
    objects: ObjectStore
    bucket: FileBucket
    window_s: float
    default_max_bytes: int
    places: DeferredSemaphore


class Shared(Generic[T]):
    """A value that is made once for all who ask; after a failure the next one asks anew."""

    def __init__(self, make: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> None:
        self._make = make
        self._waiting: list[Deferred[T]] | None = None
        self.value: T | None = None

    async def get(self) -> T:
        """The value; what makes it fail is raised to all who wait."""
        if self.value is not None:
            return self.value
        mine: Deferred[T] = Deferred()
        if self._waiting is None:
            self._waiting = [mine]
            Deferred.fromCoroutine(self._make()).addBoth(self._made)
        else:
            self._waiting.append(mine)
        return await mine

    def _made(self, result: Any) -> None:
        waiting, self._waiting = self._waiting or [], None
        if not hasattr(result, "raiseException"):
            self.value = result
        for each in waiting:
            each.callback(result)


class TenantFiles:
    """See the module.

    :ivar names: its keys. :ivar owner: the tenant. :ivar writing: keys with an upload under way.
    :ivar removing: keys whose object is being removed for good. :ivar former_covers: former
        epochs that have a COVERED.
    """

    def __init__(self, owner: FilesOwner, names: TenantNames, setting: FilesSetting) -> None:
        self.owner = owner
        self.names = names
        self.writing: Counter[str] = Counter()
        self.removing: set[str] = set()
        self.former_covers: set[int] = set()
        self.closed = False
        self._setting = setting
        self._opened_at = setting.clock.seconds()
        self._ledger = Shared(self._read_ledger)
        self._usage = Shared(self._count)
        self._counted_at = 0.0
        self._places = DeferredSemaphore(MAX_AT_WORK)
        self._covering: Deferred[None] | None = None

    # -- what is known --

    async def ledger(self) -> Ledger:
        """The deletions. :raises PBClusterError: S3 or the proof is missing."""
        known = await self._ledger.get()
        if known.uncovered:
            self._cover_soon()
        return known

    @property
    def known_ledger(self) -> Ledger | None:
        """The deletions if they were read already."""
        return self._ledger.value

    @property
    def used_bytes(self) -> int | None:
        """What its files take, None: not counted yet."""
        usage = self._usage.value
        return usage.total if usage is not None else None

    @property
    def max_bytes(self) -> int:
        """What they may take, 0: no limit."""
        return self.owner.assignment.quotas.max_file_bytes or self._setting.default_max_bytes

    async def prove(self) -> None:
        """A proof of ownership is held when this returns. :raises PBClusterError: there is none."""
        if not self.owner.proven():
            await self.owner.prove()

    async def _read_ledger(self) -> Ledger:
        await self.prove()
        root = self.names.deletes
        found: list[Deletion] = []
        covers: dict[int, int] = {}
        for key in (await self._setting.objects.list(root)).keys:
            name = key[len(root) :]
            deletion, epoch = read_name(name), covered_epoch(name)
            if deletion is not None:
                found.append(deletion)
            elif epoch is not None:
                covers[epoch] = await self._through(key)
        self.former_covers = {epoch for epoch in covers if epoch < self.owner.epoch}
        return Ledger(self.owner.epoch, found, covers)

    async def _through(self, key: str) -> int:
        stored = await self._setting.objects.get(key)
        try:
            return msgspec.json.decode(stored.body, type=_Covered).through if stored else 0
        except msgspec.DecodeError:
            return 0  # nothing is covered by it: its files stay

    async def _count(self) -> Usage:
        await self.prove()
        ledger = await self.ledger()
        stored = 0
        for bucket in BUCKETS:
            prefix = self.names.prefix(bucket)
            for key, upload_id in await self._setting.bucket.uploads(prefix):
                # Of a life before this one, or its caller would know the id by now.
                if self._usage.value is None:
                    await self._setting.bucket.abort_upload(key, upload_id)
            token = ""
            for _ in range(MAX_PAGES):
                page = await self._setting.bucket.list_page(prefix, token=token)
                root = len(self.names.root)
                stored += sum(
                    each.size for each in page.entries if not ledger.hidden(each.key[root:])
                )
                token = page.token
                if not token:
                    break
        self._counted_at = self._setting.clock.seconds()
        return Usage(stored)

    # -- room --

    async def usage(self) -> Usage:
        """What is used. :raises PBClusterError: it cannot be known now."""
        return await self._usage.get()

    async def usage_for(self, size: int) -> Usage:
        """What is used, if ``size`` more bytes may come.

        :raises S3Error: 507. :raises PBClusterError: it cannot be known now.
        """
        usage = await self._usage.get()
        if self._over(usage, size) and self._setting.clock.seconds() - self._counted_at > RECOUNT_S:
            fresh = await self._count()
            usage.stored = fresh.stored
        if self._over(usage, size):
            raise S3Error(507, "QuotaExceeded", f"files may take {self.max_bytes} bytes in all")
        return usage

    def surely_over(self, size: int) -> bool:
        """Whether it is known already that ``size`` more bytes are too many."""
        usage = self._usage.value
        return usage is not None and self._over(usage, size)

    def _over(self, usage: Usage, size: int) -> bool:
        ledger = self._ledger.value
        waiting = ledger.waiting_bytes if ledger is not None else 0
        return usage.refuses(size, waiting_bytes=waiting, limit=self.max_bytes)

    async def enter(self) -> Callable[[], None]:
        """Take a place among the requests at work. :returns: gives it back.

        :raises S3Error: too many wait, or none became free in time.
        """
        if len(self._places.waiting) >= MAX_QUEUED:
            raise slow_down("too many requests of this tenant for files wait already")
        waiting = self._places.acquire()
        late = self._setting.clock.callLater(QUEUE_S, waiting.cancel)
        try:
            await waiting
            if not self._setting.places.tokens:
                self._places.release()
                raise slow_down("this node moves too many files at once")
            await self._setting.places.acquire()
        except CancelledError:
            raise slow_down("too many files of this tenant are moved at once") from None
        finally:
            if late.active():
                late.cancel()
        return self._leave

    def _leave(self) -> None:
        self._places.release()
        self._setting.places.release()

    # -- writing and deleting --

    async def begin_write(self, key: str) -> None:
        """An object will be written; :meth:`end_write` must follow.

        :raises S3Error: its old object is being removed just now.
        """
        ledger = await self.ledger()
        settled = self._setting.clock.seconds() - self._opened_at > SETTLE_S
        window_ms = int(self._setting.window_s * 1000)
        disputed = not settled and ledger.contested(key, self._setting.unix_ms(), window_ms)
        if key in self.removing or disputed:
            raise slow_down("the former object of this name is being removed")
        self.writing[key] += 1

    def end_write(self, key: str) -> None:
        """The write is over, well or badly."""
        self.writing[key] -= 1
        if self.writing[key] <= 0:
            del self.writing[key]

    async def written(self, key: str) -> None:
        """An object was written: deletions of its name are cancelled before anybody hears of it.

        :raises PBClusterError: that could not be done: the upload must fail.
        """
        ledger = await self.ledger()
        for deletion in ledger.of(key):
            await self._setting.objects.delete(self.names.deletes + deletion.name)
            ledger.gone(deletion)

    async def delete(self, key: str) -> None:
        """Record a deletion; the object is hidden from then on, if there is one.

        :raises PBClusterError: it is not recorded.
        """
        ledger = await self.ledger()
        if ledger.hidden(key):
            return
        found = await self._setting.bucket.head(self.names.root + key)
        if found is None:
            return
        if len(ledger) >= MAX_WAITING:
            raise slow_down(f"{MAX_WAITING} deleted objects wait to be removed")
        at_ms = self._setting.unix_ms()
        deletion = ledger.begin(key, identity=found.identity, size=found.size, at_ms=at_ms)
        await self._setting.objects.put(self.names.deletes + deletion.name, b"")
        ledger.recorded(deletion)
        if self._usage.value is not None:
            self._usage.value.removed(found.size)
        self._cover_soon()

    async def reinstate(self, since_ms: int) -> int:
        """The database is about to show an earlier time: what was deleted since is there again.

        :param since_ms: Unix milliseconds of that time.
        :returns: how many objects came back. :raises PBClusterError: not all of them are back.
        """
        ledger = await self.ledger()
        back = [each for each in ledger if each.at_ms >= since_ms]
        for deletion in back:
            await self.prove()
            await self._setting.objects.delete(self.names.deletes + deletion.name)
            ledger.gone(deletion)
            if self._usage.value is not None:
                self._usage.value.stored += deletion.size
        return len(back)

    # -- covering --

    def _cover_soon(self) -> None:
        if self._covering is None and not self.closed:
            covering = self._cover()
            self._covering = spawn(covering, f"covering deletions of {self.owner.tenant_id}")
            self._covering.addBoth(self._covering_over)

    def _covering_over(self, result: None) -> None:
        self._covering = None

    async def _cover(self) -> None:
        delay_s = COVER_RETRY_S
        while not self.closed and (ledger := self._ledger.value) and ledger.uncovered:
            # Also of those that are being recorded just now: their rows were gone before.
            through = ledger.number
            try:
                await self.owner.covered()
                key = self.names.deletes + covered_name(self.owner.epoch)
                await self._setting.objects.put(key, msgspec.json.encode(_Covered(through)))
                ledger.covered(through)
            except PBClusterError as error:
                log.warn(
                    "{tenant}: deletions are not covered yet: {error}",
                    tenant=self.owner.tenant_id,
                    error=error,
                )
                await pause(self._setting.clock, delay_s)
                delay_s = min(2 * delay_s, COVER_RETRY_MAX_S)

    def close(self) -> None:
        """Its PocketBase ends: nothing new is begun."""
        self.closed = True
        if self._covering is not None:
            self._covering.cancel()


class _Covered(msgspec.Struct, frozen=True):
    """Content of COVERED."""

    through: int
