"""The simulated disk means by a write what the real store means."""

from __future__ import annotations

import threading
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.raft_store import (
    FIRST_START,
    Compaction,
    MemberStore,
    Piece,
    RaftStore,
    Write,
)
from pbcluster.errors import PBClusterError
from pbcluster.raft import ConfState, Entry, EntryKind, HardState, SnapshotMeta
from pbcluster.testing.raft_sim.disk import SimDisk

CONF = ConfState(("m1", "m2", "m3"))
IMAGE = b"nothing"
#: Small, so that lengths differ from those of the pieces.
PIECE = 5


def data_of(index: int) -> bytes:
    return f"state at {index}".encode()


def meta_of(index: int) -> SnapshotMeta:
    data = data_of(index)
    return SnapshotMeta(index, 1, CONF, len(data), zlib.crc32(data))


METAS = [meta_of(index) for index in range(2, 9)]
metas = st.sampled_from(METAS)


@st.composite
def pieces(draw: st.DrawFn) -> tuple[Piece, ...]:
    """Some pieces of one snapshot, mostly all."""
    meta = draw(metas)
    data = data_of(meta.index)
    all_of = [
        Piece(meta, begin, data[begin : begin + PIECE]) for begin in range(0, len(data), PIECE)
    ]
    return tuple(piece for piece in all_of if draw(st.integers(0, 9)) > 0)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, ...]:
    first, count, term = (draw(st.integers(*bounds)) for bounds in ((1, 9), (1, 4), (1, 3)))
    return tuple(
        Entry(n, term, EntryKind.COMMAND, b"%d/%d" % (term, n)) for n in range(first, first + count)
    )


keep = st.lists(metas, max_size=2).map(tuple)
writes = st.builds(
    Write,
    install=st.none() | metas,
    entries=st.just(()) | entries(),
    hard_state=st.none()
    | st.builds(HardState, st.integers(1, 3), st.sampled_from(["", "m1"]), st.integers(0, 9)),
    pieces=st.just(()) | pieces(),
    compaction=st.none() | st.builds(Compaction, metas, st.integers(0, 9), keep),
    keep=keep,
)


def seen(store: MemberStore | SimDisk) -> list[object]:
    """Everything that can be read, and each failure's kind."""
    found: list[object] = []
    reads = [store.recover]
    for meta in (SnapshotMeta(1, 1, CONF, len(IMAGE), zlib.crc32(IMAGE)), *METAS):
        reads.append(lambda meta=meta: store.read_snapshot(meta))  # type: ignore[misc]
        for offset, length in ((0, 4), (3, 5), (5, 5), (7, 3)):
            reads.append(  # type: ignore[arg-type]
                lambda meta=meta, offset=offset, length=length: store.read_piece(
                    meta, offset, length
                )
            )
    for read in reads:
        try:
            found.append(read())
        except PBClusterError as error:
            found.append(type(error))
    return found


class SideBySide(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.lists(writes, min_size=1, max_size=3).map(tuple), max_size=6))
    def test_the_same_writes_leave_the_same(self, batches: list[tuple[Write, ...]]) -> None:
        """Whatever is written, in whatever order: what is found afterwards, and what is not."""
        simulated = SimDisk()
        simulated.format(CONF, IMAGE)
        with TemporaryDirectory(dir=".") as directory:
            home = Path(directory)
            (home / FIRST_START).touch()
            real = RaftStore(home / "store", "c", "m1", map_bytes=8 * 1024**2)
            try:
                real.prepare(home / FIRST_START, CONF, IMAGE)
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
