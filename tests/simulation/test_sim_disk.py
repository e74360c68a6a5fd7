"""The simulated disk means by a write what the real store means."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.raft_store import (
    Compaction,
    MemberStore,
    Piece,
    RaftStore,
    Write,
)
from pbcluster.errors import PBClusterError
from pbcluster.raft import ConfState, Entry, EntryKind, HardState, SnapshotMeta, StoredState
from pbcluster.testing.raft_sim.disk import SimDisk

CONF = ConfState(("m1", "m2", "m3"))
IMAGE = b"nothing"
#: Small, so that lengths differ from those of the pieces.
PIECE = 5
#: Full after a few writes.
JOURNAL_BYTES = 2048


def data_of(index: int) -> bytes:
    return f"state at {index}".encode()


def meta_of(index: int) -> SnapshotMeta:
    data = data_of(index)
    return SnapshotMeta(index, 1, CONF, len(data), zlib.crc32(data))


METAS = [meta_of(index) for index in range(2, 9)]
metas = st.sampled_from(METAS)


keep = st.lists(metas, max_size=3).map(tuple)
hard_states = st.builds(
    HardState, st.integers(1, 3), st.sampled_from(["", "m1"]), st.integers(0, 3)
)


def pieces_of(meta: SnapshotMeta) -> tuple[Piece, ...]:
    data = data_of(meta.index)
    return tuple(
        Piece(meta, begin, data[begin : begin + PIECE]) for begin in range(0, len(data), PIECE)
    )


def entries_from(first: int, count: int, term: int) -> tuple[Entry, ...]:
    return tuple(
        Entry(n, term, EntryKind.COMMAND, b"%d/%d" % (term, n)) for n in range(first, first + count)
    )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Write, ...]]:
    """Transactions, mostly such as a member writes: the log goes on from its end, or from where it
    conflicts, and a snapshot's pieces come before what points at it."""
    last = 1
    writes = []
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(
            st.sampled_from(["entries", "entries", "pieces", "pieces", "install", "compact"])
        )
        hard = draw(st.none() | hard_states)
        if kind == "entries":
            first = draw(st.integers(2, last + 1) if draw(st.integers(0, 9)) else st.integers(1, 9))
            new = entries_from(first, draw(st.integers(1, 4)), draw(st.integers(1, 3)))
            last = new[-1].index
            writes.append(Write(entries=new, hard_state=hard))
        elif kind == "pieces":
            some = tuple(
                p for meta in draw(keep) for p in pieces_of(meta) if draw(st.integers(0, 9))
            )
            writes.append(Write(pieces=some))
        elif kind == "install":
            meta = draw(metas)
            last = meta.index
            writes.append(Write(meta, hard_state=hard, keep=draw(keep)))
        else:
            meta = draw(metas)
            upto = draw(st.integers(0, meta.index + 1))
            writes.append(Write(compaction=Compaction(meta, upto, draw(keep))))
    return [tuple(writes[:2]), *((write,) for write in writes[2:])]


def attempt(read: Callable[..., object], *args: object) -> object:
    """What it gives, or the kind of its failure."""
    try:
        return read(*args)
    except PBClusterError as error:
        return type(error)


def seen(store: MemberStore | SimDisk) -> list[object]:
    """Everything that can be read: before a start, which removes pieces, and after it."""
    first = SnapshotMeta(1, 1, CONF, len(IMAGE), zlib.crc32(IMAGE))
    pieces = [
        (meta, offset, length)
        for meta in (first, *METAS)
        for offset, length in ((0, 4), (3, 5), (5, 5), (7, 3))
    ]
    found: list[object] = []
    for _ in range(2):
        found += [attempt(store.read_piece, *piece) for piece in pieces]
        found += [attempt(store.read_snapshot, meta) for meta in (first, *METAS)]
        found.append(attempt(store.recover))
    return found


class SideBySide(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(histories())
    def test_the_same_writes_leave_the_same(self, batches: list[tuple[Write, ...]]) -> None:
        """Whatever is written, in whatever order: what is found afterwards, and what is not."""
        simulated = SimDisk()
        simulated.format(CONF, IMAGE)
        with TemporaryDirectory(dir=".") as directory:
            home = Path(directory)
            real = RaftStore(
                home / "store", "c", "m1", map_bytes=8 * 1024**2, journal_bytes=JOURNAL_BYTES
            )
            try:
                real.begin(StoredState.first(CONF, len(IMAGE), zlib.crc32(IMAGE)), IMAGE)
                self.write(real, batches)
                simulated.write(batches)
                self.assertEqual(seen(simulated), seen(real))
            finally:
                real.close()

    def write(self, store: RaftStore, batches: list[tuple[Write, ...]]) -> None:
        done = threading.Event()
        store.start()
        for batch in batches:
            store.submit(batch, self.assertIsNone)
        store.submit((), lambda error: done.set())
        self.assertTrue(done.wait(10))
