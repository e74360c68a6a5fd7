"""A flipped bit in a real member's store: the member does not start, and names the place."""

from __future__ import annotations

from pathlib import Path

import lmdb
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.journal import SECTOR_BYTES
from pbcluster.errors import ProcessFailed
from pbcluster.testing.cluster import RealCluster

MEMBERS = ("member_1", "member_2", "member_3")


def stored(store: Path, database: bytes, key: bytes = b"") -> tuple[bytes, bytes]:
    """Key and value of a record; without a key of the database's last one."""
    with (
        lmdb.open(str(store), readonly=True, lock=False, max_dbs=8) as environment,
        environment.begin() as transaction,
    ):
        cursor = transaction.cursor(db=environment.open_db(database, txn=transaction, create=False))
        assert cursor.set_key(key) if key else cursor.last()
        return bytes(cursor.key()), bytes(cursor.value())


def flip(file: Path, value: bytes) -> int:
    """Flip the last bit of every copy of ``value`` in a file (LMDB leaves old pages lying about).

    :returns: how many there were.
    """
    content = file.read_bytes()
    damaged = value[:-1] + bytes([value[-1] ^ 1])
    file.write_bytes(content.replace(value, damaged))
    return content.count(value)


class FlippedBits(SynchronousTestCase):
    def test_each_place_is_named(self) -> None:
        """In a log entry, in the hard state, in a piece of the snapshot, in the record of the
        snapshot and of the incarnation: the process ends with one sentence that says where. With
        the bit flipped back it starts and catches up."""
        cluster = RealCluster(nodes=1, members=3)
        self.addCleanup(cluster.close)
        cluster.start(*MEMBERS)

        def all_there() -> bool:
            return all(member["behind"] == 0 for member in cluster.admin.all("members"))

        cluster.wait_until(all_there, "all to have the log")
        (name,) = MEMBERS[2:]
        cluster.stop(name)
        store = cluster.where.data(name) / "store"
        index = int.from_bytes(stored(store, b"log")[0], "big")
        places = [
            (b"log", b"", f"log entry {index} fails its checksum"),
            (b"meta", b"hard_state", "the record hard_state fails its checksum"),
            (b"snapshots", b"", "snapshot 1 at byte 0 fails its checksum"),
            (b"meta", b"snapshot", "the record snapshot fails its checksum"),
            (b"meta", b"incarnation", "the record incarnation fails its checksum"),
        ]
        data = store / "data.mdb"
        whole = data.read_bytes()
        for database, key, told in places:
            self.assertGreaterEqual(flip(data, stored(store, database, key)[1]), 1)
            with self.assertRaisesRegex(ProcessFailed, f"exit status 1(?s:.*){told}"):
                cluster.start(name)
            data.write_bytes(whole)
        cluster.start(name)
        cluster.wait_until(all_there, "it to catch up")

    def test_the_last_record_of_the_journal(self) -> None:
        """A killed member has its newest entries in the journal only. A bit of the last of them is
        not taken for a record that the kill cut short."""
        cluster = RealCluster(nodes=1, members=3)
        self.addCleanup(cluster.close)
        cluster.start(*MEMBERS)
        (name,) = MEMBERS[2:]
        journal = cluster.where.data(name) / "store" / "journal"

        def used() -> bool:
            return any(journal.read_bytes()[:SECTOR_BYTES])

        cluster.wait_until(used, "a record")
        cluster.kill9(name)
        whole = journal.read_bytes()
        sectors = range(0, len(whole), SECTOR_BYTES)
        newest = max(int.from_bytes(whole[at : at + 8], "big") for at in sectors)
        first = next(at for at in sectors if int.from_bytes(whole[at : at + 8], "big") == newest)
        damaged = bytearray(whole)
        damaged[first + 16 + 12] ^= 1
        journal.write_bytes(damaged)
        told = f"journal record {newest} fails its checksum"
        with self.assertRaisesRegex(ProcessFailed, f"exit status 1(?s:.*){told}"):
            cluster.start(name)
        journal.write_bytes(whole)
        cluster.start(name)
        cluster.wait_until(
            lambda: all(member["behind"] == 0 for member in cluster.admin.all("members")),
            "it to catch up",
        )
