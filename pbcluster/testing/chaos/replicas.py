"""The rows of a tenant in S3: its database is restored, checked whole, and read."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

from pbcluster.testing.chaos.clients import COLLECTION, rows_of
from pbcluster.testing.chaos.history import Row
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.soak_litestream import restored


def replica_rows(cluster: RealCluster, name: str) -> list[Row]:
    """:raises Broken: it cannot be restored, or ``PRAGMA integrity_check`` is not content."""
    into = Path(tempfile.mkdtemp(prefix="pbcluster-chaos-"))
    try:
        with contextlib.closing(sqlite3.connect(restored(cluster, name, into))) as database:
            found = database.execute(f"SELECT key, half, value, n FROM {COLLECTION}")
            return rows_of(found.fetchall())
    finally:
        shutil.rmtree(into, ignore_errors=True)
