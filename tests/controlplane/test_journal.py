"""The journal: what is found again after any crash, and what is named as damage."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.journal import SECTOR_BYTES, Journal
from pbcluster.errors import StorageCorrupt

SIZE_BYTES = 32 * SECTOR_BYTES
#: Lengths around the room of one and of two sectors.
records = st.binary(max_size=20) | st.integers(450, 1000).map(lambda n: bytes([n % 251]) * n)


def opened(path: Path, owner: str = "us") -> Journal:
    return Journal(path, SIZE_BYTES, owner)


class Appending(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def open(self, owner: str = "us") -> Journal:
        journal = opened(self.path, owner)
        self.addCleanup(journal.close)
        return journal

    def test_what_was_appended_is_read(self) -> None:
        """In order, whatever its length; from any number on that was taken over."""
        wanted = [b"", b"a", b"b" * 484, b"c" * 485, b"d" * 5000]
        journal = self.open()
        for each in wanted:
            self.assertTrue(journal.append(each))
        self.assertEqual(self.open().read(0), wanted)
        self.assertEqual(self.open().last, 0)
        self.assertEqual(self.open().read(5), [])

    def test_a_rewound_one_begins_anew(self) -> None:
        """Numbers go on, and what stands behind the new records is not taken for newer ones."""
        journal = self.open()
        for each in (b"1", b"2" * 600, b"3"):
            journal.append(each)
        journal.rewind()
        journal.append(b"4")
        self.assertEqual(journal.last, 4)
        again = self.open()
        self.assertEqual(again.read(3), [b"4"])
        again.rewind()
        again.append(b"5" * 700)
        self.assertEqual(self.open().read(4), [b"5" * 700])

    def test_a_full_one_takes_nothing(self) -> None:
        """And says so; after a rewind it does."""
        journal = self.open()
        self.assertTrue(journal.append(b"x" * 30 * 496))
        self.assertFalse(journal.append(b"y" * 600))
        self.assertEqual(self.open().read(0), [b"x" * 30 * 496])
        journal.rewind()
        self.assertTrue(journal.append(b"y" * 600))
        self.assertEqual(self.open().read(1), [b"y" * 600])

    def test_a_lost_record_is_named(self) -> None:
        """One that was followed by another was durable: the disk lost it."""
        journal = self.open()
        before = self.path.read_bytes()
        for each in (b"1", b"2", b"3"):
            journal.append(each)
        content = bytearray(self.path.read_bytes())
        at = SECTOR_BYTES
        content[at : at + SECTOR_BYTES] = before[at : at + SECTOR_BYTES]
        self.path.write_bytes(content)
        with self.assertRaisesRegex(StorageCorrupt, "journal record 2 is missing: 3 is there"):
            self.open().read(0)

    def test_a_damaged_length_is_no_torn_record(self) -> None:
        """Else the last record that was acknowledged would be forgotten: found by hypothesis."""
        self.open().append(b"1" * 20)
        content = bytearray(self.path.read_bytes())
        content[16 + 2] ^= 16  # its length: 4,116 bytes, for which there are no sectors
        self.path.write_bytes(content)
        with self.assertRaisesRegex(StorageCorrupt, "journal record 1 fails its checksum"):
            self.open().read(0)

    def test_of_another_owner(self) -> None:
        """Its records do not fit."""
        self.open().append(b"1")
        with self.assertRaisesRegex(StorageCorrupt, "journal record 1 fails its checksum"):
            self.open("them").read(0)


class Crashing(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(records, max_size=5), st.lists(records, max_size=5), records, st.integers(0, 15)
    )
    def test_only_the_last_may_be_torn(
        self, old: list[bytes], new: list[bytes], last: bytes, written: int
    ) -> None:
        """Of the record under way any sectors may be on the disk. All before it are found; it is
        found if all of it is there. Then the journal goes on."""
        with TemporaryDirectory(dir=".") as home:
            path = Path(home) / "journal"
            journal = opened(path)
            for each in old:
                journal.append(each)
            taken = journal.last
            journal.rewind()
            for each in new:
                journal.append(each)
            before = path.read_bytes()
            journal.append(last)
            content = bytearray(path.read_bytes())
            changed = [
                at
                for at in range(0, SIZE_BYTES, SECTOR_BYTES)
                if content[at : at + SECTOR_BYTES] != before[at : at + SECTOR_BYTES]
            ]
            lost = [at for number, at in enumerate(changed) if not written >> number & 1]
            for at in lost:
                content[at : at + SECTOR_BYTES] = before[at : at + SECTOR_BYTES]
            path.write_bytes(content)
            journal.close()
            journal = opened(path)
            self.assertEqual(journal.read(taken), new if lost else [*new, last])
            number = journal.last
            journal.rewind()
            journal.append(b"after")
            journal.close()
            journal = opened(path)
            self.assertEqual(journal.read(number), [b"after"])
            journal.close()

    @settings(max_examples=400, deadline=None)
    @given(st.lists(records, min_size=1, max_size=4), st.integers(0, SIZE_BYTES * 8 - 1))
    def test_a_flipped_bit_changes_nothing_unnoticed(self, wanted: list[bytes], bit: int) -> None:
        """It is named, or was where nothing stands."""
        with TemporaryDirectory(dir=".") as home:
            path = Path(home) / "journal"
            journal = opened(path)
            for each in wanted:
                journal.append(each)
            used = journal._at
            journal.close()
            content = bytearray(path.read_bytes())
            bit %= max(1, used * 8) if bit % 4 else SIZE_BYTES * 8
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            journal = opened(path)
            try:
                found = journal.read(0)
            except StorageCorrupt:
                return
            finally:
                journal.close()
            self.assertEqual(found, wanted)
