"""The disk of one node: what outlives its processes, and what a reboot makes doubtful."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec

from pbcluster.node.interfaces import Owner
from pbcluster.testing.node_fakes.database import Database


class FakeDisk:
    """Files of one node that outlive its processes.

    :ivar databases: data.db's path → its content.
    :ivar metadata: the same path → TXID in Litestream's local metadata.
    :ivar notes: tenant id → claim note. :ivar aside: what was set aside, in order.
    :ivar boot: counts starts of the machine; a note of another one is not trusted.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        """
        :param now: seconds since 1970.
        """
        self.now = now
        self.databases: dict[Path, Database] = {}
        self.metadata: dict[Path, int] = {}
        self.notes: dict[str, tuple[int, Owner]] = {}
        self.aside: list[Database] = []
        self.aside_names: dict[str, Database] = {}
        self.aside_numbers = itertools.count(1)
        #: Tenant id → when all of its copy was in S3 with nothing running on it.
        self.settled: dict[str, float] = {}
        #: Tenant ids whose copy was taken away, in order.
        self.discarded: list[str] = []
        self.room_bytes = 10**12
        self.boot = 1
        self._inodes = itertools.count(100)

    def create(self, database: Path, rows: list[str] | None = None, txid: int = 0) -> Database:
        """A new file."""
        made = Database(list(rows or ()), txid, next(self._inodes))
        self.databases[database] = made
        return made

    def image(self) -> bytes:
        """A copy of the databases and Litestream's metadata, for :meth:`revert`."""
        rows = {str(path): value for path, value in self.databases.items()}
        return msgspec.msgpack.encode((rows, {str(p): n for p, n in self.metadata.items()}))

    def revert(self, image: bytes) -> None:
        """The disk shows an earlier state again, as a restored virtual machine does."""
        kind = tuple[dict[str, Database], dict[str, int]]
        rows, metadata = msgspec.msgpack.decode(image, type=kind)
        self.databases = {Path(path): value for path, value in rows.items()}
        self.metadata = {Path(path): number for path, number in metadata.items()}
