"""Snapshots that come in while others are installed: nothing that is still needed is forgotten."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.raft_snapshots import Snapshots
from pbcluster.controlplane.raft_store import PIECE_BYTES, Write
from pbcluster.raft import ChunkReceived, ConfState, RaftOptions, SnapshotMeta


class Machine:
    def __init__(self) -> None:
        self.state: object = None

    def load(self, data: bytes) -> object:
        return data

    def install(self, state: object, meta: SnapshotMeta) -> None:
        self.state = state


class Everything:
    """A driver, its core and its store, which take whatever they are given."""

    def __init__(self) -> None:
        self.core: Any = self
        self.written: dict[SnapshotMeta, bytes] = {}
        self.installing: list[SnapshotMeta] = []
        self.wants = True
        self.hold = False

    def submit(self, writes: tuple[Write, ...], then: Callable[[], None]) -> None:
        for write in writes:
            for piece in write.pieces:
                self.written[piece.meta] = piece.data
        if not self.hold:
            then()

    def pump(self) -> None:
        pass

    def end(self, reason: str) -> None:
        raise AssertionError(reason)

    def install_snapshot(self, meta: SnapshotMeta) -> bool:
        self.installing.append(meta)
        return self.wants

    def read_snapshot(self, meta: SnapshotMeta) -> bytes:
        return self.written[meta]


class Coming(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine, self.rest = Machine(), Everything()
        self.snapshots = Snapshots(
            self.rest,
            self.rest,  # type: ignore[arg-type]
            self.machine,
            lambda function, *args: succeed(function(*args)),
            snapshot_every=1000,
            keep=10,
        )

    def come(self, index: int) -> SnapshotMeta:
        """A whole snapshot comes in, is sound, and is to be installed."""
        data = b"state %d" % index
        meta = SnapshotMeta(index, 1, ConfState(("m1",)), len(data), zlib.crc32(data))
        self.snapshots.stage(ChunkReceived(meta, 0, data, last=True))
        self.assertEqual(self.rest.installing[-1], meta)
        self.snapshots.to_install(meta)
        return meta

    def test_a_newer_one_is_ready_before_the_older_is_installed(self) -> None:
        """The disk was slow. The newer one's pieces, durable before the older one's record, must
        outlive it, and so must the state that was read from them."""
        old, new = self.come(9), self.come(17)
        self.assertLessEqual({old, new}, set(self.snapshots.coming()))
        self.snapshots.installed(old)
        self.assertEqual(self.machine.state, b"state 9")
        self.assertIn(new, self.snapshots.coming())
        self.snapshots.installed(new)
        self.assertEqual(self.machine.state, b"state 17")

    def test_one_is_kept_while_its_last_piece_is_written(self) -> None:
        """Though a newer one begins meanwhile: what is written last may be installed first."""
        self.rest.hold = True
        data = b"state 9"
        meta = SnapshotMeta(9, 1, ConfState(("m1",)), len(data), zlib.crc32(data))
        newer = SnapshotMeta(17, 1, ConfState(("m1",)), 100, 1)
        self.snapshots.stage(ChunkReceived(meta, 0, data, last=True))
        self.snapshots.stage(ChunkReceived(newer, 0, b"...", last=False))
        self.assertEqual({meta, newer}, set(self.snapshots.coming()))

    def test_one_that_came_twice(self) -> None:
        """The second time the core does not want it, but waits for it to be installed."""
        meta = self.come(9)
        self.rest.wants = False
        self.come(9)
        self.snapshots.installed(meta)
        self.assertEqual(self.machine.state, b"state 9")

    def test_pieces_are_as_large_as_chunks(self) -> None:
        """One snapshot may be made here and come in: pieces of two sizes would overlap."""
        self.assertEqual(PIECE_BYTES, RaftOptions(member="m1").snapshot_chunk_bytes)
