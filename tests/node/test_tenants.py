"""Tenants of a node on fakes: loads, resumes, take-overs, arrivals."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from pbcluster.errors import OwnershipLost, Unavailable
from pbcluster.node.acks import Withheld
from pbcluster.node.arrivals import Loading
from pbcluster.node.durability import Reason
from pbcluster.node.lifecycle import State
from pbcluster.node.parts import spawn
from pbcluster.node.prover import NoProof
from pbcluster.node.tenant import MAX_HELD
from tests.node.harness import NodeHarness, T, assignment
from tests.node.tenants_case import Base


class LoadTests(Base):
    def test_first_load(self) -> None:
        """A new tenant is claimed, started empty with its superuser, synced, marked READY."""
        self.node.assign(assignment())
        ready = self.node.ready()
        tenant = self.successResultOf(ready)
        self.assertIs(tenant.state, State.ACTIVE)
        (spec,) = self.node.fake.workloads.started
        self.assertIsNotNone(spec.superuser)
        keys = [key for _, method, key in self.s3.requests if method == "PUT"]
        self.assertTrue(keys[0].endswith("owner.json"), keys)
        self.assertTrue(keys[-1].endswith("READY"), keys)
        self.assertEqual(self.node.outcomes(), [("ready", 1)])
        self.node.lease()
        self.assertTrue(tenant.proven())

    def test_not_ours(self) -> None:
        """A tenant that is not assigned is not loaded."""
        self.failureResultOf(self.node.ready(), OwnershipLost)
        self.assertEqual(self.s3.requests, [])

    def test_wanted_is_loaded_unasked(self) -> None:
        """``wanted`` loads at once, and not again after an idle stop."""
        self.node = NodeHarness(self.clock, self.s3, idle_stop_s=5.0)
        self.node.assign(assignment(wanted=True))
        self.assertIs(self.node.tenant().state, State.ACTIVE)
        self.node.run(10)
        self.assertIs(self.node.tenant().state, State.ABSENT)

    def test_loads_are_single_flight(self) -> None:
        """A hundred requests load a tenant once."""
        self.node.fake.workloads.start_delay_s = 0.5
        self.node.assign(assignment())
        waiting = [self.node.ready() for _ in range(100)]
        self.node.run(1.0)
        for each in waiting:
            self.successResultOf(each)
        self.assertEqual(len(self.node.fake.workloads.started), 1)

    def test_reads_before_the_first_sync(self) -> None:
        """On the restored copy reads are served before READY, writes only after it."""
        self.node.fake.replication.sync_delay_s = 2.0
        self.node.assign(assignment())
        read, write = self.node.ready(write=False), self.node.ready(write=True)
        self.successResultOf(read)
        self.node.run(1.0)
        self.assertNoResult(write)
        self.node.run(1.5)
        self.successResultOf(write)

    def test_durable_reads_before_the_first_sync(self) -> None:
        """Reads of a tenant that has durable reads wait for READY, as writes do: they were answered
        503 where the tenant had just come (``chaos migration --durable-reads --seed 7``)."""
        self.node.fake.replication.sync_delay_s = 2.0
        self.node.assign(assignment(durable_reads=True))
        read = self.node.ready(write=False)
        self.node.run(1.0)
        self.assertNoResult(read)
        self.node.run(1.5)
        tenant = self.successResultOf(read)
        self.successResultOf(Deferred.fromCoroutine(tenant.replication.acknowledge_read()))

    def test_hold_is_bounded(self) -> None:
        """A request waits no longer than its deadline."""
        self.node.fake.workloads.start_delay_s = 60.0
        self.node.assign(assignment())
        waiting = self.node.ready(within_s=5.0)
        self.node.run(5.1)
        self.failureResultOf(waiting, Loading)

    def test_s3_away_then_back(self) -> None:
        """A load while S3 is away fails with its cause and works once S3 is back, same nonce."""
        self.node.assign(assignment())
        self.node.fake.s3.faults.down = True
        error = self.failureResultOf(self.node.ready(), Unavailable).value
        self.assertIn("S3 did not answer", str(error))
        self.assertIs(self.node.tenant().state, State.FAILED)
        self.node.fake.s3.faults.down = False
        self.node.run(1.0)
        self.successResultOf(self.node.ready())

    def test_lost_answer_of_the_claim(self) -> None:
        """A claim whose answer was lost is found to be won."""
        self.node.assign(assignment())
        self.node.fake.s3.faults.lose_answers = 1
        self.successResultOf(self.node.ready())

    def test_s3_away_during_the_first_sync(self) -> None:
        """The first sync is repeated until S3 is back; PocketBase stays up."""
        self.node.fake.replication.broken_syncs = 3
        self.node.assign(assignment())
        waiting = self.node.ready()
        self.node.run(3.5)
        self.successResultOf(waiting)
        self.assertEqual(len(self.node.fake.workloads.started), 1)

    def test_failed_start_is_retried_with_backoff(self) -> None:
        """A PocketBase that does not start gives a 503 with the reason, later a new try."""
        self.node.fake.workloads.fail_next("exit status 1: corrupt")
        self.node.assign(assignment())
        error = self.failureResultOf(self.node.ready(), Unavailable).value
        self.assertIn("corrupt", str(error))
        self.assertEqual(self.node.fake.directories.locks, {})
        self.failureResultOf(self.node.ready(), Unavailable)
        self.node.run(0.6)
        self.successResultOf(self.node.ready())
        self.assertEqual(self.node.outcomes(), [("failed", 1), ("ready", 1)])

    def test_corrupt_replica(self) -> None:
        """A replica that fails its check is an alarm: nothing is started, nothing removed."""
        self.node.assign(assignment())
        self.node.load()
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.fake.replication.corrupt.add((T, 1))
        other.assign(assignment(epoch=2))
        before = dict(self.s3.objects)
        self.failureResultOf(other.ready(), Unavailable)
        self.assertEqual(other.fake.workloads.started, [])
        self.assertLessEqual(set(before), set(self.s3.objects))


class TakeOverTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.node.assign(assignment())
        self.node.load()
        self.node.lease()
        self.other = NodeHarness(self.clock, self.s3, "node_b")

    def test_acknowledged_rows_are_there(self) -> None:
        """What the first owner acknowledged is what the second one serves."""
        self.successResultOf(self.write("a"))
        self.successResultOf(self.write("b"))
        self.node.fake.die()
        self.other.assign(assignment(epoch=2))
        self.other.load()
        self.assertEqual(self.other.fake.workloads.running[T].rows(), ["a", "b"])
        self.assertIsNone(self.other.fake.workloads.started[0].superuser)

    def test_new_owner_waits(self) -> None:
        """The new owner answers nothing for 0.8 s after its claim."""
        self.other.assign(assignment(epoch=2))
        self.successResultOf(self.other.ready(write=False))
        self.other.lease()
        proof = self.prove(self.other)
        self.assertNoResult(proof)
        self.node.run(0.7)
        self.assertNoResult(proof)
        self.node.run(0.2)
        self.successResultOf(proof)

    def test_deposed_owner_acknowledges_nothing(self) -> None:
        """A write of the old owner after the take-over is withheld, and the old owner stops."""
        self.other.assign(assignment(epoch=2))
        self.other.load()
        late = self.write("late")
        error = self.failureResultOf(late, Withheld).value
        self.assertIs(error.reason, Reason.OWNERSHIP_LOST)
        self.assertNotIn(T, self.node.fake.workloads.running)
        self.assertIs(self.node.tenant().state, State.ABSENT)
        self.node.lease()
        self.assertFalse(self.node.tenant().proven())
        self.assertEqual(self.node.reports[-1].observed_epoch, 2)
        self.failureResultOf(self.node.ready(), OwnershipLost)
        self.assertNotIn("late", self.s3.rows(T, 2))

    def test_deposed_owner_finds_out_by_a_read(self) -> None:
        """Without a lease a read looks at the owner object; another's claim fences."""
        self.node.run(2.0)
        self.other.assign(assignment(epoch=2))
        self.other.load()
        self.failureResultOf(self.prove(), OwnershipLost)
        self.assertNotIn(T, self.node.fake.workloads.running)

    def test_head_proof_without_the_control_plane(self) -> None:
        """While no lease comes, a look at the owner object serves requests; shared by all."""
        self.node.run(5.0)
        self.assertFalse(self.node.tenant().proven())
        self.s3.requests.clear()
        self.node.fake.s3.faults.delay_s = 0.01
        proofs = [self.prove() for _ in range(20)]
        self.node.run(0.1, step=0.01)
        for each in proofs:
            self.successResultOf(each)
        self.assertEqual(len(self.s3.requests), 1)

    def test_no_proof_without_both(self) -> None:
        """Cut from control plane and S3, nothing is answered, and nothing is killed."""
        self.node.run(5.0)
        self.node.fake.s3.faults.down = True
        self.failureResultOf(self.prove(), NoProof)
        self.assertIn(T, self.node.fake.workloads.running)

    def test_slow_owner_object_is_no_proof(self) -> None:
        """An answer that took longer than a head proof lasts proves nothing."""
        self.node.run(5.0)
        self.node.fake.s3.faults.delay_s = 0.7
        proof = self.prove()
        self.node.run(1.0)
        self.failureResultOf(proof, NoProof)

    def test_released(self) -> None:
        """What is taken away stops answering at once, then its processes, then it is reported."""
        self.node.fake.workloads.stop_delay_s = 0.5
        tenant = self.node.tenant()
        self.node.assign()
        self.assertIsNone(tenant.upstream(write=False))
        self.failureResultOf(self.node.ready(), OwnershipLost)
        self.assertEqual(self.node.outcomes(), [("ready", 1)])
        self.node.run(1.0)
        self.assertEqual(self.node.outcomes()[-1], ("released", 1))
        self.assertEqual(self.node.fake.workloads.running, {})
        self.assertEqual(self.node.fake.replication.registered, {})
        self.assertEqual(self.node.fake.directories.locks, {})

    def test_release_lets_open_requests_finish(self) -> None:
        """A write under way when the tenant is taken away is still acknowledged, then it stops."""
        tenant = self.node.tenant()
        self.node.tenants.uses.opened(tenant)
        self.node.assign()
        self.node.fake.workloads.running[T].write("last")
        self.successResultOf(Deferred.fromCoroutine(tenant.replication.acknowledge()))
        self.assertIn(T, self.node.fake.workloads.running)
        self.node.tenants.uses.closed(tenant, stream=False)
        self.assertNotIn(T, self.node.fake.workloads.running)
        self.assertEqual(self.s3.rows(T, 1), ["last"])

    def test_release_waits_for_no_one_for_ever(self) -> None:
        """A request that does not end is cut."""
        self.node.tenants.uses.opened(self.node.tenant())
        self.node.assign()
        self.node.run(6.0)
        self.assertNotIn(T, self.node.fake.workloads.running)

    def test_new_epoch_on_the_same_node(self) -> None:
        """A new epoch claims and restores anew; the old copy, all of it in S3, goes."""
        self.successResultOf(self.write("a"))
        self.node.assign(assignment(epoch=2))
        self.node.load()
        self.assertEqual(self.node.fake.workloads.running[T].rows(), ["a"])
        self.assertEqual(self.node.fake.disk.aside, [])
        self.assertEqual(self.node.fake.disk.discarded, [T])
        self.assertEqual(self.node.outcomes(), [("ready", 1), ("ready", 2)])

    def test_new_epoch_in_the_middle_of_a_load(self) -> None:
        """A request that waits for a load gets the load of the epoch that replaces it, though the
        tenant is an idle one that nothing but requests loads."""
        late = NodeHarness(self.clock, self.s3, "node_c")
        late.fake.workloads.start_delay_s = 0.5
        late.assign(assignment(epoch=2))
        waiting = late.ready()
        self.clock.advance(0.1)
        self.assertNoResult(waiting)
        late.assign(assignment(epoch=3))
        late.run(2.0)
        self.assertIs(self.successResultOf(waiting), late.tenant())
        self.assertEqual(late.tenant().epoch, 3)

    def test_replica_of_the_old_epoch_is_ended_first(self) -> None:
        """S3 was away when an epoch ended here, so its database is still being replicated: the
        next epoch puts no copy in that place before the old replica was ended."""
        self.successResultOf(self.write("a"))
        self.node.fake.s3.faults.down = True
        self.node.fake.workloads.running[T].write("not durable")
        self.node.assign()
        self.node.run(1.0)
        self.assertEqual(len(self.node.fake.replication.registered), 1)
        self.node.fake.s3.faults.down = False
        self.node.assign(assignment(epoch=2))
        self.node.load()
        self.assertEqual(list(self.node.fake.replication.registered.values()), [(T, 2)])
        self.assertIn("a", self.node.fake.workloads.running[T].rows())

    def test_a_crowd_does_not_keep_a_tenant_from_ending(self) -> None:
        """However many wait for a tenant's next change, it is stopped and reported."""
        tenant = self.node.tenant()
        self.node.tenants.uses.opened(tenant)

        async def wait() -> None:
            while await tenant.changes.wait(60.0):
                pass

        for _ in range(MAX_HELD):
            spawn(wait(), "a waiter")
        self.node.assign()
        self.node.run(6.0)
        self.assertNotIn(T, self.node.fake.workloads.running)
        self.assertEqual(self.node.outcomes()[-1], ("released", 1))

    def test_older_list_is_refused(self) -> None:
        """A list older than the obeyed one changes nothing."""
        self.node.assign(assignment(), index=20)
        self.assertFalse(self.node.assign(index=19))
        self.assertIn(T, self.node.fake.workloads.running)

    def test_claim_refused_by_a_higher_epoch(self) -> None:
        """A claim that comes too late reports the epoch it saw."""
        late = NodeHarness(self.clock, self.s3, "node_c")
        self.other.assign(assignment(epoch=3))
        self.other.load()
        late.assign(assignment(epoch=2))
        self.failureResultOf(late.ready(), OwnershipLost)
        self.assertEqual(late.reports[-1].outcome, "refused")
        self.assertEqual(late.reports[-1].observed_epoch, 3)


class ResumeTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.node = NodeHarness(self.clock, self.s3, idle_stop_s=10.0)
        self.node.assign(assignment())
        self.node.load()
        self.successResultOf(self.write("a"))

    def restart(self, *, reboot: bool = False) -> NodeHarness:
        if reboot:
            self.node.fake.reboot()
        else:
            self.node.fake.die()
        again = NodeHarness(self.clock, self.s3, disk=self.node.fake.disk)
        again.assign(assignment())
        return again

    def test_idle_stop_and_wake(self) -> None:
        """An idle tenant stops, keeps its copy, and wakes without a restore or a new claim."""
        self.node.run(12)
        self.assertIs(self.node.tenant().state, State.ABSENT)
        self.assertEqual(self.node.outcomes()[-1], ("stopped", 1))
        self.assertEqual(self.node.fake.directories.locks, {})
        self.s3.requests.clear()
        self.successResultOf(self.node.ready())
        self.assertNotIn("owner.json", "".join(k for _, m, k in self.s3.requests if m == "PUT"))
        self.node.lease()
        self.assertTrue(self.node.tenant().proven(), "no wait: this process made the claim")

    def test_restart_resumes(self) -> None:
        """After a kill -9 the copy is resumed under its epoch, after a wait."""
        self.successResultOf(self.write("b"))
        again = self.restart()
        self.successResultOf(again.ready())
        self.assertEqual(again.fake.workloads.running[T].rows(), ["a", "b"])
        self.assertEqual(again.fake.disk.aside, [])
        again.lease()
        self.assertFalse(again.tenant().proven(), "the claim's age is unknown")
        self.assertIsNone(again.fake.workloads.started[0].superuser)

    def test_reverted_disk_is_set_aside(self) -> None:
        """A copy behind S3 is never replicated: it is set aside and a new epoch asked for."""
        image = self.node.fake.disk.image()
        self.successResultOf(self.write("b"))
        self.node.fake.disk.revert(image)
        again = self.restart()
        again.ready()
        self.assertEqual(again.outcomes(), [("refused", 1)])
        self.assertEqual(again.fake.workloads.started, [])
        self.assertEqual(len(again.fake.disk.aside), 1)
        self.assertEqual(self.s3.rows(T, 1), ["a", "b"])
        again.assign(assignment(epoch=2))
        again.load()
        self.assertEqual(again.fake.workloads.running[T].rows(), ["a", "b"])

    def test_vanished_database_is_not_started_empty(self) -> None:
        """A claim note without its database never becomes an empty tenant."""
        disk = self.node.fake.disk
        disk.databases.clear()
        disk.metadata.clear()
        for key in [key for key in self.s3.objects if key.endswith(".ltx")]:
            del self.s3.objects[key]
        again = self.restart()
        again.ready()
        self.assertEqual(again.outcomes(), [("refused", 1)])
        self.assertEqual(again.fake.workloads.started, [])

    def test_rebooted_machine_does_not_resume(self) -> None:
        """After a power failure nobody knows what the disk kept: a new epoch."""
        again = self.restart(reboot=True)
        waiting = again.ready()
        self.assertEqual(again.outcomes(), [("refused", 1)])
        self.assertNoResult(waiting)
        again.assign(assignment(epoch=2))
        self.successResultOf(waiting)
        self.assertEqual(again.fake.workloads.running[T].rows(), ["a"])

    def test_somebody_else_was_there(self) -> None:
        """A copy whose tenant was claimed elsewhere meanwhile is not resumed."""
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=2))
        other.load()
        again = self.restart()
        self.failureResultOf(again.ready(), OwnershipLost)
        self.assertEqual(again.reports[-1].observed_epoch, 2)

    def test_locked_directory_is_not_touched(self) -> None:
        """While an orphan holds the directory, nothing is started and nothing set aside."""
        self.node.run(12)
        lock = self.node.fake.directories.lock(T)
        self.failureResultOf(self.node.ready(), Unavailable)
        self.assertEqual(self.node.fake.disk.aside, [])
        lock.release()
        self.node.run(1.0)
        self.successResultOf(self.node.ready())

    def test_ready_is_written_after_a_crash_before_it(self) -> None:
        """A node that died between its first sync and READY resumes and writes READY then."""
        ready = [key for key in self.s3.objects if key.endswith("READY")]
        for key in ready:
            del self.s3.objects[key]
        again = self.restart()
        self.successResultOf(again.ready())
        self.assertIn(ready[0], self.s3.objects)


class ArrivalTests(Base):
    def assigned(self, epoch: int) -> Deferred[object]:
        return Deferred.fromCoroutine(self.node.tenants.arrivals.assigned(T, epoch))

    def test_gateway_knows_first(self) -> None:
        """A request that comes before its assignment waits a moment for it."""
        waiting = self.assigned(1)
        self.assertNoResult(waiting)
        self.node.assign(assignment())
        self.assertIs(self.successResultOf(waiting), self.node.tenant())

    def test_old_route_is_told_at_once(self) -> None:
        """A route to a tenant that was given away is answered without waiting, with its epoch."""
        self.node.assign(assignment(epoch=4))
        self.node.assign()
        error = self.failureResultOf(self.assigned(4), OwnershipLost).value
        self.assertEqual(error.data["epoch"], 5, "what is below is outdated")

    def test_newer_epoch_than_ours(self) -> None:
        """A node that is behind says so after a moment."""
        self.node.assign(assignment(epoch=4))
        waiting = self.assigned(5)
        self.node.run(1.1)
        self.failureResultOf(waiting, Loading)
