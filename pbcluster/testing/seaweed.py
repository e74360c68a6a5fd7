"""A real S3 for tests: one SeaweedFS a test process, on free loopback ports, in a new directory.

It is started at the first call of :func:`shared_seaweed` (about 3 s), dies with the process
(parent-death signal) and is ended and removed at its exit. A test takes a bucket of its own.

    s3 = shared_seaweed()
    address = s3.address(s3.new_bucket())
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pbcluster.errors import ProcessFailed
from pbcluster.node.s3 import S3Address
from pbcluster.processes import launched
from pbcluster.seaweed import OTHER_PORTS, STOP_GRACE_S, SeaweedSpec, seaweed_spec
from pbcluster.testing.free_ports import free_ports

READY_WITHIN_S = 30.0
#: Tests make a bucket each.
_MANY_VOLUMES = {"-volume.max=100": "-volume.max=1000"}
_POLL_S = 0.05
_shared: list[Seaweed] = []


class Seaweed:
    """A running SeaweedFS. Its calls block; call them from one thread.

    :ivar spec: how it was started. :ivar access_key: and ``secret_key``: its S3 keys.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """
        :param directory: where it keeps its files; None: a temporary one, removed at the end.
        """
        self._own = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="pbcluster-s3-"))
        self.access_key, self.secret_key = "pbcluster-test", secrets.token_hex(16)
        s3_port, *others = free_ports(1 + len(OTHER_PORTS))
        ports = dict(zip(OTHER_PORTS, others, strict=True))
        keys = (self.access_key, self.secret_key)
        self.spec: SeaweedSpec = seaweed_spec(
            self.directory, s3_port, *keys, "bucket-0", ports=ports
        )
        self._buckets = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it stores an object. :raises ProcessFailed: it does not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for file, content in self.spec.files.items():
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "w", encoding="utf-8") as stream:
                stream.write(content)
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.directory),
            **self.spec.env,
            # By default each bucket takes seven of a hundred volumes, and the fifteenth gets none.
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
        }
        argv = [_MANY_VOLUMES.get(word, word) for word in self.spec.argv]
        with (self.directory / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                launched(argv),
                env=env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait_ready()

    def stop(self) -> None:
        """End it; its files stay unless the directory was made here."""
        if self._own and self._process is not None:
            self._process.kill()  # by itself it takes a second to end, and its files go anyway
        self.pause_end()
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)

    def pause_end(self) -> None:
        """End the process only: S3 is away until :meth:`start`."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_GRACE_S)

    def client(self) -> Any:
        """A boto3 client with its keys."""
        config = Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=5,
        )
        return boto3.client(
            "s3",
            endpoint_url=self.spec.s3_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=config,
        )

    def new_bucket(self) -> str:
        """Make a bucket. :returns: its name."""
        name = f"bucket-{next(self._buckets)}"
        self.client().create_bucket(Bucket=name)
        return name

    def address(self, bucket: str) -> S3Address:
        """What a node needs to use the bucket."""
        return S3Address(
            endpoint=self.spec.s3_url,
            bucket=bucket,
            access_key=self.access_key,
            secret_key=self.secret_key,
        )

    def _wait_ready(self) -> None:
        until, client, bucket = time.monotonic() + READY_WITHIN_S, self.client(), self.spec.bucket
        error: Exception | None = None
        while time.monotonic() < until:
            if self._process is not None and self._process.poll() is not None:
                break
            try:
                with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
                return
            except (BotoCoreError, ClientError) as failure:
                error = failure
                time.sleep(_POLL_S)
        log = (self.directory / "weed.log").read_text(errors="replace")[-2000:]
        raise ProcessFailed(f"SeaweedFS does not serve: {error}\n{log}")


def shared_seaweed() -> Seaweed:
    """The one of this test process, running."""
    if not _shared:
        made = Seaweed()
        atexit.register(made.stop)
        made.start()
        _shared.append(made)
    return _shared[0]
