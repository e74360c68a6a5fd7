"""The store of a Raft member: what is written whole, what is found again, what is refused."""

import os
import shutil
import threading
import zlib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import lmdb
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.config import FIRST_START
from pbcluster.controlplane import beginning, lmdb_store, raft_store
from pbcluster.controlplane.raft_store import (
    Compaction,
    Piece,
    RaftStore,
    Write,
    pieces_of,
)
from pbcluster.errors import ConfigError, NotFound, StorageCorrupt
from pbcluster.raft import ConfState, Entry, EntryKind, HardState, SnapshotMeta, StoredState

CONF = ConfState(("m1", "m2", "m3"))
#: Small, so that it is full after some writes.
JOURNAL_BYTES = 64 * 1024


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(
        Entry(n, term, EntryKind.COMMAND, f"{term}/{n}".encode()) for n in range(first, last + 1)
    )


def snapshot(index: int, data: bytes, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, CONF, len(data), zlib.crc32(data))


class StoreCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.home.mkdir()
        (self.home / FIRST_START).touch()

    def open(
        self, cluster: str = "c", member: str = "m1", map_bytes: int = 64 * 1024**2
    ) -> RaftStore:
        store = RaftStore(
            self.home / "store", cluster, member, map_bytes=map_bytes, journal_bytes=JOURNAL_BYTES
        )
        self.addCleanup(store.close)
        return store

    def fresh(self) -> RaftStore:
        store = self.open()
        beginning.prepare(store, self.home, "c", CONF.voters, "localhost")
        return store

    def write(self, store: RaftStore, *writes: Write) -> None:
        if store._thread is None:
            store.start()
        done, found = threading.Event(), []

        def told(error: BaseException | None) -> None:
            found.append(error)
            done.set()

        store.submit(writes, told)
        self.assertTrue(done.wait(5))
        self.assertEqual(found, [None])

    def again(self, store: RaftStore) -> RaftStore:
        store.close()
        return self.open()


class Writing(StoreCase):
    def test_a_new_group(self) -> None:
        """The first start makes a snapshot of nothing with the membership; the marker is gone."""
        store = self.fresh()
        found = self.again(store).recover()
        self.assertEqual((found.snapshot.index, found.conf, found.applied), (1, CONF, 1))
        self.assertEqual(found.hard, HardState(1, "", 1))
        self.assertFalse((self.home / FIRST_START).exists())

    def test_entries_and_hard_state(self) -> None:
        """What was written is found, in order; what conflicts went with all after it."""
        store = self.fresh()
        self.write(store, Write(None, entries(2, 9), HardState(1, "m1", 4)))
        self.write(store, Write(None, entries(6, 7, term=2), HardState(2, "m2", 5)))
        found = self.again(store).recover()
        self.assertEqual(found.entries, entries(2, 5) + entries(6, 7, term=2))
        self.assertEqual(found.hard, HardState(2, "m2", 5))

    def test_many_writes_at_once_are_one_transaction(self) -> None:
        """What waits for the writer shares its fsync, and its order is kept."""
        store = self.fresh()
        before = store._journal.last
        done = threading.Event()
        for n in range(2, 102):
            last = n == 101
            store.submit((Write(None, entries(n, n)),), lambda e, last=last: last and done.set())
        store.start()
        self.assertTrue(done.wait(5))
        self.assertEqual(store._journal.last, before + 1)
        self.assertEqual(len(self.again(store).recover().entries), 100)

    def test_a_store_with_a_smaller_journal(self) -> None:
        """One that an older version made keeps its size and what is in it, and is written on."""
        store = self.fresh()
        self.write(store, Write(None, entries(2, 9), HardState(1, "m1", 4)))
        store.close()
        newer = RaftStore(self.home / "store", "c", "m1", map_bytes=64 * 1024**2)
        self.addCleanup(newer.close)
        self.assertEqual(newer.recover().entries, entries(2, 9))
        for n in range(10, 400):
            self.write(newer, Write(None, entries(n, n)))
        self.assertEqual(self.again(newer).recover().entries, entries(2, 399))
        self.assertEqual((self.home / "store" / "journal").stat().st_size, JOURNAL_BYTES)

    def test_incarnations_grow(self) -> None:
        """Each start has a higher number than all before."""
        store = self.fresh()
        self.assertEqual(store.begin_life(), 1)
        self.assertEqual(self.again(store).begin_life(), 2)

    def test_install_keeps_what_comes_in(self) -> None:
        """A newer snapshot, whose pieces were durable first, is still there after the older one was
        installed, and can be installed itself."""
        store = self.fresh()
        old, new = snapshot(9, b"old"), snapshot(17, b"new")
        self.write(store, Write(pieces=(*pieces_of(old, b"old"), *pieces_of(new, b"new"))))
        self.write(store, Write(old, hard_state=HardState(1, "", 9), keep=(new,)))
        self.assertEqual(store.read_snapshot(new), b"new")
        self.write(store, Write(new, hard_state=HardState(1, "", 17)))
        found = self.again(store)
        self.assertEqual(found.read_snapshot(found.recover().snapshot), b"new")

    def test_install(self) -> None:
        """An installed snapshot replaces the log; the old one's pieces are gone."""
        store = self.fresh()
        old = store.recover().snapshot
        self.write(store, Write(None, entries(2, 9), HardState(1, "", 4)))
        data = bytes(range(256)) * 4000
        meta = snapshot(20, data, 3)
        self.write(store, Write(pieces=tuple(pieces_of(meta, data))))
        self.write(store, Write(meta, entries(21, 22, 3), HardState(3, "", 20)))
        with self.assertRaises(NotFound):
            store.read_piece(old, 0, 3)
        store = self.again(store)
        found = store.recover()
        self.assertEqual((found.snapshot, found.applied), (meta, 20))
        self.assertEqual(found.entries, entries(21, 22, 3))
        self.assertEqual(store.read_snapshot(meta), data)

    def test_pieces_nobody_points_at_go_at_the_start(self) -> None:
        """A snapshot that was being received when the member died leaves nothing behind."""
        store = self.fresh()
        meta = snapshot(20, b"x" * 100)
        self.write(store, Write(pieces=(Piece(meta, 0, b"x" * 50),)))
        store = self.again(store)
        store.recover()
        with self.assertRaises(NotFound):
            store.read_piece(meta, 0, 50)

    def test_compaction(self) -> None:
        """The log goes up to the given index; snapshots that are still being sent stay."""
        store = self.fresh()
        first = store.recover().snapshot
        self.write(store, Write(None, entries(2, 30), HardState(1, "", 30)))
        new = snapshot(25, b"state at 25")
        self.write(store, Write(pieces=tuple(pieces_of(new, b"state at 25"))))
        self.write(store, Write(compaction=Compaction(new, 20, (first,))))
        self.assertEqual(store.read_snapshot(first), beginning.genesis("localhost"))
        found = self.again(store).recover()
        self.assertEqual((found.snapshot, found.entries[0].index), (new, 21))

    def test_pieces_of_other_sizes(self) -> None:
        """Any range of a snapshot can be read, whoever cut it."""
        store = self.fresh()
        data = bytes(range(100))
        meta = snapshot(9, data)
        cuts = [0, 7, 40, 41, 100]
        parts = [Piece(meta, a, data[a:b]) for a, b in pairwise(cuts)]
        self.write(store, Write(pieces=tuple(parts)))
        for begin in range(0, 100, 3):
            for length in (1, 10, 100 - begin):
                if begin + length <= 100:
                    found = store.read_piece(meta, begin, length)
                    self.assertEqual(found, data[begin : begin + length])
        with self.assertRaises(NotFound):
            store.read_piece(meta, 90, 11)


class Crashes(StoreCase):
    """Without a word to the store: what a copy of its files, made at this moment, holds."""

    def crashed(self, store: RaftStore) -> RaftStore:
        home = Path(self.mktemp())
        shutil.copytree(store.directory, home / "store")
        self.home = home
        return self.open()

    def test_what_was_told_to_be_durable_is_there(self) -> None:
        """Entries, votes and what replaced them, however often the journal was full meanwhile; and
        again after a second crash, right after the start."""
        store = self.fresh()
        last = 1
        for round_ in range(60):
            first = max(2, last - round_ % 3)
            new = tuple(
                Entry(n, round_ + 1, EntryKind.COMMAND, b"x" * 700) for n in range(first, first + 5)
            )
            last = new[-1].index
            self.write(store, Write(None, new, HardState(round_ + 1, "m2", 1)))
        found = self.crashed(store).recover()
        self.assertEqual([e.index for e in found.entries], list(range(2, last + 1)))
        self.assertEqual(found.entries[-5:], new)
        self.assertEqual(found.hard, HardState(60, "m2", 1))
        again = self.open_again_after_a_crash_at_the_start()
        self.assertEqual(again, found)

    def open_again_after_a_crash_at_the_start(self) -> StoredState:
        home, self.home = self.home, Path(self.mktemp())
        shutil.copytree(home / "store", self.home / "store")
        return self.open().recover()

    def test_a_compaction_after_entries_of_the_journal(self) -> None:
        """What was compacted is not there, what follows is, from the journal and from LMDB."""
        store = self.fresh()
        self.write(store, Write(None, entries(2, 30), HardState(1, "", 30)))
        new = snapshot(25, b"state at 25")
        self.write(store, Write(pieces=tuple(pieces_of(new, b"state at 25"))))
        self.write(store, Write(compaction=Compaction(new, 20, ())))
        self.write(store, Write(None, entries(31, 33), HardState(1, "", 31)))
        self.write(store, Write(None, entries(32, 32, term=2), HardState(2, "", 31)))
        found = self.crashed(store).recover()
        self.assertEqual(found.snapshot, new)
        self.assertEqual(found.entries, entries(21, 31) + entries(32, 32, term=2))
        self.assertEqual(found.hard, HardState(2, "", 31))

    def test_damage_in_the_journal_is_named(self) -> None:
        """A flipped bit in the last record that was acknowledged is no reason to forget it."""
        store = self.fresh()
        self.write(store, Write(None, entries(2, 4), HardState(1, "m1", 4)))
        store = self.crashed(store)
        file = store.directory / "journal"
        content = bytearray(file.read_bytes())
        content[30] ^= 1
        file.write_bytes(content)
        with self.assertRaisesRegex(StorageCorrupt, "journal record 1 fails its checksum"):
            store.recover()

    def test_a_missing_journal_is_refused(self) -> None:
        """Votes and entries went with it."""
        store = self.fresh()
        store.close()
        (store.directory / "journal").unlink()
        with self.assertRaisesRegex(ConfigError, "journal is missing.*under its old id"):
            self.open()

    def test_a_store_without_a_journal_gets_one(self) -> None:
        """As versions before wrote it: it is taken over, and those refuse it afterwards."""
        store = self.fresh()
        self.write(store, Write(None, entries(2, 4), HardState(1, "m1", 4)))
        store = self.again(store)
        with store._env.begin(write=True, db=store._meta) as transaction:
            transaction.put(b"format", b"raft-1")
            transaction.delete(b"journaled")
        store.close()
        (store.directory / "journal").unlink()
        store = self.open()
        self.assertEqual(store.recover().entries, entries(2, 4))
        with store._env.begin(db=store._meta) as transaction:
            self.assertEqual(transaction.get(b"format"), b"raft-2")


class Refusals(StoreCase):
    def test_whose_store(self) -> None:
        """Another cluster, member or format is refused by name."""
        self.fresh().close()
        with self.assertRaisesRegex(ConfigError, "has cluster_id 'c', this member has 'd'"):
            self.open(cluster="d")
        with self.assertRaisesRegex(ConfigError, "has member 'm1', this member has 'm2'"):
            self.open(member="m2")
        with self.assertRaisesRegex(ConfigError, "has format 'raft-2', this member has 'raft-3'"):
            self.patch(raft_store, "FORMAT", "raft-3")
            self.open()

    def test_an_empty_store_needs_the_marker(self) -> None:
        """A member that ran before does not begin from nothing."""
        (self.home / FIRST_START).unlink()
        with self.assertRaisesRegex(ConfigError, "under its old id"):
            self.fresh()

    def test_every_flipped_bit_is_named(self) -> None:
        """Log, hard state, snapshot record, its bytes, incarnation: found, and named."""
        cases: list[tuple[str, bytes, str]] = [
            ("_log", b"", "log entry 3 fails its checksum"),
            ("_meta", b"hard_state", "the record hard_state fails its checksum"),
            ("_meta", b"snapshot", "the record snapshot fails its checksum"),
            ("_snapshots", b"", "snapshot 1 at byte 0 fails its checksum"),
        ]
        for database, record, told in cases:
            with self.subTest(told):
                self.setUp()
                store = self.fresh()
                self.write(store, Write(None, entries(2, 4), HardState(1, "m1", 4)))
                store = self.again(store)
                handle = getattr(store, database)
                with store._env.begin(write=True, db=handle) as transaction:
                    key = record
                    if not key:
                        cursor = transaction.cursor()
                        cursor.first()
                        if database == "_log":
                            cursor.next()
                        key = cursor.key()
                    value = bytearray(transaction.get(key))
                    value[-1] ^= 1
                    transaction.put(key, bytes(value))
                store = self.again(store)
                with self.assertRaisesRegex(StorageCorrupt, told):
                    store.read_snapshot(store.recover().snapshot)

    def test_a_gap_is_named(self) -> None:
        """A missing entry is an error, and so is a log that ends before what was committed."""
        store = self.fresh()
        self.write(store, Write(None, entries(2, 6), HardState(1, "", 6)))
        store = self.again(store)
        with store._env.begin(write=True, db=store._log) as transaction:
            transaction.delete((6).to_bytes(8))
        with self.assertRaisesRegex(StorageCorrupt, "log entry 6 is missing: it is committed"):
            store.recover()
        with store._env.begin(write=True, db=store._log) as transaction:
            transaction.delete((4).to_bytes(8))
        with self.assertRaisesRegex(StorageCorrupt, "log entry 4 is missing: 5 comes next"):
            store.recover()
        with store._env.begin(write=True, db=store._log) as transaction:
            transaction.delete((2).to_bytes(8))
            transaction.delete((5).to_bytes(8))
        with self.assertRaisesRegex(StorageCorrupt, "log entry 2 is missing: 3 comes next"):
            store.recover()


class Limits(StoreCase):
    def test_a_second_process_is_refused(self) -> None:
        """Two writers of one log would undo each other."""
        store = self.open()
        with self.assertRaisesRegex(ConfigError, "in use by another process"):
            self.open()
        store.close()
        self.open()

    def test_after_a_failed_write_nothing_is_written(self) -> None:
        """What was queued behind it fails too: else the log would get a hole."""
        store = self.open(map_bytes=256 * 1024)
        store.start()
        found: list[BaseException | None] = []
        done = threading.Event()

        def told(error: BaseException | None) -> None:
            found.append(error)
            if len(found) == 2:
                done.set()

        large = Entry(1, 1, EntryKind.COMMAND, b"x" * 2**20)
        store.submit((Write(None, (large,)),), told)
        store.submit((Write(None, entries(2, 2)),), told)
        self.assertTrue(done.wait(5))
        self.assertTrue(all(isinstance(error, lmdb.Error) for error in found), found)
        self.assertEqual(store.recover().entries, ())

    def test_a_full_map_is_seen_before_it_fails(self) -> None:
        """At 80 % of the map it says so, while writes still work."""
        store = self.open(map_bytes=1024 * 1024)
        index = 1
        while not store.nearly_full():
            index += 1
            self.write(store, Write(None, (Entry(index, 1, EntryKind.COMMAND, b"x" * 20000),)))
        self.assertLess(index, 60)

    def test_a_full_disk_is_seen_though_others_fill_it(self) -> None:
        """It says so as long as less than its reserve is free, and no look is believed for long."""
        store = self.open(map_bytes=1024**3)
        free = [10**12]
        real = os.statvfs(self.home)

        def statvfs(path: object) -> object:
            fields = {name: getattr(real, name) for name in ("f_frsize",)}
            return SimpleNamespace(**fields, f_bavail=free[0] // real.f_frsize)

        now = [0.0]
        self.patch(lmdb_store.os, "statvfs", statvfs)
        self.patch(lmdb_store.time, "monotonic", lambda: now[0])
        self.assertFalse(store.nearly_full())
        free[0] = lmdb_store.MIN_FREE_DISK_BYTES - 1
        now[0] += lmdb_store.LOOK_LASTS_S
        self.assertTrue(store.nearly_full())
        self.assertTrue(store.nearly_full())
        free[0] = 10**12
        self.assertFalse(store.nearly_full())
        # Within one look's time no more proposals than it had room for are let in.
        free[0] = 0
        allowed = next(n for n in range(1000) if store.nearly_full())
        self.assertEqual(allowed, lmdb_store.LOOK_EVERY - 1)
