"""All fakes of one node, put together: on one disk, with one way to S3."""

from __future__ import annotations

import attrs
from twisted.internet.task import Clock

from pbcluster.node.claims import S3ClaimStore
from pbcluster.testing.node_fakes.directories import FakeDirectories
from pbcluster.testing.node_fakes.disk import FakeDisk
from pbcluster.testing.node_fakes.replication import FakeReplication
from pbcluster.testing.node_fakes.s3 import FakeS3, FakeS3Client
from pbcluster.testing.node_fakes.workloads import FakeWorkloads


@attrs.frozen
class FakeNode:
    """All that a node's cores need, on one disk and one way to S3."""

    s3: FakeS3Client
    disk: FakeDisk
    claims: S3ClaimStore
    replication: FakeReplication
    workloads: FakeWorkloads
    directories: FakeDirectories

    def die(self) -> None:
        """kill -9 of the node: its processes and locks are gone, its disk stays."""
        for workload in list(self.workloads.running.values()):
            workload.alive = False
        self.workloads.running.clear()
        self.directories.locks.clear()
        self.replication.running = False
        self.replication.registered.clear()

    def reboot(self) -> None:
        """As :meth:`die`, and the machine starts anew: claim notes are not trusted any more."""
        self.die()
        self.disk.boot += 1


def fake_node(clock: Clock, s3: FakeS3, name: str = "", disk: FakeDisk | None = None) -> FakeNode:
    """A node's shells. Its replication is running.

    :param disk: an earlier node's disk, for a restart; None: an empty one.
    """
    client, disk = s3.client(name), disk or FakeDisk(clock.seconds)
    replication = FakeReplication(clock, client, disk)
    replication.running = True
    return FakeNode(
        client,
        disk,
        S3ClaimStore(client),
        replication,
        FakeWorkloads(clock, disk),
        FakeDirectories(disk),
    )
