"""A file that small writes are appended to, each durable after one wait for the disk.

LMDB waits for the disk twice for a transaction, and writes eight scattered pages for one entry of a
log. Here a record is one write to a place that was written before, and one ``fdatasync``. Whoever
owns the journal takes its records over to a better place from time to time and then rewinds it.

The file consists of sectors of 512 bytes. Each begins with a tag, the number of its record and the
complement of that; a record is its length, that one's complement, a checksum and its data, spread
over sectors of its own.
Numbers grow by one and never come back. The first record after a rewind stands at the beginning.

What a crash may leave is a last record of which some sectors were not written: they have the tag of
an earlier record, or none. Nobody was told that it is durable, and it is forgotten. A disk writes a
sector whole or not at all, so whatever else does not fit is damage: it is named, and not guessed.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from pbcluster.errors import StorageCorrupt

SECTOR_BYTES = 512
_TAG = struct.Struct(">QQ")
_ALL_TAGS = struct.Struct(f">QQ{SECTOR_BYTES - _TAG.size}x")
#: Length, its complement, and the checksum of number and data.
_HEAD = struct.Struct(">III")
_ROOM_BYTES = SECTOR_BYTES - _TAG.size
_COMPLEMENT, _COMPLEMENT_32 = 2**64 - 1, 2**32 - 1
_FILL_BYTES = 1024 * 1024


class Journal:
    """See the module.

    :ivar last: number of the newest record.
    """

    def __init__(self, path: Path, size_bytes: int, owner: str) -> None:
        """Open it; one that is missing is made, full of zeros, durable when this returns.

        :param size_bytes: of a new one.
        :param owner: goes into the checksums: a record of another owner is none.
        :raises OSError: it cannot be opened, or made.
        """
        self.last = 0
        self._seed = zlib.crc32(owner.encode())
        self._at = 0
        if not path.exists():
            _make(path, size_bytes)
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size // SECTOR_BYTES * SECTOR_BYTES

    def append(self, data: bytes) -> bool:
        """Write a record; durable when this returns. False: there is no room, nothing was done.

        :raises OSError: nobody knows what is on the disk.
        """
        number = self.last + 1
        framed = self._framed(number, data)
        if self._at + len(framed) > self._size:
            return False
        rest, at = memoryview(framed), self._at
        while rest:
            written = os.pwrite(self._file, rest, at)
            rest, at = rest[written:], at + written
        os.fdatasync(self._file)
        self._at, self.last = at, number
        return True

    def rewind(self) -> None:
        """All records are durable elsewhere, and so is the number of the last: begin anew."""
        self._at = 0

    def read(self, after: int) -> list[bytes]:
        """The records after number ``after``, the oldest first. They must be taken over, and
        :meth:`rewind` called, before anything is appended.

        :raises StorageCorrupt: something is damaged or missing; names the place.
        """
        content = os.pread(self._file, self._size, 0)
        tags = [self._number(n, *tag) for n, tag in enumerate(_ALL_TAGS.iter_unpack(content))]
        found: list[bytes] = []
        number, at = after + 1, 0
        while (record := self._record(content, tags, at, number)) is not None:
            found.append(record)
            at += _sectors(len(record))
            number += 1
        self.last = max([after, *tags])
        if self.last > number:
            raise StorageCorrupt(f"journal record {number} is missing: {self.last} is there")
        return found

    def close(self) -> None:
        """Close the file. May be called twice."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _framed(self, number: int, data: bytes) -> bytes:
        tag = _TAG.pack(number, number ^ _COMPLEMENT)
        head = _HEAD.pack(len(data), len(data) ^ _COMPLEMENT_32, self._sum(number, data))
        whole = head + data
        parts = [tag + whole[at : at + _ROOM_BYTES] for at in range(0, len(whole), _ROOM_BYTES)]
        return b"".join(parts).ljust(len(parts) * SECTOR_BYTES, b"\0")

    def _sum(self, number: int, data: bytes) -> int:
        return zlib.crc32(data, zlib.crc32(number.to_bytes(8, "big"), self._seed))

    @staticmethod
    def _number(sector: int, number: int, complement: int) -> int:
        """The number in a tag; 0: none was ever written there."""
        if number ^ _COMPLEMENT != complement and (number or complement):
            raise StorageCorrupt(f"the journal is damaged at byte {sector * SECTOR_BYTES}")
        return number

    def _record(self, content: bytes, tags: list[int], at: int, number: int) -> bytes | None:
        """Record ``number``, which stands at sector ``at``; None: it is not there, or not whole."""
        if at >= len(tags) or tags[at] != number:
            return None
        head = _HEAD.unpack_from(content, at * SECTOR_BYTES + _TAG.size)
        length, complement, checksum = head
        end = at + _sectors(length)
        is_sound = length ^ _COMPLEMENT_32 == complement and end <= len(tags)
        # Without a sound length nobody knows whose the other sectors are.
        if is_sound and any(tag != number for tag in tags[at:end]):
            return None
        data = data_of(content[at * SECTOR_BYTES : end * SECTOR_BYTES])
        if not is_sound or self._sum(number, data) != checksum:
            raise StorageCorrupt(f"journal record {number} fails its checksum")
        return data


def data_of(sectors: bytes) -> bytes:
    """The data of one record, out of its sectors; nothing is checked."""
    begins = range(_TAG.size, len(sectors), SECTOR_BYTES)
    whole = b"".join(sectors[begin : begin + _ROOM_BYTES] for begin in begins)
    length = _HEAD.unpack_from(whole)[0]
    return whole[_HEAD.size : _HEAD.size + length]


def _sectors(length: int) -> int:
    """How many a record with so many bytes of data takes."""
    return -(-(_HEAD.size + length) // _ROOM_BYTES)


def _make(path: Path, size_bytes: int) -> None:
    """Zeros that were really written: else each append would make the file system allocate."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        os.chmod(new, 0o600)
        for _ in range(-(-size_bytes // _FILL_BYTES)):
            file.write(bytes(min(size_bytes, _FILL_BYTES)))
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
