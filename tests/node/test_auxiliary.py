"""auxiliary.db: replicated while it is written to, let go while it is not, never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import S3Unavailable
from pbcluster.node.auxiliary import NAME, REST_AFTER_S, RETRY_S, Auxiliary
from pbcluster.node.wal import HEADER_BYTES
from pbcluster.testing.node_fakes.s3 import FakeS3
from tests.node.harness import NodeHarness, T


class Replication:
    """``interfaces.Replication`` as far as it is used here; notes its calls.

    :ivar failing: calls that fail. :ivar hold: not None: calls wait for it.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.hold: Deferred[None] | None = None

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.hold is not None:
            await self.hold
        if name in self.failing:
            raise S3Unavailable(f"{name} fails")

    async def register(self, tenant_id: str, epoch: int, database: Path) -> None:
        await self._call("register")

    async def sync(self, database: Path, *, timeout_s: float) -> int:
        await self._call("sync")
        return 1

    async def unregister(self, database: Path) -> bool:
        await self._call("unregister")
        return True


class AuxiliaryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.replication = Replication()
        node = NodeHarness(self.clock, FakeS3(self.clock))
        replication: Any = self.replication
        parts = attrs.evolve(node.parts, replication=replication, auxiliary=True)
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        (self.directory / NAME).touch()
        self.written = 0
        self.write()
        self.auxiliary = Auxiliary(parts, T, self.directory / "data.db")

    def write(self) -> None:
        """PocketBase commits: the header of the wal-index changes."""
        self.written += 1
        header = self.written.to_bytes(HEADER_BYTES, "little")
        (self.directory / f"{NAME}-shm").write_bytes(header * 2)

    def do(self, step: Any) -> None:
        self.successResultOf(Deferred.fromCoroutine(step))

    def after(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.advance(1.0)
            self.auxiliary.tick()

    def took(self) -> list[str]:
        """The calls since the last time."""
        calls, self.replication.calls = self.replication.calls, []
        return calls

    def rest(self) -> None:
        self.do(self.auxiliary.begin(1))
        self.after(REST_AFTER_S + 2)
        self.assertEqual(self.took(), ["register", "sync", "unregister"])
        self.assertTrue(self.auxiliary.rests)

    def test_rests_and_wakes(self) -> None:
        """After 15 s without a commit it is synced once more and let go; a commit takes it up again
        within a second."""
        self.rest()
        self.after(60)
        self.assertEqual(self.took(), [])
        self.write()
        self.after(1)
        self.assertEqual(self.took(), ["register"])
        self.assertFalse(self.auxiliary.rests)
        self.after(REST_AFTER_S + 2)
        self.assertEqual(self.took(), ["sync", "unregister"])

    def test_written_to_all_the_time(self) -> None:
        """It never rests while something is committed at least each 10 s."""
        self.do(self.auxiliary.begin(1))
        for _ in range(10):
            self.after(10)
            self.write()
        self.assertEqual(self.took(), ["register"])

    def test_written_to_while_it_is_let_go(self) -> None:
        """A commit during its last sync, which that may not cover, takes it up again."""
        self.do(self.auxiliary.begin(1))
        self.after(REST_AFTER_S)
        self.replication.hold = Deferred()
        self.after(2)
        self.write()
        held, self.replication.hold = self.replication.hold, None
        held.callback(None)
        self.assertEqual(self.took(), ["register", "sync", "unregister"])
        self.after(1)
        self.assertEqual(self.took(), ["register"])

    def test_what_fails_is_tried_again(self) -> None:
        """Litestream that does not take it is asked again, for ever; a last sync that fails leaves
        it watched."""
        self.replication.failing = {"register"}
        self.do(self.auxiliary.begin(1))
        self.after(3 * RETRY_S + 3)
        self.assertEqual(self.took(), ["register"] * 4)
        self.replication.failing = {"sync"}
        self.after(RETRY_S + REST_AFTER_S + 2)
        self.assertEqual(self.took(), ["register", "sync"])
        self.assertFalse(self.auxiliary.rests)
        self.replication.failing = set()
        self.after(REST_AFTER_S + 2)
        self.assertEqual(self.took(), ["sync", "unregister"])

    def test_a_failed_end_of_its_replication(self) -> None:
        """Litestream forgets a database whose last sync failed: it is registered anew, and rests
        later."""
        self.do(self.auxiliary.begin(1))
        self.replication.failing = {"unregister"}
        self.after(REST_AFTER_S + 2)
        self.assertEqual(self.took(), ["register", "sync", "unregister"])
        self.assertFalse(self.auxiliary.rests)
        self.replication.failing = set()
        self.after(RETRY_S + 2)
        self.assertEqual(self.took(), ["register"])
        self.after(REST_AFTER_S + 2)
        self.assertEqual(self.took(), ["sync", "unregister"])

    def test_its_end(self) -> None:
        """PocketBase that ends may write its last lines: they are in the last sync, also if it
        rested."""
        self.rest()
        self.do(self.auxiliary.wake())
        self.do(self.auxiliary.end())
        self.assertEqual(self.took(), ["register", "sync", "unregister"])
        self.write()
        self.after(60)
        self.assertEqual(self.took(), [])

    def test_the_end_of_a_watched_one(self) -> None:
        """It is ended once; what is under way is waited for."""
        self.do(self.auxiliary.begin(1))
        self.after(REST_AFTER_S)
        self.replication.hold = Deferred()
        self.after(2)
        ended = Deferred.fromCoroutine(self.auxiliary.end())
        self.assertNoResult(ended)
        held, self.replication.hold = self.replication.hold, None
        held.callback(None)
        self.successResultOf(ended)
        self.assertEqual(self.took(), ["register", "sync", "unregister"])

    def test_litestream_was_started_anew(self) -> None:
        """What was watched is registered again, what rests is not."""
        self.do(self.auxiliary.begin(1))
        self.took()
        self.do(self.auxiliary.begin_again())
        self.assertEqual(self.took(), ["register"])
        self.after(REST_AFTER_S + 2)
        self.assertEqual(self.took(), ["sync", "unregister"])
        self.do(self.auxiliary.begin_again())
        self.assertEqual(self.took(), [])

    def test_switched_off(self) -> None:
        """A node that does not replicate it asks Litestream for nothing."""
        parts: Any = attrs.evolve(self.auxiliary._parts, auxiliary=False)
        auxiliary = Auxiliary(parts, T, self.directory / "data.db")
        self.do(auxiliary.begin(1))
        self.write()
        auxiliary.tick()
        self.do(auxiliary.end())
        self.assertEqual(self.took(), [])
