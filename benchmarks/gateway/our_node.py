"""``pbnode`` whose S3, Litestream and PocketBase are the fakes that its tests use.

Everything else is real: registration, assignments, leases, proofs, the front door, its figures.
Whoever listens at ``BENCH_UPSTREAM_PORT`` of the loopback plays the PocketBase of every tenant.
Takes the arguments of ``twistd``.
"""

from __future__ import annotations

import os
import runpy
from typing import Any

from pbcluster.node import shells
from pbcluster.node.generations import S3Generations
from pbcluster.testing.node_fakes.node import fake_node
from pbcluster.testing.node_fakes.s3 import FakeS3


def fake_shells(reactor: Any, config: Any, *_: Any) -> shells.Shells:
    fake = fake_node(reactor, FakeS3(reactor), config.id)
    fake.workloads.address = ("127.0.0.1", int(os.environ["BENCH_UPSTREAM_PORT"]))

    async def prepare() -> None:
        """There is nothing to prepare."""

    return shells.Shells(
        claims=fake.claims,
        generations=S3Generations(fake.s3),
        replication=fake.replication,
        workloads=fake.workloads,
        directories=fake.directories,
        prepare=prepare,
        close=lambda: None,
    )


if __name__ == "__main__":
    # The tap asks for it by this name when it makes its service.
    shells.real_shells = fake_shells
    runpy.run_module("pbcluster.twistd", run_name="__main__")
