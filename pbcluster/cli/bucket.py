"""The cluster's bucket for commands that read or write it: few calls, one after the other.

Every call ends within the network's timeouts (``pbcluster.s3_client``) and is never repeated. It
asks the S3 that the nodes use, with the nodes' own keys, also where ``[settings.node]`` names
another S3 than the one that ``pbcluster up`` starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

from pbcluster import config
from pbcluster.cli import process_settings
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.errors import S3Unavailable, StorageCorrupt
from pbcluster.s3_client import (
    MAX_OBJECT_BYTES,
    MAX_PAGES,
    S3Address,
    code_of,
    new_client,
    translated,
)

T = TypeVar("T")


class Bucket:
    """One bucket. Each call raises ``S3Unavailable`` if its outcome is unknown, ``S3Refused`` (a
    kind of it) if S3 will not do it."""

    def __init__(self, address: S3Address) -> None:
        self.address = address
        self._client = new_client(address)

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with ``prefix``, in order, whatever pages they come in."""

        def call() -> list[str]:
            found: list[str] = []
            asked = {"Bucket": self.address.bucket, "Prefix": prefix}
            for _ in range(MAX_PAGES):
                page = self._client.list_objects_v2(**asked)
                found += [str(row["Key"]) for row in page.get("Contents", ())]
                if not page.get("IsTruncated"):
                    return found
                asked["ContinuationToken"] = page["NextContinuationToken"]
            raise S3Unavailable(f"there are over {MAX_PAGES * 1000} objects under {prefix}")

        return self._ask("LIST", prefix, call)

    def get(self, key: str) -> bytes | None:
        """An object's content, None if there is none. :raises StorageCorrupt: larger than ours."""

        def call() -> bytes | None:
            try:
                answer = self._client.get_object(Bucket=self.address.bucket, Key=key)
            except ClientError as error:
                if code_of(error) in ("NoSuchKey", "404"):
                    return None
                raise
            with answer["Body"] as stream:
                return bytes(stream.read(MAX_OBJECT_BYTES + 1))

        found = self._ask("GET", key, call)
        if found is not None and len(found) > MAX_OBJECT_BYTES:
            raise StorageCorrupt(f"the object {key} in S3 has over {MAX_OBJECT_BYTES} bytes")
        return found

    def put_new(self, key: str, body: bytes) -> None:
        """Write an object if there is none. :raises PreconditionFailed: there is one."""

        def call() -> None:
            self._client.put_object(Bucket=self.address.bucket, Key=key, Body=body, IfNoneMatch="*")

        self._ask("PUT", key, call)

    def _ask(self, method: str, key: str, call: Callable[[], T]) -> T:
        """Run ``call``; an error also says which S3 it was."""
        try:
            return translated(method, key, call)
        except S3Unavailable as error:
            where = f"bucket {self.address.bucket} at {self.address.endpoint}"
            raise type(error)(f"{error} ({where})") from None


def bucket_of(where: ClusterDir, plan: Plan) -> Bucket:
    """The bucket of a cluster directory. Its S3 has to run.

    :raises ConfigError: the keys cannot be read.
    """
    node = plan.of("node")[0]
    settings = process_settings.of(where, plan, node)
    secrets = config.load_secrets(where.secrets(node.id))
    return Bucket(
        S3Address(
            endpoint=settings["s3_endpoint"],
            bucket=settings["s3_bucket"],
            region=settings.get("s3_region", "us-east-1"),
            access_key=secrets.s3_access_key,
            secret_key=secrets.s3_secret_key,
        )
    )
