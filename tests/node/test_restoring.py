"""Restores of PocketBase's own backups on fakes: every step may fail, nothing acknowledged is mixed
with what was not."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from pbcluster.node.acks import Withheld
from pbcluster.node.lifecycle import State
from pbcluster.node.restoring import DRAIN_S, NotRestored, Restore, Restorer
from pbcluster.node.tenant import Tenant
from tests.node.harness import T, assignment
from tests.node.tenants_case import Base


class RestoreTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.restorer = Restorer(self.node.parts, self.node.tenants)
        self.node.assign(assignment())
        self.tenant: Tenant = self.node.load()
        self.node.lease()
        self.successResultOf(self.write("acked"))

    @property
    def workload(self):  # type: ignore[no-untyped-def]
        return self.node.fake.workloads.running[T]

    def begin(self) -> Deferred[Restore]:
        return Deferred.fromCoroutine(self.restorer.begin(self.tenant))

    def begun(self) -> Restore:
        beginning = self.begin()
        self.node.run(0.2)
        restore: Restore = self.successResultOf(beginning)
        return restore

    def run_with_leases(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.clock.advance(0.1)
            self.node.lease()

    def new_epoch(self) -> None:
        self.node.assign(assignment(epoch=2, wanted=True))
        self.run_with_leases(8.0)

    def outcomes(self) -> list[str]:
        return [outcome for outcome, _ in self.node.outcomes()]

    def test_whole_way(self) -> None:
        """Requests are held; the old replica stays as it was; the answer comes when the restored
        rows are in S3 under the new epoch, with READY."""
        restore = self.begun()
        self.assertIsNone(self.tenant.upstream(write=False))
        done = Deferred.fromCoroutine(restore.finish())
        self.workload.restore_backup(["from the backup"])
        self.run_with_leases(0.5)
        self.assertIn("restored", self.outcomes())
        self.assertNoResult(done)
        self.new_epoch()
        self.successResultOf(done)
        self.assertEqual(self.s3.rows(T, 1), ["acked"])
        self.assertEqual(self.s3.rows(T, 2), ["from the backup"])
        self.assertIs(self.node.tenant().state, State.ACTIVE)
        self.assertIsNotNone(self.node.tenant().upstream(write=True))
        self.successResultOf(self.write("more"))

    def test_pocketbase_refuses(self) -> None:
        """A restore that PocketBase does not begin changes nothing."""
        restore = self.begun()
        self.successResultOf(Deferred.fromCoroutine(restore.abandon()))
        self.assertIsNotNone(self.tenant.upstream(write=True))
        self.successResultOf(self.write("more"))
        self.assertEqual(self.s3.rows(T, 1), ["acked", "more"])

    def test_requests_under_way(self) -> None:
        """A request that does not end refuses the restore; the tenant goes on."""
        self.node.tenants.uses.opened(self.tenant)
        beginning = self.begin()
        self.run_with_leases(DRAIN_S + 0.5)
        self.failureResultOf(beginning, NotRestored)
        self.assertIsNotNone(self.tenant.upstream(write=True))
        self.successResultOf(self.write("more"))

    def test_s3_away(self) -> None:
        """Without S3 nothing is restored."""
        self.workload.write("not yet there")
        self.node.fake.s3.faults.down = True
        beginning = self.begin()
        self.run_with_leases(1.0)
        self.failureResultOf(beginning, NotRestored)

    def test_one_at_a_time(self) -> None:
        """A second restore of the same tenant is refused."""
        self.begun()
        self.failureResultOf(self.begin(), NotRestored)

    def test_pocketbase_dies_in_the_middle(self) -> None:
        """What it left is nobody's: the tenant goes back to what S3 has."""
        done = Deferred.fromCoroutine(self.begun().finish())
        self.workload.replace_database(["half"])
        self.workload.end("exit status 1")
        self.run_with_leases(0.5)
        self.failureResultOf(done, NotRestored)
        self.assertEqual(self.outcomes()[-1], "refused")
        self.new_epoch()
        self.assertEqual(self.workload.rows(), ["acked"])

    def test_new_epoch_cannot_be_made_durable(self) -> None:
        """S3 that goes away before the new database is in it: the client gets an error, and the
        epoch after that has what was there before."""
        done = Deferred.fromCoroutine(self.begun().finish())
        self.workload.restore_backup(["from the backup"])
        self.run_with_leases(0.5)
        self.node.fake.s3.faults.down = True
        self.new_epoch()
        self.failureResultOf(done, NotRestored)
        self.node.fake.s3.faults.down = False
        self.run_with_leases(1.0)
        self.assertIn(("refused", 2), self.node.outcomes())
        self.node.assign(assignment(epoch=3, wanted=True))
        self.run_with_leases(3.0)
        self.assertEqual(self.workload.rows(), ["acked"])

    def test_by_a_hook(self) -> None:
        """A replaced database whose PocketBase started anew is adopted, without a request."""
        self.workload.restore_backup(["from the backup"])
        self.run_with_leases(2.0)
        self.assertEqual(self.outcomes()[-1], "restored")
        self.new_epoch()
        self.assertEqual(self.s3.rows(T, 2), ["from the backup"])

    def test_by_somebody_else(self) -> None:
        """A replaced database whose PocketBase did not start anew is acknowledged from by nobody,
        and undone."""
        self.workload.replace_database(["forged"])
        self.failureResultOf(self.write("lost"), Withheld)
        self.run_with_leases(5.0)
        self.assertEqual(self.outcomes()[-1], "refused")
        self.new_epoch()
        self.assertEqual(self.workload.rows(), ["acked"])
