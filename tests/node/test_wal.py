"""Where a real SQLite database stands."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node import wal


class PositionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(self.db.close)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA wal_autocheckpoint=0")
        self.db.execute("CREATE TABLE t (n)")

    def test_each_commit_moves_it(self) -> None:
        """No two commits leave the same position, not even when the WAL is begun anew and filled
        with the same bytes; a read moves nothing."""
        seen = {wal.position(self.path)}
        for number in range(50):
            self.db.execute("UPDATE t SET n = n + 1" if number % 2 else "INSERT INTO t VALUES (1)")
            if number % 10 == 9:
                self.db.execute("PRAGMA wal_checkpoint(RESTART)")
            at = wal.position(self.path)
            self.assertIsNotNone(at)
            self.assertNotIn(at, seen)
            seen.add(at)
            self.db.execute("SELECT count(*) FROM t").fetchone()
            self.assertEqual(wal.position(self.path), at)

    def test_unknown(self) -> None:
        """Without a wal-index, or with one that is being changed, nothing is known."""
        self.assertIsNone(wal.position(self.path.with_name("none")))
        other = self.path.with_name("other")
        index = Path(f"{other}-shm")
        index.write_bytes(b"a" * 48 + b"b" * 48)
        self.assertIsNone(wal.position(other))
        index.write_bytes(b"a" * 60)
        self.assertIsNone(wal.position(other))
