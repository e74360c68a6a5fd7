"""The cluster's bucket as the file gateway uses it: short calls by boto3 in threads of their own.

File content never goes through here, but for :meth:`FileBucket.upload`; it is streamed
(``gateway``). Separate from ``node.s3``: a copy or the end of a large upload takes seconds, and a
claim must not wait behind it. No call is repeated inside; each ends by its deadline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, TypeVar

import attrs
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from pbcluster.errors import S3Unavailable
from pbcluster.node.files.documents import Entry
from pbcluster.s3_client import (
    CONNECT_TIMEOUT_S,
    S3Address,
    new_client,
    status_of,
    translated,
)

T = TypeVar("T")

#: Calls at once; a HEAD takes 3 ms.
MAX_THREADS = 8
#: Calls under way or waiting for a thread.
MAX_CALLS = 400
#: S3 may take long to put a large copy or upload together, but says something meanwhile.
READ_TIMEOUT_S = 60.0
LONG_CALL_S = 300.0
CALL_S = 8.0
#: Objects of a disk that are taken over are sent in parts above this size.
PART_BYTES = 16 * 1024 * 1024


@attrs.frozen
class Found:
    """An object's head. :ivar identity: 16 hex digits that tell it from a later one of its key."""

    size: int
    etag: str
    modified: datetime

    @property
    def identity(self) -> str:
        """See the class."""
        text = f"{self.etag} {self.modified.isoformat()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@attrs.frozen
class RawPage:
    """A page of a listing in the cluster's own keys."""

    entries: tuple[Entry, ...]
    groups: tuple[str, ...]
    token: str


def stamp(moment: datetime) -> str:
    """A time as S3 writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


class FileBucket:
    """See the module. Call :meth:`stop` at the end.

    Each call raises ``S3Refused`` if S3 said no, ``S3Unavailable`` if nobody knows.
    """

    def __init__(self, reactor: Any, address: S3Address) -> None:
        """
        :param reactor: time and threads.
        """
        self._reactor = reactor
        self._bucket = address.bucket
        self._pool = ThreadPool(minthreads=0, maxthreads=MAX_THREADS, name="files")
        self._client = new_client(address, MAX_THREADS, read_timeout_s=READ_TIMEOUT_S)
        self._session = URLLib3Session(timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), proxies={})
        self._calls = 0
        self._pool.start()

    def stop(self) -> None:
        """End the threads; waits for calls under way, each bounded by the network timeouts."""
        self._pool.stop()
        self._client.close()
        self._session.close()

    async def head(self, key: str) -> Found | None:
        """An object's head, None if there is none."""

        def call() -> Found | None:
            try:
                answer = self._client.head_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if status_of(error) == 404:
                    return None
                raise
            return Found(int(answer["ContentLength"]), str(answer["ETag"]), answer["LastModified"])

        return await self._run("HEAD", key, call)

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        limit: int = 1000,
        token: str = "",
        start_after: str = "",
    ) -> RawPage:
        """One page of the keys that begin with ``prefix``."""
        asked: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, "MaxKeys": limit}
        asked |= {"Delimiter": delimiter} if delimiter else {}
        asked |= {"ContinuationToken": token} if token else {}
        asked |= {"StartAfter": start_after} if start_after and not token else {}

        def call() -> RawPage:
            page = self._client.list_objects_v2(**asked)
            entries = tuple(
                Entry(
                    str(row["Key"]),
                    int(row["Size"]),
                    str(row.get("ETag", "")),
                    stamp(row["LastModified"]),
                )
                for row in page.get("Contents", ())
            )
            groups = tuple(str(row["Prefix"]) for row in page.get("CommonPrefixes", ()))
            more = str(page["NextContinuationToken"]) if page.get("IsTruncated") else ""
            return RawPage(entries, groups, more)

        return await self._run("LIST", prefix, call)

    async def copy(self, source: str, target: str) -> Entry:
        """Copy an object inside the bucket."""

        def call() -> Entry:
            where = {"Bucket": self._bucket, "Key": source}
            answer = self._client.copy_object(Bucket=self._bucket, Key=target, CopySource=where)
            result = answer["CopyObjectResult"]
            return Entry(target, 0, str(result["ETag"]), stamp(result["LastModified"]))

        return await self._run("COPY", target, call, LONG_CALL_S)

    async def create_upload(self, key: str, content_type: str, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload. :returns: its id."""
        more = {"ContentType": content_type} if content_type else {}

        def call() -> str:
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, Metadata=dict(metadata), **more
            )
            return str(answer["UploadId"])

        return await self._run("CREATE", key, call)

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]
    ) -> str:
        """Put an upload together. :returns: its ETag."""
        listed = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}

        def call() -> str:
            answer = self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload=listed
            )
            return str(answer["ETag"])

        return await self._run("COMPLETE", key, call, LONG_CALL_S)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Give an upload up; fine if there is none."""

        def call() -> None:
            try:
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id
                )
            except ClientError as error:
                if status_of(error) != 404:
                    raise

        await self._run("ABORT", key, call)

    async def list_parts(self, key: str, upload_id: str) -> list[Entry]:
        """The first 1000 parts of an upload, their numbers as keys."""

        def call() -> list[Entry]:
            answer = self._client.list_parts(Bucket=self._bucket, Key=key, UploadId=upload_id)
            return [
                Entry(
                    str(row["PartNumber"]),
                    int(row["Size"]),
                    str(row["ETag"]),
                    stamp(row["LastModified"]),
                )
                for row in answer.get("Parts", ())
            ]

        return await self._run("PARTS", key, call)

    def sign_delete(self, key: str, within_s: int) -> str:
        """A request to remove an object that S3 carries out within so many seconds from now, and
        not one later, whenever it is sent."""
        return str(
            self._client.generate_presigned_url(
                "delete_object",
                Params={"Bucket": self._bucket, "Key": key},
                ExpiresIn=within_s,
            )
        )

    async def send_delete(self, signed: str) -> None:
        """Send what :meth:`sign_delete` made; fine if the object is gone already.

        :raises S3Unavailable: S3 refused it (it came too late), or nobody knows.
        """

        def call() -> None:
            answer = self._session.send(AWSRequest(method="DELETE", url=signed).prepare())
            if answer.status_code not in (200, 204, 404):
                raise S3Unavailable(f"S3 answered a delete with {answer.status_code}")

        await self._run("DELETE", "", call)

    async def uploads(self, prefix: str) -> list[tuple[str, str]]:
        """The first 1000 multipart uploads under way: (key, id)."""

        def call() -> list[tuple[str, str]]:
            answer = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix)
            return [
                (str(row["Key"]), str(row["UploadId"]))
                for row in answer.get("Uploads", ())
                if str(row["Key"]).startswith(prefix)
            ]

        return await self._run("UPLOADS", prefix, call)

    async def upload(
        self, key: str, stream: BinaryIO, content_type: str, metadata: Mapping[str, str]
    ) -> None:
        """Send a file of the disk, in parts if it is large."""
        from boto3.s3.transfer import TransferConfig  # late, as boto3 itself

        config = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, use_threads=False
        )
        extra = {"Metadata": dict(metadata)}
        more = {"ContentType": content_type} if content_type else {}

        def call() -> None:
            self._client.upload_fileobj(
                stream, self._bucket, key, ExtraArgs=extra | more, Config=config
            )

        await self._run("UPLOAD", key, call, LONG_CALL_S)

    async def _run(
        self, method: str, key: str, call: Callable[[], T], timeout_s: float = CALL_S
    ) -> T:
        """Run a blocking call in a thread, translate its errors, and give up at the deadline."""
        if self._calls >= MAX_CALLS:
            raise S3Unavailable(f"S3 is slow: {MAX_CALLS} calls wait for it already")
        self._calls += 1
        answer: Deferred[T] = Deferred()

        def give_up() -> None:
            answer.errback(S3Unavailable(f"S3 did not answer {method} within {timeout_s:g} s"))

        def over(result: Any) -> None:
            self._calls -= 1
            if timer.active():
                timer.cancel()
                answer.callback(result)  # a Failure makes it an errback

        timer = self._reactor.callLater(timeout_s, give_up)
        deferToThreadPool(self._reactor, self._pool, translated, method, key, call).addBoth(over)
        return await answer


__all__ = ["FileBucket", "Found", "RawPage", "stamp"]
