"""The file gateway of ``benchmarks.node.files``: reads where S3 is, tells PocketBase's settings."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from twisted.internet import asyncioreactor

asyncio.set_event_loop(uvloop.new_event_loop())
asyncioreactor.install(asyncio.get_event_loop())

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402

from pbcluster.node.files.door import Files, FilesConfig  # noqa: E402
from pbcluster.node.s3 import S3Address, S3Objects  # noqa: E402
from pbcluster.records import Durability  # noqa: E402
from pbcluster.wire import Assignment  # noqa: E402

TENANT = "tenant_benchmark"


class Owner:
    """Always the owner, and always proven."""

    tenant_id, epoch = TENANT, 1
    assignment = Assignment(
        tenant_id=TENANT,
        epoch=1,
        name="bench",
        hosts=("bench.localhost",),
        ever_ready=True,
        durability=Durability.SYNC,
        wanted=False,
    )

    def proven(self) -> bool:
        return True

    async def prove(self) -> None:
        pass

    async def covered(self) -> None:
        pass


async def serve() -> None:
    address = S3Address(**json.loads(sys.stdin.readline()))
    files = Files(
        reactor,
        FilesConfig(address=address, tenant_key="bench", window_s=3600.0, default_max_bytes=0),
        S3Objects(reactor, address),
        unix_ms=lambda: time.time_ns() // 1_000_000,
        utc_now=lambda: datetime.now(UTC),
        data_of=lambda tenant_id: Path("/nonexistent"),
    )
    files.start()
    access = await files.open(Owner())
    print(json.dumps(dict(access.settings["s3"])), flush=True)


if __name__ == "__main__":
    run: Any = reactor
    run.callWhenRunning(lambda: Deferred.fromCoroutine(serve()))
    run.run()
