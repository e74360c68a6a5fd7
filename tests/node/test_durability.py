"""Group commit: what must have happened before a write is acknowledged."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.durability import (
    ASYNC_LOSS_BOUND_S,
    MAX_CHECKS,
    MAX_WAITING,
    BeginSync,
    CheckOwner,
    Covered,
    Effects,
    Fence,
    GroupCommit,
    Reason,
    Release,
    Withhold,
)
from pbcluster.records import Durability

FILE = (1, 100)


def seen(effects: Effects) -> Effects:
    """What clients notice: without the news of what is covered."""
    return tuple(each for each in effects if not isinstance(each, Covered))


def sync_tenant() -> GroupCommit:
    return GroupCommit(Durability.SYNC, FILE)


class SyncTenantTests(SynchronousTestCase):
    def test_whole_way(self) -> None:
        """Sync, then the owner, then the release: in this order, none left out."""
        core = sync_tenant()
        self.assertEqual(core.responded(1, 0.0), (BeginSync(1),))
        self.assertEqual(core.sync_succeeded(1, 0.1, FILE), (CheckOwner(1),))
        self.assertEqual(seen(core.owner_checked(1, 0.2, ours=True)), (Release((1,)),))
        self.assertEqual(core.waiting, 0)

    def test_write_during_a_sync_waits_for_the_next(self) -> None:
        """A sync that began before a write was committed says nothing about it."""
        core = sync_tenant()
        core.responded(1, 0.0)
        self.assertEqual(core.responded(2, 0.05), ())
        self.assertEqual(core.sync_succeeded(1, 0.1, FILE), (CheckOwner(1), BeginSync(2)))
        self.assertEqual(seen(core.owner_checked(1, 0.2, ours=True)), (Release((1,)),))
        core.sync_succeeded(2, 0.3, FILE)
        self.assertEqual(seen(core.owner_checked(2, 0.4, ours=True)), (Release((2,)),))

    def test_group(self) -> None:
        """All that arrive during a sync share the next one, and one is in flight."""
        core = sync_tenant()
        core.responded(1, 0.0)
        for ticket in range(2, 22):
            self.assertEqual(core.responded(ticket, 0.05), ())
        core.sync_succeeded(1, 0.1, FILE)
        core.owner_checked(1, 0.15, ours=True)
        core.sync_succeeded(2, 0.2, FILE)
        released = seen(core.owner_checked(2, 0.3, ours=True))
        self.assertEqual(released, (Release(tuple(range(2, 22))),))

    def test_failed_sync_withholds(self) -> None:
        """What a failed sync should have covered is not acknowledged; the next write syncs anew."""
        core = sync_tenant()
        core.responded(1, 0.0)
        core.responded(2, 0.0)
        self.assertEqual(
            core.sync_failed(1, 5.0, "S3 away", FILE),
            (Withhold((1,), Reason.SYNC_FAILED, "S3 away"), BeginSync(2)),
        )

    def test_changed_nonce_fences(self) -> None:
        """A successor restored without this write: nothing of the tenant goes out any more."""
        core = sync_tenant()
        core.responded(1, 0.0)
        core.sync_succeeded(1, 0.1, FILE)
        core.responded(2, 0.1)
        core.responded(3, 0.1)
        self.assertEqual(
            core.owner_checked(1, 0.2, ours=False),
            (
                Withhold((1,), Reason.OWNERSHIP_LOST),
                Withhold((2, 3), Reason.OWNERSHIP_LOST),
                Fence(Reason.OWNERSHIP_LOST),
            ),
        )
        self.assertEqual(core.responded(4, 0.3), (Withhold((4,), Reason.STOPPED),))

    def test_owner_unknown_withholds(self) -> None:
        """Without a look at the owner after the sync there is no acknowledgement."""
        core = sync_tenant()
        core.responded(1, 0.0)
        core.sync_succeeded(1, 0.1, FILE)
        self.assertEqual(
            core.owner_unknown(1, 0.2, "timeout"),
            (Withhold((1,), Reason.OWNER_UNKNOWN, "timeout"),),
        )

    def test_replaced_database_fences(self) -> None:
        """A sync of a file that is not the database any more covers nothing."""
        for now in ((1, 101), (2, 100), None):
            core = sync_tenant()
            core.responded(1, 0.0)
            effects = core.sync_succeeded(1, 0.1, now)
            self.assertEqual(effects[0], Withhold((1,), Reason.DATABASE_REPLACED))
            self.assertEqual(effects[-1], Fence(Reason.DATABASE_REPLACED))

    def test_failed_sync_of_a_replaced_database_fences(self) -> None:
        """Under a replaced file no later sync can succeed: it ends here instead of failing for
        ever."""
        for now in ((1, 101), None):
            core = sync_tenant()
            core.responded(1, 0.0)
            effects = core.sync_failed(1, 0.1, "cannot verify", now)
            self.assertEqual(effects[0], Withhold((1,), Reason.DATABASE_REPLACED))
            self.assertEqual(effects[-1], Fence(Reason.DATABASE_REPLACED))

    def test_answers_of_ended_rounds_change_nothing(self) -> None:
        """A late or doubled answer releases nothing."""
        core = sync_tenant()
        core.responded(1, 0.0)
        core.sync_failed(1, 0.1, "x", FILE)
        core.responded(2, 0.2)
        self.assertEqual(core.sync_succeeded(1, 0.3, FILE), ())
        self.assertEqual(seen(core.owner_checked(1, 0.3, ours=True)), ())
        self.assertEqual(core.owner_checked(1, 0.3, ours=False), ())
        self.assertEqual(core.waiting, 1)

    def test_waiters_are_bounded(self) -> None:
        """One write too many is refused at once and the others are kept."""
        core = sync_tenant()
        for ticket in range(MAX_WAITING):
            core.responded(ticket, 0.0)
        (refused,) = core.responded(MAX_WAITING, 0.0)
        assert isinstance(refused, Withhold)
        self.assertEqual(refused.reason, Reason.BUSY)
        self.assertEqual(core.waiting, MAX_WAITING)

    def test_checks_are_bounded(self) -> None:
        """While S3 answers no look at the owner, no further sync is begun."""
        core = sync_tenant()
        for round in range(1, MAX_CHECKS + 1):
            core.responded(round, 0.0)
            core.sync_succeeded(round, 0.0, FILE)
        self.assertEqual(core.responded(99, 0.0), ())
        effects = core.owner_checked(1, 0.1, ours=True)
        self.assertEqual(seen(effects), (Release((1,)), BeginSync(MAX_CHECKS + 1)))

    def test_stop_withholds_everything(self) -> None:
        """Writes in every stage are told."""
        core = sync_tenant()
        for ticket in (1, 2, 3):
            core.responded(ticket, 0.0)
            if ticket == 1:
                core.sync_succeeded(1, 0.0, FILE)
        (withheld,) = core.stop()
        assert isinstance(withheld, Withhold)
        self.assertEqual(sorted(withheld.tickets), [1, 2, 3])


class AsyncTenantTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.core = GroupCommit(Durability.ASYNC, FILE)

    def sync(self, round: int, now: float) -> None:
        self.core.sync_succeeded(round, now, FILE)
        self.core.owner_checked(round, now, ours=True)

    def test_acknowledged_at_once(self) -> None:
        """While syncs keep up, nobody waits."""
        self.assertEqual(self.core.responded(1, 100.0), (Release((1,)),))
        self.assertEqual(self.core.tick(100.1), (BeginSync(1),))
        self.sync(1, 100.2)
        self.assertIsNone(self.core.unsynced_since)

    def test_who_passes_at_once(self) -> None:
        """What passes at once counts as unsynced from then on; with the bound reached, or at its
        end, nothing does, and of a ``sync`` tenant nothing ever."""
        self.assertTrue(self.core.passes_at_once(1.0))
        self.assertEqual(self.core.unsynced_since, 1.0)
        self.assertTrue(self.core.passes_at_once(1.0 + ASYNC_LOSS_BOUND_S))
        self.assertFalse(self.core.passes_at_once(1.1 + ASYNC_LOSS_BOUND_S))
        self.core.stop()
        self.assertFalse(self.core.passes_at_once(1.0))
        self.assertFalse(GroupCommit(Durability.SYNC, FILE).passes_at_once(1.0))

    def test_idle_tenant_is_not_synced(self) -> None:
        """Nothing unsynced, no sync."""
        self.assertEqual(self.core.tick(1.0), ())

    def test_once_a_second(self) -> None:
        """A busy tenant is synced each second, not at each tick."""
        self.core.responded(1, 0.0)
        self.core.tick(0.0)
        self.core.responded(2, 0.1)
        self.sync(1, 0.2)
        self.assertEqual(self.core.tick(0.9), ())
        self.assertEqual(self.core.tick(1.0), (BeginSync(2),))

    def test_loss_is_bounded(self) -> None:
        """With its oldest unsynced write 5 s old, the next one waits for a sync."""
        self.core.responded(1, 0.0)
        self.assertIsInstance(self.core.responded(2, ASYNC_LOSS_BOUND_S)[0], Release)
        self.assertEqual(self.core.responded(3, ASYNC_LOSS_BOUND_S + 0.1), (BeginSync(1),))

    def test_failed_sync_keeps_the_age(self) -> None:
        """A sync that failed makes nothing younger."""
        self.core.responded(1, 0.0)
        self.core.tick(1.0)
        self.core.responded(2, 2.0)
        self.core.sync_failed(1, 3.0, "away", FILE)
        self.assertEqual(self.core.unsynced_since, 0.0)
        self.assertIsInstance(self.core.responded(3, 5.1)[0], BeginSync)

    def test_unknown_owner_keeps_the_age(self) -> None:
        """Nor does a sync whose owner check failed."""
        self.core.responded(1, 0.0)
        self.core.tick(1.0)
        self.core.sync_succeeded(1, 1.1, FILE)
        self.core.owner_unknown(1, 1.2, "away")
        self.assertEqual(self.core.unsynced_since, 0.0)

    def test_written_during_a_sync_stays_unsynced(self) -> None:
        """A write acknowledged while a sync ran is not covered by it."""
        self.core.responded(1, 0.0)
        self.core.tick(1.0)
        self.core.responded(2, 1.05)
        self.sync(1, 1.1)
        self.assertEqual(self.core.unsynced_since, 1.05)

    def test_background_sync_notices_a_successor(self) -> None:
        """A deposed owner of an async tenant stops, too."""
        self.core.responded(1, 0.0)
        self.core.tick(1.0)
        self.core.sync_succeeded(1, 1.1, FILE)
        effects = self.core.owner_checked(1, 1.2, ours=False)
        self.assertEqual(effects, (Fence(Reason.OWNERSHIP_LOST),))
