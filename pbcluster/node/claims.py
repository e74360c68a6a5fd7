"""The objects in S3 that decide who owns a tenant: ``owner.json``, ``READY``, and what is listed.

Keys (architecture, section "Ownership")::

    tenants/<id>/owner.json
    tenants/<id>/litestream/<epoch, 20 digits>/READY
    tenants/<id>/litestream/<epoch, 20 digits>/data.db/<level>/<min TXID>-<max TXID>.ltx

The last is Litestream's (0.5): level in 4 hexadecimal digits, TXIDs in 16. Nothing here decides:
``ownership`` does. No call is retried.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Coroutine
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList

from pbcluster.errors import ConfigError, InvalidInput, S3Unavailable, StorageCorrupt
from pbcluster.node.interfaces import EpochSeen, Owner, OwnerSeen, Prefixes, Ready, Written
from pbcluster.node.s3 import ObjectStore, PreconditionFailed, S3Refused
from pbcluster.records import check_process_id, is_tenant_id

EPOCH_DIGITS = 20
#: Objects that one call removes: the most that one request to S3 can name.
REMOVED_AT_ONCE = 1000
_LTX_NAME = re.compile(r"/([0-9a-f]{4})/([0-9a-f]{16})-([0-9a-f]{16})\.ltx$")
_LOWEST_LEVEL = "0000"


def tenant_prefix(tenant_id: str) -> str:
    """``tenants/<id>/``. :raises InvalidInput: no tenant id: it must never reach a key."""
    if not is_tenant_id(tenant_id):
        raise InvalidInput(
            f"{tenant_id!r} is not a tenant id", field="tenant_id", allowed="tenant_ and letters"
        )
    return f"tenants/{tenant_id}/"


def owner_key(tenant_id: str) -> str:
    """Key of the owner object."""
    return tenant_prefix(tenant_id) + "owner.json"


def epochs_prefix(tenant_id: str) -> str:
    """What the prefixes of all epochs begin with."""
    return tenant_prefix(tenant_id) + "litestream/"


def epoch_prefix(tenant_id: str, epoch: int) -> str:
    """The prefix of one epoch, with its slash. :raises InvalidInput: an impossible epoch."""
    if not 0 < epoch < 10**EPOCH_DIGITS:
        raise InvalidInput(f"epoch {epoch} is not allowed", field="epoch", allowed="1 to 2^63")
    return f"{epochs_prefix(tenant_id)}{epoch:0{EPOCH_DIGITS}}/"


def ready_key(tenant_id: str, epoch: int) -> str:
    """Key of the epoch's READY."""
    return epoch_prefix(tenant_id, epoch) + "READY"


def replica_path(tenant_id: str, epoch: int, database: str = "data.db") -> str:
    """Where Litestream keeps a database of the epoch, without a slash at its end."""
    return epoch_prefix(tenant_id, epoch) + database


def highest_txid(keys: tuple[str, ...]) -> int:
    """The highest TXID that names of LTX files tell, 0 if there are none."""
    found = (_LTX_NAME.search(key) for key in keys)
    return max((int(name[3], 16) for name in found if name), default=0)


class S3ClaimStore:
    """``ClaimStore`` on an :class:`~pbcluster.node.s3.ObjectStore`."""

    def __init__(self, objects: ObjectStore) -> None:
        """
        :param objects: the cluster's bucket.
        """
        self._objects = objects

    async def check(self) -> None:
        """Two concurrent conditional PUTs have one winner, and a read sees the last write.

        :raises ConfigError: this S3 does not keep the promises that ownership rests on.
        :raises S3Unavailable: it does not answer.
        """
        key = f"self-test/{secrets.token_hex(8)}"
        try:
            first = await self._race(key, "creating one new object (If-None-Match)", "")
            await self._race(key, "replacing one object (If-Match)", first)
            stale = await self._try_put(key, b"stale", first)
            if stale is not None:
                raise ConfigError(_unfit("a PUT with an outdated ETag was accepted (If-Match)"))
            await self._objects.delete(key)
            if await self._objects.get(key) is not None:
                raise ConfigError(_unfit("a deleted object was still read"))
        except S3Refused as error:
            raise ConfigError(f"S3 cannot be used: {error}") from None

    async def probe(self, node_id: str) -> None:
        """See ``ClaimStore``."""
        await self._objects.put(f"self-test/{check_process_id(node_id)}", b"probe")

    async def _race(self, key: str, what: str, etag: str) -> str:
        """Two PUTs at once under one condition. :returns: the ETag that is there now."""
        bodies = (b"one " + etag.encode(), b"two " + etag.encode())
        results = await _all(*(self._try_put(key, body, etag) for body in bodies))
        winners = [place for place, tag in enumerate(results) if tag is not None]
        if len(winners) != 1:
            raise ConfigError(
                _unfit(f"of two requests {what} at once {len(winners)} were accepted, not one")
            )
        seen = await self._objects.get(key)
        if seen is None or seen.body != bodies[winners[0]] or seen.etag != results[winners[0]]:
            raise ConfigError(_unfit("a read did not see the write before it"))
        if key not in (await self._objects.list(key)).keys:
            raise ConfigError(_unfit("a listing did not show an object written before it"))
        head = await self._objects.head(key)
        if head != seen.etag:
            raise ConfigError(_unfit("HEAD and GET give different ETags"))
        return seen.etag

    async def _try_put(self, key: str, body: bytes, etag: str) -> str | None:
        try:
            return await self._objects.put(key, body, if_match=etag, if_absent=not etag)
        except PreconditionFailed:
            return None

    async def read_owner(self, tenant_id: str) -> OwnerSeen | None:
        """The owner object, or None if there is none.

        :raises S3Unavailable: no answer, or a fault of S3's.
        :raises StorageCorrupt: it is not what we write.
        """
        key = owner_key(tenant_id)
        stored = await self._objects.get(key)
        if stored is None:
            return None
        try:
            return OwnerSeen(msgspec.json.decode(stored.body, type=Owner), stored.etag)
        except msgspec.DecodeError as error:
            raise StorageCorrupt(f"{key} in S3 is no owner object: {error}") from None

    async def write_owner(self, tenant_id: str, owner: Owner, expected_etag: str) -> Written:
        """Conditional PUT: If-Match ``expected_etag``, or If-None-Match * if it is empty.

        :raises S3Refused: S3 will not take it at all (keys, permissions, bucket).
        """
        key, body = owner_key(tenant_id), msgspec.json.encode(owner)
        try:
            await self._objects.put(key, body, if_match=expected_etag, if_absent=not expected_etag)
        except PreconditionFailed:
            return Written.CONFLICT
        except S3Refused:
            raise
        except S3Unavailable:
            return Written.UNKNOWN
        return Written.WON

    async def prefixes(self, tenant_id: str) -> Prefixes:
        """Which epochs exist. :raises S3Unavailable: it cannot be known now."""
        root = epochs_prefix(tenant_id)
        groups = (await self._objects.list(root, delimiter="/")).groups
        epochs = sorted(_epoch(root, group) for group in groups)
        for epoch in reversed(epochs):
            # Almost always the highest one has it: one HEAD.
            if await self._objects.head(ready_key(tenant_id, epoch)) is not None:
                return Prefixes(highest=epochs[-1], ready=epoch)
        return Prefixes(highest=epochs[-1] if epochs else 0, ready=0)

    async def has_database(self, tenant_id: str, epoch: int, database: str) -> bool:
        """See ``ClaimStore``."""
        root = replica_path(tenant_id, epoch, database) + "/"
        found = await self._objects.list(root, delimiter="/")
        return bool(found.groups or found.keys)

    async def write_ready(self, tenant_id: str, epoch: int, ready: Ready) -> None:
        """Mark the epoch's replica as whole. Repeatable. :raises S3Unavailable: unknown if done."""
        await self._objects.put(ready_key(tenant_id, epoch), msgspec.json.encode(ready))

    async def highest_txid(self, tenant_id: str, epoch: int) -> int:
        """The highest TXID of data.db under the epoch's prefix, 0 if there is none.

        Compacted files are few; of the many small ones only those after them are listed.
        """
        root = replica_path(tenant_id, epoch) + "/"
        levels = (await self._objects.list(root, delimiter="/")).groups
        compacted = [group for group in levels if group != f"{root}{_LOWEST_LEVEL}/"]
        listings = await _all(*(self._objects.list(group) for group in compacted))
        highest = max((highest_txid(listing.keys) for listing in listings), default=0)
        after = f"{root}{_LOWEST_LEVEL}/{highest:016x}"
        newest = await self._objects.list(f"{root}{_LOWEST_LEVEL}/", start_after=after)
        return max(highest, highest_txid(newest.keys))

    async def epochs(self, tenant_id: str) -> tuple[EpochSeen, ...]:
        """All epochs that have a prefix, with their READYs, in order."""
        root = epochs_prefix(tenant_id)
        groups = (await self._objects.list(root, delimiter="/")).groups
        found = []
        for epoch in sorted(_epoch(root, group) for group in groups):
            stored = await self._objects.get(ready_key(tenant_id, epoch))
            found.append(EpochSeen(epoch, _ready(stored.body) if stored is not None else None))
        return tuple(found)

    async def remove_epoch(self, tenant_id: str, epoch: int) -> bool:
        """Remove some objects of an epoch, its READY first, so that half of it is never a source.

        :returns: whether nothing is left of it.
        """
        await self._objects.delete(ready_key(tenant_id, epoch))
        return await self._remove_some(epoch_prefix(tenant_id, epoch))

    async def remove_data(self, tenant_id: str) -> bool:
        """Remove some objects of a tenant, all but ``owner.json``.

        :returns: whether nothing is left but that.
        """
        return await self._remove_some(tenant_prefix(tenant_id), keep=owner_key(tenant_id))

    async def _remove_some(self, prefix: str, keep: str = "") -> bool:
        keys = await self._objects.first(prefix, REMOVED_AT_ONCE)
        await self._objects.delete_many(tuple(key for key in keys if key != keep))
        return not keys or keys == (keep,)


def _ready(body: bytes) -> Ready | None:
    """A READY that we cannot read is none."""
    try:
        return msgspec.json.decode(body, type=Ready)
    except msgspec.DecodeError:
        return None


def _epoch(root: str, group: str) -> int:
    word = group[len(root) :].rstrip("/")
    if len(word) != EPOCH_DIGITS or not word.isascii() or not word.isdigit():
        raise StorageCorrupt(f"{group} in S3 is no epoch's prefix")
    return int(word)


def _unfit(why: str) -> str:
    return (
        f"this S3 cannot keep tenants safe: {why}. Use one that is strongly consistent and "
        "enforces If-Match and If-None-Match (AWS S3, R2, Ceph, SeaweedFS)"
    )


async def _all(*coroutines: Coroutine[Deferred[Any], Any, Any]) -> list[Any]:
    """Run all at once, wait for all; then the first error, if any, is raised."""
    started: list[Deferred[Any]] = [Deferred.fromCoroutine(each) for each in coroutines]
    results = await DeferredList(started, consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()
    return [result for _, result in results]
