"""A small asynchronous client of one S3 bucket: boto3 in a bounded thread pool of its own.

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

from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar

import attrs
import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    ParamValidationError,
)
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from pbcluster.errors import Conflict, S3Unavailable, StorageCorrupt

T = TypeVar("T")

#: Threads, and connections kept open: a HEAD takes 2-3 ms, so this is some thousands a second,
#: more than Python's lock lets through.
MAX_THREADS = 16
#: Calls under way or waiting for a thread. Each loading tenant has two, each ack group one.
MAX_CALLS = 1000
CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
#: From the call to its answer, waiting for a thread included.
CALL_TIMEOUT_S = 8.0
#: Larger objects than this are not ours: owner.json and READY have some hundred bytes.
MAX_OBJECT_BYTES = 1024 * 1024
#: Pages of 1000 keys in one listing; beyond it something is wrong, and memory is not endless.
MAX_PAGES = 200


class PreconditionFailed(Conflict):
    """The object is not what the condition of a PUT says; nothing was written."""

    code = "precondition_failed"


class S3Refused(S3Unavailable):
    """S3 answered that it will not do this: credentials, permissions, bucket or request."""

    code = "s3_refused"


@attrs.frozen
class Stored:
    """An object's content and ETag."""

    body: bytes
    etag: str


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


class S3Reactor(IReactorTime, IReactorFromThreads):
    """What is needed of the reactor."""


@attrs.frozen(kw_only=True)
class S3Address:
    """Where the bucket is, and with which keys.

    :ivar endpoint: ``http(s)://HOST:PORT``, without a path.
    """

    endpoint: str
    bucket: str
    region: str = "us-east-1"
    access_key: str = attrs.field(repr=False)
    secret_key: str = attrs.field(repr=False)


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
        self._client = _client(address)
        self._pool.start()

    def __repr__(self) -> str:
        return f"<S3Objects bucket={self._bucket!r}>"

    def stop(self) -> None:
        """End the threads; waits for calls under way, each bounded by the network timeouts."""
        self._pool.stop()
        self._client.close()

    async def get(self, key: str) -> Stored | None:
        """See :class:`ObjectStore`."""

        def call() -> Stored | None:
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=key)
                with answer["Body"] as stream:
                    body = stream.read(MAX_OBJECT_BYTES + 1)
            except ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise
            return Stored(body, str(answer["ETag"]))

        found = await self._run("GET", key, call)
        if found is not None and len(found.body) > MAX_OBJECT_BYTES:
            raise StorageCorrupt(f"the object {key} in S3 has over {MAX_OBJECT_BYTES} bytes")
        return found

    async def head(self, key: str) -> str | None:
        """See :class:`ObjectStore`."""

        def call() -> str | None:
            try:
                return str(self._client.head_object(Bucket=self._bucket, Key=key)["ETag"])
            except ClientError as error:
                if _status(error) == 404:
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

    async def _run(self, method: str, key: str, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread, translate its errors, and give up at the deadline."""
        if self._calls >= MAX_CALLS:
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
        deferToThreadPool(self._reactor, self._pool, _translated, method, key, call).addBoth(over)
        return await answer


def _client(address: S3Address) -> Any:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 1},
        max_pool_connections=MAX_THREADS,
        s3={"addressing_style": "path", "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        proxies={},
        user_agent_extra="pbcluster",
    )
    session = boto3.session.Session(
        aws_access_key_id=address.access_key,
        aws_secret_access_key=address.secret_key,
        region_name=address.region,
    )
    return session.client("s3", endpoint_url=address.endpoint, config=config)


def _translated(method: str, key: str, call: Callable[[], T]) -> T:
    """Run ``call``; botocore's errors become ours. Runs in a thread."""
    try:
        return call()
    except ClientError as error:
        _refuse(method, key, error)
    except (HTTPClientError, OSError) as error:
        raise S3Unavailable(f"S3 did not answer {method} {key}: {type(error).__name__}") from None
    except ParamValidationError as error:
        raise S3Refused(f"botocore refuses {method} {key}: {type(error).__name__}") from None
    except BotoCoreError as error:
        raise S3Unavailable(f"{method} {key} failed: {type(error).__name__}") from None


def _refuse(method: str, key: str, error: ClientError) -> NoReturn:
    status, code = _status(error), _code(error)
    if status == 412 or code == "ConditionalRequestConflict":
        raise PreconditionFailed(f"{method} {key}: the object is not what was expected") from None
    told = f"S3 answered {method} {key} with {status} {code}"
    if status == 403:
        raise S3Refused(f"{told}: check the S3 keys and what they may do") from None
    if code == "NoSuchBucket":
        # Not final: whoever starts S3 makes the bucket a moment later.
        raise S3Unavailable(f"{told}: the bucket does not exist; create it") from None
    if 400 <= status < 500 and status not in (408, 409, 429):
        raise S3Refused(told) from None
    raise S3Unavailable(told) from None


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
