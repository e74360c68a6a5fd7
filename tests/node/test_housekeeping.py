"""Warm copies within a budget, copies left behind, old epochs: on fakes, and on a real disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.claims import ready_key
from pbcluster.node.directories import NodeDirectories
from pbcluster.node.housekeeping import EPOCHS_AGAIN_S, ROUND_S, Housekeeping, Keeping
from pbcluster.node.interfaces import Owner
from pbcluster.node.lifecycle import State
from pbcluster.node.warm_budget import KEEP_UNASSIGNED_S
from tests.node.harness import NodeHarness, T, U, assignment
from tests.node.tenants_case import Base

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def now_in_thread(call: Callable[[], Any]) -> Deferred[Any]:
    return maybeDeferred(call)


class HousekeepingCase(Base):
    keeping = Keeping(warm_bytes=2)

    def setUp(self) -> None:
        super().setUp()
        self.fake = self.node.fake
        self.disk = self.fake.disk
        self.house = self.housekeeping(self.node)

    def housekeeping(self, node: NodeHarness) -> Housekeeping:
        parts = attrs.evolve(
            node.parts, utc_now=lambda: BEGAN + timedelta(seconds=self.clock.seconds())
        )
        node.fake.disk.now = lambda: BEGAN.timestamp() + self.clock.seconds()
        house = Housekeeping(parts, node.tenants, now_in_thread, self.keeping)
        house.start()
        return house

    def rest(self, tenant_id: str) -> None:
        """Stop it, as after idleness."""
        tenant = self.node.tenant(tenant_id)
        stopped = Deferred.fromCoroutine(self.node.tenants._rest(tenant))
        self.node.run(1.0)
        self.successResultOf(stopped)
        self.assertIs(tenant.state, State.ABSENT)


class WarmCopyTests(HousekeepingCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.assign(assignment(), assignment(U))
        for tenant_id in (T, U):
            self.node.load(tenant_id)

    def test_the_budget(self) -> None:
        """The least recently stopped copy goes, the other stays warm; the one that went comes back
        from S3 with all its rows."""
        self.successResultOf(self.write("a"))
        self.rest(T)
        self.node.run(5.0)
        self.rest(U)
        self.node.run(ROUND_S)
        self.assertEqual(self.disk.discarded, [T])
        self.assertEqual(self.fake.directories.known(), (U,))
        self.assertEqual(self.house.figures()["copies_removed"], 1)
        waiting = self.node.ready(T)
        self.node.run(1.0)
        self.assertNoResult(waiting)
        self.assertEqual(self.node.outcomes()[-1], ("refused", 1))
        self.node.assign(assignment(epoch=2), assignment(U))
        self.node.run(2.0)
        self.successResultOf(waiting)
        self.assertEqual(self.fake.workloads.running[T].rows(), ["a"])

    def test_what_is_not_in_s3_stays(self) -> None:
        """The last sync failed: the copy is kept whatever the budget says, and goes on later."""
        for _ in range(5):
            self.fake.workloads.running[T].write("unsynced")
        self.fake.s3.faults.down = True
        self.rest(T)
        self.node.run(3 * ROUND_S)
        self.assertEqual(self.disk.discarded, [])
        self.fake.s3.faults.down = False
        self.node.load(T)
        self.assertEqual(self.fake.workloads.running[T].rows(), ["unsynced"] * 5)

    def test_litestream_died_meanwhile(self) -> None:
        """A stop without a last sync, because the daemon knows nothing, settles nothing."""
        self.fake.workloads.running[T].write("unsynced")
        self.fake.replication.registered.clear()
        self.rest(T)
        self.node.run(2 * ROUND_S)
        self.assertEqual(self.disk.discarded, [])

    def test_a_replaced_database_settles_nothing(self) -> None:
        """What was synced is not what is there."""
        self.fake.workloads.running[T].replace_database(["other"] * 9)
        self.rest(T)
        self.node.run(2 * ROUND_S)
        self.assertEqual(self.disk.discarded, [])

    def test_a_loaded_tenant_is_no_warm_copy(self) -> None:
        """However much it takes."""
        for number in range(9):
            self.successResultOf(self.write(str(number)))
        self.node.run(2 * ROUND_S)
        self.assertEqual(self.disk.discarded, [])

    def test_woken_between_decision_and_removal(self) -> None:
        """Whoever is loaded by then keeps its copy."""
        self.successResultOf(self.write("a"))
        self.rest(T)
        self.rest(U)
        scanned = self.fake.directories.copies()

        def scan() -> tuple[Any, ...]:
            self.node.load(T)
            return scanned

        self.fake.directories.copies = scan  # type: ignore[method-assign]
        Deferred.fromCoroutine(self.house.round())
        self.assertNotIn(T, self.disk.discarded)
        self.assertEqual(self.fake.workloads.running[T].rows(), ["a"])

    def test_given_away(self) -> None:
        """A settled copy of a tenant that is not assigned here any more goes after a while."""
        self.node.assign(assignment(U))
        self.node.run(KEEP_UNASSIGNED_S - ROUND_S)
        self.assertEqual(self.disk.discarded, [])
        self.node.run(3 * ROUND_S, step=1.0)
        self.assertEqual(self.disk.discarded, [T])

    def test_given_away_with_more_than_s3_has(self) -> None:
        """It stays while the owner object names us; when another has it, it is set aside."""
        self.fake.workloads.running[T].write("unsynced")
        self.fake.s3.faults.down = True
        self.node.assign(assignment(U))
        self.node.run(20.0)
        self.fake.s3.faults.down = False
        self.node.run(2 * ROUND_S)
        self.assertEqual(self.disk.aside, [])
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=2))
        other.load()
        self.node.run(3700.0, step=1.0)
        self.assertEqual([each.rows for each in self.disk.aside], [["unsynced"]])

    def test_deleted_elsewhere(self) -> None:
        """A copy left on another node goes when the tombstone is seen, settled or not."""
        self.fake.workloads.running[T].write("unsynced")
        self.fake.s3.faults.down = True
        self.node.assign(assignment(U))
        self.node.run(20.0)
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=2, ending="deleted"))
        self.fake.s3.faults.down = False
        self.node.run(2 * ROUND_S)
        self.assertEqual((self.disk.discarded, self.disk.aside), ([T], []))

    def test_a_fault_ends_no_watch(self) -> None:
        """The next round comes all the same."""
        self.rest(T)
        self.successResultOf(Deferred.fromCoroutine(self.node.tenants._rest(self.node.tenant(U))))
        broken = [OSError("no such disk")]

        def scan() -> tuple[Any, ...]:
            if broken:
                raise broken.pop()
            return found()

        found = self.fake.directories.copies
        self.fake.directories.copies = scan  # type: ignore[method-assign]
        self.house._keeping = Keeping(warm_bytes=1)
        self.node.run(ROUND_S + 1)
        self.assertEqual(self.disk.discarded, [])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.node.run(ROUND_S)
        self.assertEqual(self.disk.discarded, [T])

    def test_a_locked_copy_stops_no_other(self) -> None:
        """An orphan has one: it is tried again, the others go now."""
        self.rest(T)
        self.node.run(1.0)
        self.rest(U)
        self.house._keeping = Keeping(warm_bytes=1)
        self.disk.room_bytes = 0
        lock = self.fake.directories.lock(T)
        for _ in range(9):
            self.disk.databases[self.fake.directories.database(U)].rows.append("x")
        self.node.run(ROUND_S)
        self.assertEqual(self.disk.discarded, [U])
        lock.release()
        self.house._keeping = Keeping(warm_bytes=0)
        self.node.run(ROUND_S)
        self.assertEqual(self.disk.discarded, [U, T])

    def test_the_end(self) -> None:
        """Nothing is begun any more, and no timer stays."""
        self.house.stop()
        self.successResultOf(Deferred.fromCoroutine(self.node.tenants.stop(drain_s=0)))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OldEpochTests(HousekeepingCase):
    keeping = Keeping(point_in_time_s=18000.0)

    def move(self, epoch: int) -> None:
        """A new epoch on the same node, as a take-over makes it."""
        self.node.assign(assignment(epoch=epoch))
        self.node.load()

    def epochs(self) -> set[int]:
        keys = [key for key in self.s3.objects if "/litestream/" in key]
        return {int(key.split("/")[3]) for key in keys}

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.node.run(2 * ROUND_S)

    def setUp(self) -> None:
        super().setUp()

        def now() -> datetime:
            return BEGAN + timedelta(seconds=self.clock.seconds())

        self.node.tenants.parts = attrs.evolve(self.node.parts, utc_now=now)
        self.node.tenants._idle_stop_s = 1e9
        for epoch in (1, 2, 3):
            self.move(epoch)

    def test_after_the_window(self) -> None:
        """Our epoch and its parent stay; the one before leaves S3 with all its objects, READY
        first; the tenant is served all the while."""
        self.later(EPOCHS_AGAIN_S / 2)
        self.assertEqual(self.epochs(), {1, 2, 3})
        self.later(EPOCHS_AGAIN_S)
        self.assertEqual(self.epochs(), {2, 3})
        removed = [key for _, method, key in self.s3.requests if method == "DELETE"]
        self.assertEqual(removed[0], ready_key(T, 1))
        self.successResultOf(self.write("a"))
        self.assertEqual(self.house.figures()["epochs_removed"], 1)

    def test_not_the_owner(self) -> None:
        """A deposed owner removes nothing, whatever it still believes."""
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=4))
        other.ready()
        other.run(2.0)
        self.later(2 * EPOCHS_AGAIN_S)
        self.assertEqual(self.epochs(), {1, 2, 3, 4})

    def test_a_take_over_in_the_middle_has_its_source(self) -> None:
        """Another node claims between the look and the removal, and restores for long: what it
        reads is there to the end."""
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.tenants._idle_stop_s = 1e9
        other.fake.replication.restore_delay_s = 900.0
        remove = self.fake.claims.remove_epoch

        async def claimed_meanwhile(tenant_id: str, epoch: int) -> bool:
            if other.tenants.find(T) is None:
                other.assign(assignment(epoch=4))
                other.ready().addErrback(lambda _: None)
            return await remove(tenant_id, epoch)

        self.patch(self.fake.claims, "remove_epoch", claimed_meanwhile)
        self.successResultOf(self.write("a"))
        self.later(2 * EPOCHS_AGAIN_S)
        self.assertEqual(self.epochs(), {2, 3})
        self.node.run(1000.0, step=1.0)
        self.assertIs(other.tenant().state, State.ACTIVE)
        self.assertEqual(other.fake.workloads.running[T].rows(), ["a"])

    def test_s3_away(self) -> None:
        """It is tried again at its next turn."""
        self.fake.s3.faults.down = True
        self.later(2 * EPOCHS_AGAIN_S)
        self.fake.s3.faults.down = False
        self.assertEqual(self.epochs(), {1, 2, 3})
        self.later(EPOCHS_AGAIN_S)
        self.assertEqual(self.epochs(), {2, 3})


class RealDiskTests(SynchronousTestCase):
    """Directories as they are."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.now = 10.0**9
        self.directories = NodeDirectories(self.root, lambda: self.now)

    def copy(self, tenant_id: str, size: int) -> Path:
        data = self.directories.path(tenant_id) / "data"
        data.mkdir(parents=True)
        (data / "data.db").write_bytes(b"x" * size)
        owner = Owner(epoch=1, node="n", incarnation=1, nonce="x")
        self.directories.write_claim_note(tenant_id, owner)
        return data

    def test_settled(self) -> None:
        """What a stop notes and a start forgets; it outlives the process."""
        self.copy(T, 10)
        self.assertFalse(self.directories.is_settled(T))
        self.directories.settle(T)
        self.assertTrue(NodeDirectories(self.root).is_settled(T))
        self.directories.unsettle(T)
        self.assertFalse(self.directories.is_settled(T))
        self.directories.settle(T)
        self.assertIsNotNone(self.directories.set_aside(T))
        self.assertFalse(self.directories.is_settled(T))

    def test_uploads_on_the_disk(self) -> None:
        """A copy with files that only this disk has is never settled, so never removed."""
        for name in ("storage/c/r", "backups"):
            data = self.copy(T if name == "backups" else U, 10)
            (data / name).mkdir(parents=True)
            self.directories.settle(data.parent.name)
            self.assertTrue(self.directories.is_settled(data.parent.name))
            self.directories.unsettle(data.parent.name)
            (data / name / "file.txt").write_bytes(b"x")
            self.directories.settle(data.parent.name)
            self.assertFalse(self.directories.is_settled(data.parent.name))

    def test_discard(self) -> None:
        """Data and notes are gone at once, the bytes with the trash; twice is fine; what the
        tenant linked to stays."""
        data = self.copy(T, 100_000)
        outside = Path(self.mktemp())
        outside.mkdir()
        (outside / "precious").write_bytes(b"y" * 50_000)
        (data / "link").symlink_to(outside.absolute())
        for number in range(2):
            lock = self.directories.lock(T)
            self.directories.discard(T, whole=bool(number))
            lock.release()
            self.assertEqual(self.directories.known(), () if number else (T,))
            self.assertIsNone(self.directories.claim_note(T))
            self.assertEqual(self.directories.database_bytes(T), 0)
        self.assertEqual(self.directories.known(), ())
        self.copy(T, 5)
        lock = self.directories.lock(T)
        self.directories.discard(T)
        lock.release()
        self.assertEqual(len(list((self.root / "trash").iterdir())), 3)
        self.assertEqual(self.directories.empty_trash(), 3)
        self.assertTrue((outside / "precious").exists())

    def test_measure(self) -> None:
        """Bytes on the disk, without what links lead to."""
        data = self.copy(T, 1_000_000)
        outside = Path(self.mktemp())
        outside.write_bytes(b"y" * 5_000_000)
        (data / "link").symlink_to(outside.absolute())
        self.directories.settle(T)
        (found,) = self.directories.copies()
        self.assertEqual(found.tenant_id, T)
        self.assertIsNotNone(found.settled_at)
        self.assertTrue(1_000_000 <= found.size_bytes < 1_200_000, found)
        self.assertEqual(self.directories.database_bytes(T), 1_000_000)

    def aside(self, age_s: float, tenant_id: str = T) -> Path:
        self.copy(tenant_id, 100_000)
        path = self.directories.set_aside(tenant_id)
        assert path is not None
        self.ages[path] = self.now - age_s
        return path

    def test_aside_is_bounded(self) -> None:
        """By age, all but the newest two of a tenant; over the bytes the oldest go first, but none
        of the last day."""
        self.ages: dict[Path, float] = {}
        day = 86400.0
        old = [self.aside(age * day) for age in (30, 20, 10, 9)]
        other = self.aside(0.5 * day, U)
        real = os.stat_result

        def stat(path: Path, *, follow_symlinks: bool = True) -> Any:
            found = list(real_stat(path, follow_symlinks=follow_symlinks))
            return real([*found[:9], self.ages[path]]) if path in self.ages else real(found)

        real_stat = Path.stat
        self.patch(Path, "stat", stat)
        self.assertEqual(self.directories.prune_aside(None), 2)
        self.assertEqual([path.exists() for path in old], [False, False, True, True])
        self.assertEqual(self.directories.prune_aside(250_000), 1)
        self.assertEqual([path.exists() for path in old], [False, False, False, True])
        self.assertEqual(self.directories.prune_aside(0), 1)
        self.assertTrue(other.exists())
