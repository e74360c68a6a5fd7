"""What of a member's log stands in its journal only, as it would stand in LMDB. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pbcluster.controlplane.raft_writes import Write
from pbcluster.errors import StorageCorrupt
from pbcluster.raft import Entry, HardState

#: One write of a record.
_Written = tuple[tuple[Entry, ...], HardState | None]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Written])


def written(record: bytes) -> list[_Written]:
    """Entries and hard states in a record. :raises StorageCorrupt: it is none of ours."""
    try:
        return _decoder.decode(record)
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"a record of the journal cannot be read: {error}") from None


class Unsettled:
    """See the module.

    :ivar first: the lowest index that was written: from there on LMDB is out of date; 0: nowhere.
    :ivar entries: what stands there now, in order.
    :ivar size_bytes: of all entries that were written.
    """

    def __init__(self) -> None:
        self.first = 0
        self.entries: list[Entry] = []
        self.hard_state: HardState | None = None
        self.size_bytes = 0

    def clear(self) -> None:
        """LMDB has it."""
        self.first = 0
        self.entries = []
        self.hard_state = None
        self.size_bytes = 0

    @staticmethod
    def record(writes: Iterable[Write]) -> bytes:
        """The journal's record of these writes."""
        return _encoder.encode([(write.entries, write.hard_state) for write in writes])

    def add(self, writes: Iterable[Write]) -> None:
        """These were written."""
        for write in writes:
            self._add(write.entries, write.hard_state)

    def add_record(self, record: bytes) -> None:
        """The journal has this record. :raises StorageCorrupt: it is none of ours."""
        for entries, hard_state in written(record):
            self._add(entries, hard_state)

    def _add(self, entries: tuple[Entry, ...], hard_state: HardState | None) -> None:
        if entries:
            first = entries[0].index
            self.first = min(self.first or first, first)
            while self.entries and self.entries[-1].index >= first:
                self.entries.pop()
            self.entries.extend(entries)
            self.size_bytes += sum(entry.size_bytes for entry in entries)
        self.hard_state = hard_state or self.hard_state
