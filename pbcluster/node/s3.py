"""A small asynchronous client of one S3 bucket: boto3 in a bounded thread pool of its own, and GETs
without threads (``s3_gets``).

What holds:

* No call is ever repeated inside: a repeated conditional PUT would meet its own first attempt and
  report a conflict. The caller reads again and decides.
* Every call ends by its deadline, whatever the threads do; the network's own timeouts are shorter,
  so a thread is not lost for long.
* "It was refused" (:class:`PreconditionFailed`, :class:`S3Refused`) is told apart from "nobody
  knows" (:class:`S3Unavailable`).
* No error, repr or log holds the credentials.

It knows nothing of tenants; ``claims`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import attrs
from botocore.exceptions import ClientError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTCP, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from pbcluster.errors import S3Unavailable
from pbcluster.node.s3_gets import S3Gets, Stored
from pbcluster.s3_client import (
    MAX_PAGES,
    PreconditionFailed,
    S3Address,
    S3Refused,
    new_client,
    status_of,
    translated,
)

__all__ = [
    "Listing",
    "ObjectStore",
    "PreconditionFailed",
    "S3Address",
    "S3Objects",
    "S3Refused",
    "Stored",
]

T = TypeVar("T")

#: Threads, and connections kept open: a HEAD takes 2-3 ms, so this is some thousands a second,
#: more than Python's lock lets through.
MAX_THREADS = 16
#: Calls under way or waiting for a thread. Each loading tenant has two, each ack group one.
MAX_CALLS = 1000
#: From the call to its answer, waiting for a thread included.
CALL_TIMEOUT_S = 8.0


@attrs.frozen
class Listing:
    """Keys under a prefix; with a delimiter also the groups below it, each with its delimiter."""

    keys: tuple[str, ...]
    groups: tuple[str, ...] = ()


class ObjectStore(Protocol):
    """One bucket. Every call raises :class:`S3Unavailable` if its outcome is unknown."""

    async def get(self, key: str) -> Stored | None:
        """The object, None if there is none. :raises StorageCorrupt: larger than we write."""

    async def head(self, key: str) -> str | None:
        """Its ETag, None if there is none."""

    async def put(
        self, key: str, body: bytes, *, if_match: str = "", if_absent: bool = False
    ) -> str:
        """Write it. :returns: its ETag. :raises PreconditionFailed: the condition does not hold.

        :param if_match: only if its ETag is this.
        :param if_absent: only if there is none.
        """

    async def list(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> Listing:
        """All keys that begin with ``prefix``, in order."""

    async def delete(self, key: str) -> None:
        """Remove it; fine if there is none."""

    async def first(self, prefix: str, limit: int) -> tuple[str, ...]:
        """The first keys that begin with ``prefix``, at most ``limit`` (up to 1000), in order."""

    async def delete_many(self, keys: tuple[str, ...]) -> None:
        """Remove up to 1000 objects; fine if some are not there."""


class S3Reactor(IReactorTime, IReactorFromThreads, IReactorTCP):
    """What is needed of the reactor."""


class S3Objects:
    """:class:`ObjectStore` on a real S3. Call :meth:`stop` at the end."""

    def __init__(
        self, reactor: Any, address: S3Address, *, call_timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        """
        :param reactor: an :class:`S3Reactor`.
        :param call_timeout_s: seconds until a call fails.
        """
        self._reactor = reactor
        self._bucket = address.bucket
        self._call_timeout_s = call_timeout_s
        self._calls = 0
        self._pool = ThreadPool(minthreads=1, maxthreads=MAX_THREADS, name="s3")
        self._client = new_client(address, MAX_THREADS)
        self._gets = S3Gets(reactor, address)
        self._pool.start()

    def __repr__(self) -> str:
        return f"<S3Objects bucket={self._bucket!r}>"

    def stop(self) -> None:
        """End the threads; waits for calls under way, each bounded by the network timeouts."""
        self._pool.stop()
        self._client.close()
        self._gets.close()

    async def get(self, key: str) -> Stored | None:
        """See :class:`ObjectStore`."""
        return await self._bounded("GET", key, self._gets.get(key))

    async def head(self, key: str) -> str | None:
        """See :class:`ObjectStore`."""

        def call() -> str | None:
            try:
                return str(self._client.head_object(Bucket=self._bucket, Key=key)["ETag"])
            except ClientError as error:
                if status_of(error) == 404:
                    return None
                raise

        return await self._run("HEAD", key, call)

    async def put(
        self, key: str, body: bytes, *, if_match: str = "", if_absent: bool = False
    ) -> str:
        """See :class:`ObjectStore`."""
        conditions = {"IfMatch": if_match} if if_match else {}
        if if_absent:
            conditions["IfNoneMatch"] = "*"

        def call() -> str:
            answer = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **conditions)
            return str(answer["ETag"])

        return await self._run("PUT", key, call)

    async def list(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> Listing:
        """See :class:`ObjectStore`."""

        def call() -> Listing:
            keys: list[str] = []
            groups: list[str] = []
            asked = {"Bucket": self._bucket, "Prefix": prefix}
            asked |= {"Delimiter": delimiter} if delimiter else {}
            asked |= {"StartAfter": start_after} if start_after else {}
            for _ in range(MAX_PAGES):
                page = self._client.list_objects_v2(**asked)
                keys += [str(row["Key"]) for row in page.get("Contents", ())]
                groups += [str(row["Prefix"]) for row in page.get("CommonPrefixes", ())]
                if not page.get("IsTruncated"):
                    return Listing(tuple(keys), tuple(groups))
                asked["ContinuationToken"] = page["NextContinuationToken"]
            raise S3Unavailable(f"there are over {MAX_PAGES * 1000} objects under {prefix}")

        return await self._run("LIST", prefix, call)

    async def delete(self, key: str) -> None:
        """See :class:`ObjectStore`."""

        def call() -> None:
            self._client.delete_object(Bucket=self._bucket, Key=key)

        await self._run("DELETE", key, call)

    async def first(self, prefix: str, limit: int) -> tuple[str, ...]:
        """See :class:`ObjectStore`."""

        def call() -> tuple[str, ...]:
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=limit)
            return tuple(str(row["Key"]) for row in page.get("Contents", ()))

        return await self._run("LIST", prefix, call)

    async def delete_many(self, keys: tuple[str, ...]) -> None:
        """See :class:`ObjectStore`."""
        named = {"Objects": [{"Key": key} for key in keys], "Quiet": True}

        def call() -> None:
            answer = self._client.delete_objects(Bucket=self._bucket, Delete=named)
            failed = answer.get("Errors", ())
            if failed:
                why = f"{failed[0].get('Key')}: {failed[0].get('Code')}"
                raise S3Unavailable(f"S3 did not delete {len(failed)} objects, first {why}")

        if keys:
            await self._run("DELETE", f"{keys[0]} and {len(keys) - 1} more", call)

    async def _run(self, method: str, key: str, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread and translate its errors."""

        async def in_thread() -> T:
            answer = deferToThreadPool(self._reactor, self._pool, translated, method, key, call)
            return await answer

        return await self._bounded(method, key, in_thread())

    async def _bounded(self, method: str, key: str, call: Coroutine[Deferred[Any], Any, T]) -> T:
        """Await ``call``, but give up at the deadline, and at once where too many wait."""
        if self._calls >= MAX_CALLS:
            call.close()
            raise S3Unavailable(f"S3 is slow: {MAX_CALLS} calls wait for it already")
        self._calls += 1
        answer: Deferred[T] = Deferred()

        def give_up() -> None:
            answer.errback(
                S3Unavailable(f"S3 did not answer {method} {key} within {self._call_timeout_s:g} s")
            )

        def over(result: Any) -> None:
            self._calls -= 1
            if timer.active():
                timer.cancel()
                answer.callback(result)  # a Failure makes it an errback

        timer = self._reactor.callLater(self._call_timeout_s, give_up)
        Deferred.fromCoroutine(call).addBoth(over)
        return await answer
