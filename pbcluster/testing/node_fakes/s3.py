"""One bucket in memory, and each node's own way to it with what goes wrong on that way.

The bucket is strongly consistent, as S3 is; a conditional write that meets another object is
refused. Only the ways to it have faults.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import attrs
from twisted.internet.task import Clock

from pbcluster.errors import S3Unavailable
from pbcluster.node.s3 import Listing, PreconditionFailed, S3Refused, Stored
from pbcluster.testing.node_fakes.database import newest
from pbcluster.testing.node_fakes.delays import passing

T = TypeVar("T")


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
        return newest(self.objects, tenant_id, epoch).rows


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
        await passing(self.s3.clock, self.faults.delay_s / 2)
        if self.faults.down or self.faults.lose_requests > 0:
            self.faults.lose_requests = max(0, self.faults.lose_requests - 1)
            raise S3Unavailable(f"S3 did not answer {method} {key}")
        if self.faults.refused:
            raise S3Refused(f"S3 answered {method} {key} with 403 AccessDenied")
        self.s3.requests.append((self.name, method, key))
        result = act()
        await passing(self.s3.clock, self.faults.delay_s / 2)
        if method in ("PUT", "DELETE") and self.faults.lose_answers > 0:
            self.faults.lose_answers -= 1
            raise S3Unavailable(f"S3 did not answer {method} {key}")
        return result
