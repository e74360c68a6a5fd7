"""A file gateway on the real SeaweedFS, with tenants that run no PocketBase."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pbcluster.errors import OwnershipLost, S3Unavailable
from pbcluster.node.files.door import Files, FilesConfig
from pbcluster.node.s3 import S3Address, S3Objects
from pbcluster.records import Durability, TenantQuotas
from pbcluster.testing.seaweed import shared_seaweed
from pbcluster.wire import Assignment

A, B = "tenant_aaaaaaaa", "tenant_bbbbbbbb"
_buckets: list[str] = []
TENANT_KEY = "the cluster's secret of tests"


class Owner:
    """A tenant whose ownership and sync the test decides.

    :ivar lost: another node owns it. :ivar proves: whether a proof is held without asking.
    :ivar syncs: whether a sync succeeds. :ivar covers: syncs that succeeded.
    """

    def __init__(self, tenant_id: str = A, epoch: int = 1, max_file_bytes: int = 0) -> None:
        self.tenant_id = tenant_id
        self.epoch = epoch
        self.lost = False
        self.proves = True
        self.syncs = True
        self.covers = 0
        self.before_proof: Callable[[], None] = lambda: None
        self.assignment = Assignment(
            tenant_id=tenant_id,
            epoch=epoch,
            name="shop",
            hosts=("shop.localhost",),
            ever_ready=True,
            durability=Durability.SYNC,
            wanted=False,
            quotas=TenantQuotas(max_file_bytes=max_file_bytes),
        )

    def proven(self) -> bool:
        return self.proves and not self.lost

    async def prove(self) -> None:
        self.before_proof()
        if self.lost:
            raise OwnershipLost("another node owns it")

    async def covered(self) -> None:
        if self.lost:
            raise OwnershipLost("another node owns it")
        if not self.syncs:
            raise S3Unavailable("no sync")
        self.covers += 1


class FilesCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.seaweed = shared_seaweed()
        # One bucket for all: SeaweedFS gives each of them volumes of its own.
        if not _buckets:
            _buckets.append(self.seaweed.new_bucket())
        (self.bucket,) = _buckets
        self.real = self.seaweed.client()
        for key in self.keys():
            self.real.delete_object(Bucket=self.bucket, Key=key)
        self.ahead_s = 0.0
        self.data = Path(self.mktemp()).absolute()

    def files(
        self, *, window_s: float = 3600.0, max_bytes: int = 0, address: S3Address | None = None
    ) -> Files:
        """A gateway that listens; nothing is removed unless the test says so."""
        address = address or self.seaweed.address(self.bucket)
        objects = S3Objects(reactor, address)
        files = Files(
            reactor,
            FilesConfig(
                address=address,
                tenant_key=TENANT_KEY,
                window_s=window_s,
                default_max_bytes=max_bytes,
            ),
            objects,
            unix_ms=lambda: int((time.time() + self.ahead_s) * 1000),
            utc_now=lambda: datetime.now(UTC),
            data_of=lambda tenant_id: self.data / tenant_id,
        )
        files.collector.start = lambda: None  # type: ignore[method-assign]
        files.start()

        async def stop() -> None:
            await files.stop()
            objects.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return files

    async def client(self, files: Files, owner: Owner, **more: str) -> Any:
        """A boto3 client with the keys that the tenant's PocketBase gets."""
        access = await files.open(owner)
        given = {"accessKey": "", "secret": "", **access.settings["s3"], **more}
        return client_at(files.port, given["accessKey"], given["secret"])

    async def do(self, call: Callable[..., Any], **kwargs: Any) -> Any:
        """A blocking call, in a thread."""
        return await deferToThread(call, **kwargs)

    async def refusal(self, call: Callable[..., Any], **kwargs: Any) -> tuple[int, str]:
        """Status and code of the error that a call meets."""
        try:
            await self.do(call, **kwargs)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return int(status), str(error.response["Error"]["Code"])
        raise AssertionError("it was not refused")

    def keys(self, prefix: str = "tenants/") -> list[str]:
        """What is really there."""
        page = self.real.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [row["Key"] for row in page.get("Contents", ())]

    def collect(self, files: Files, tenant_id: str = A) -> Deferred[None]:
        found = files.gateway.find(tenant_id)
        assert found is not None
        return Deferred.fromCoroutine(files.collector.collect(found))


def client_at(port: int, access_key: str, secret: str) -> Any:
    config = Config(
        s3={"addressing_style": "path", "payload_signing_enabled": False},
        retries={"total_max_attempts": 1},
        connect_timeout=2,
        read_timeout=20,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
    )
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=config,
    )
