"""``bucket copy``: all objects of one bucket into another, while nodes write to the first.

What is copied can be started from: of each tenant as of some moment in the copy. Objects of a
replica never change, but old ones are replaced by larger ones and removed; so when one is gone by
the time it is fetched, the tenant is listed and copied again. What the target has already, by size
and ETag, is not copied twice, so that the second copy costs little more than two listings. Nothing
is ever removed from the target: what is there in addition is older, and nobody reads it.

Each object goes through this machine, the larger ones through a file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
from botocore.exceptions import ClientError

from pbcluster.errors import Conflict, DeadlineExceeded
from pbcluster.s3_client import MAX_PAGES, S3Address, code_of, new_client, translated

#: At the same time; S3 answers one after some milliseconds.
WORKERS = 8
#: Larger objects wait in a file.
MEMORY_BYTES = 8 * 1024 * 1024
#: S3 takes no larger one in one piece.
MAX_COPY_BYTES = 5 * 1024**3
#: A tenant whose objects are replaced faster than they are copied.
TRIES = 5
READ_TIMEOUT_S = 60.0
TENANTS = "tenants/"


class _Gone(Exception):
    """An object was removed since it was listed."""


@attrs.define
class Copied:
    """What was done. :ivar same: objects that the target had already."""

    objects: int = 0
    bytes: int = 0
    same: int = 0
    tenants: int = 0


@attrs.frozen
class _Object:
    key: str
    size: int
    etag: str


class Copier:
    """Copies from one bucket to another."""

    def __init__(self, source: S3Address, target: S3Address, shown: Callable[[str], None]) -> None:
        """:param shown: is told how far it is, a line each some tenants."""
        self._source, self._target = source, target
        self._from = new_client(source, WORKERS, read_timeout_s=READ_TIMEOUT_S)
        self._to = new_client(target, WORKERS, read_timeout_s=READ_TIMEOUT_S)
        self._shown = shown

    def copy(self) -> Copied:
        """Do it.

        :raises Conflict: the target's generations are not the source's: it is another cluster's, or
            was recovered since.
        :raises S3Unavailable: a bucket does not answer, or refuses. Again it goes on from there.
        :raises DeadlineExceeded: a tenant's objects change too fast.
        """
        done = Copied()
        there = {each.key: each for each in self._listed(self._to, self._target.bucket, "")}
        self._check_generations(there)
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="copy") as pool:
            self._prefix(pool, "control/", there, done)
            tenants = list(self._tenants())
            for number, prefix in enumerate(tenants, 1):
                self._prefix(pool, prefix, there, done)
                done.tenants = number
                if number % 100 == 0:
                    self._shown(f"{number} of {len(tenants)} tenants, {done.bytes} bytes")
        return done

    def _check_generations(self, there: dict[str, _Object]) -> None:
        own = {each.key for each in self._listed(self._from, self._source.bucket, "control/")}
        foreign = [key for key in there if key.startswith("control/") and key not in own]
        if foreign:
            raise Conflict(
                f"the bucket {self._target.bucket} has {foreign[0]}, which the other has not: it "
                "belongs to another cluster, or to a later generation of this one"
            )

    def _prefix(
        self, pool: ThreadPoolExecutor, prefix: str, there: dict[str, _Object], done: Copied
    ) -> None:
        for _ in range(TRIES):
            listed = list(self._listed(self._from, self._source.bucket, prefix))
            wanted = [each for each in listed if not _same(each, there.get(each.key))]
            done.same += len(listed) - len(wanted)
            results = list(pool.map(self._one, wanted))
            for each, fine in zip(wanted, results, strict=True):
                if fine:
                    there[each.key] = each
                    done.objects += 1
                    done.bytes += each.size
            if all(results):
                return
            done.same -= len(listed) - len(wanted)
        raise DeadlineExceeded(f"the objects below {prefix} change faster than they are copied")

    def _one(self, wanted: _Object) -> bool:
        """Copy an object. :returns: whether it was still there."""
        if wanted.size > MAX_COPY_BYTES:
            raise Conflict(f"{wanted.key} has {wanted.size} bytes; 5 GiB can be copied at most")
        with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as content:
            try:
                translated("GET", wanted.key, lambda: self._fetch(wanted.key, content))
            except _Gone:
                return False
            content.seek(0)
            translated(
                "PUT",
                wanted.key,
                lambda: self._to.put_object(
                    Bucket=self._target.bucket, Key=wanted.key, Body=content
                ),
            )
        return True

    def _fetch(self, key: str, content: Any) -> None:
        try:
            answer = self._from.get_object(Bucket=self._source.bucket, Key=key)
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "404"):
                raise _Gone from None
            raise
        with answer["Body"] as stream:
            shutil.copyfileobj(stream, content, 1024 * 1024)

    def _tenants(self) -> Iterator[str]:
        """The prefix of each tenant."""
        for page in self._pages(self._from, self._source.bucket, TENANTS, "/"):
            yield from (str(row["Prefix"]) for row in page.get("CommonPrefixes", ()))

    def _listed(self, client: Any, bucket: str, prefix: str) -> Iterator[_Object]:
        for page in self._pages(client, bucket, prefix):
            for row in page.get("Contents", ()):
                yield _Object(str(row["Key"]), int(row["Size"]), str(row["ETag"]))

    def _pages(self, client: Any, bucket: str, prefix: str, delimiter: str = "") -> Iterator[Any]:
        asked: dict[str, str] = {"Bucket": bucket, "Prefix": prefix}
        if delimiter:
            asked["Delimiter"] = delimiter
        for _ in range(MAX_PAGES * 100):
            page = translated("LIST", prefix, lambda: client.list_objects_v2(**asked))
            yield page
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]
        raise Conflict(f"there are too many objects below {prefix!r}")


def _same(one: _Object, other: _Object | None) -> bool:
    return other is not None and (one.size, one.etag) == (other.size, other.etag)
