"""Tenants of a node on fakes: crashes, S3 away, no room, the node's end."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from pbcluster.errors import Busy, Unavailable
from pbcluster.node.acks import Withheld
from pbcluster.node.durability import Reason
from pbcluster.node.lifecycle import State
from pbcluster.records import Durability
from tests.node.harness import NodeHarness, T, U, assignment
from tests.node.tenants_case import Base


class CrashTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.node.assign(assignment())
        self.node.load()

    def test_crash_restarts(self) -> None:
        """A PocketBase that ends by itself is started again; requests wait."""
        self.node.fake.workloads.running[T].end()
        waiting = self.node.ready()
        self.assertNoResult(waiting)
        self.node.run(0.2)
        self.successResultOf(waiting)

    def test_write_before_the_crash_is_acknowledged_only_when_durable(self) -> None:
        """A response that was held when PocketBase ended is released by the sync, not before."""
        self.node.fake.replication.sync_delay_s = 0.05
        held = self.write("a")
        self.node.fake.workloads.running[T].end()
        self.assertNoResult(held)
        self.node.run(0.2, step=0.05)
        self.successResultOf(held)
        self.assertEqual(self.s3.rows(T, 1), ["a"])

    def test_crash_loop(self) -> None:
        """Too many crashes give a 503 with the reason; nothing stays locked or registered."""
        for _ in range(6):
            self.node.fake.workloads.running[T].end("exit status 2: panic in a hook")
            self.node.run(4.0)
        self.assertIs(self.node.tenant().state, State.FAILED)
        self.assertIn("panic in a hook", self.node.tenant().life.cause)
        self.assertEqual(self.node.fake.directories.locks, {})
        self.assertEqual(self.node.fake.replication.registered, {})
        self.successResultOf(self.node.ready())

    def test_litestream_dies(self) -> None:
        """Without Litestream no write is acknowledged; it is started again and knows all."""
        self.node.fake.replication.lose()
        self.assertTrue(self.node.fake.replication.running)
        self.successResultOf(self.write("a"))
        self.assertEqual(self.s3.rows(T, 1), ["a"])


class DurabilityTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.node.assign(assignment())
        self.node.load()

    def test_ack_comes_after_the_upload(self) -> None:
        """At the moment of the acknowledgement the row is in S3 and the owner was looked at."""
        self.node.fake.s3.faults.delay_s = 0.1
        self.s3.requests.clear()
        held = self.write("a")
        self.node.run(0.1, step=0.05)
        self.assertNoResult(held)
        self.node.run(0.2, step=0.05)
        self.successResultOf(held)
        self.assertEqual(self.s3.rows(T, 1), ["a"])
        methods = [method for _, method, _ in self.s3.requests]
        self.assertEqual(methods, ["PUT", "GET"])

    def test_s3_away(self) -> None:
        """With S3 away a write is refused, and the next one works when it is back."""
        self.node.fake.s3.faults.down = True
        error = self.failureResultOf(self.write("a"), Withheld).value
        self.assertIs(error.reason, Reason.SYNC_FAILED)
        self.node.fake.s3.faults.down = False
        self.successResultOf(self.write("b"))

    def test_replaced_database(self) -> None:
        """A backup restored inside PocketBase is not acknowledged from: a new epoch is needed."""
        self.node.fake.workloads.running[T].replace_database([])
        error = self.failureResultOf(self.write("a"), Withheld).value
        self.assertIs(error.reason, Reason.DATABASE_REPLACED)
        self.assertEqual(self.node.outcomes()[-1], ("refused", 1))

    def test_replaced_before_the_first_sync(self) -> None:
        """A database that is replaced between two attempts of the first sync is not served under
        this epoch: a sync that succeeds then was of the former file. (The ownership simulator found
        a node that acknowledged writes that Litestream never saw.)"""
        self.node.assign(assignment(U))
        self.node.fake.replication.broken_syncs = 1
        self.node.ready(U)
        self.node.run(0.5)
        self.assertIs(self.node.tenant(U).state, State.SYNCING)
        self.node.fake.workloads.running[U].replace_database([])
        self.node.run(2.0)
        self.assertEqual(self.node.outcomes(U)[-1], ("refused", 1))
        self.assertNotIn(U, self.node.fake.workloads.running)
        self.assertIsNone(self.node.fake.directories.claim_note(U))  # nor resumed at a restart

    def test_replaced_before_the_first_sync_and_crashed(self) -> None:
        """Nor is it served if PocketBase, started again, is what finds the other file."""
        self.node.assign(assignment(U))
        self.node.fake.replication.broken_syncs = 1
        self.node.ready(U)
        self.node.run(0.5)
        workload = self.node.fake.workloads.running[U]
        workload.replace_database([])
        workload.end()
        self.node.run(3.0)
        self.assertEqual(self.node.outcomes(U)[-1], ("refused", 1))

    def test_litestream_dies_while_ready_is_written(self) -> None:
        """The new daemon learns of a database whose first sync the old one did, though its tenant
        is not active yet. (The ownership simulator found a tenant whose every write was withheld
        from then on.)"""
        self.node.assign(assignment(U))
        self.node.fake.s3.faults.delay_s = 0.4
        self.node.ready(U)
        while not any(U in key and "data.db" in key for key in self.s3.objects):
            self.node.run(0.1)
        self.node.run(0.3)
        self.assertIs(self.node.tenant(U).state, State.SYNCING)
        self.node.fake.replication.lose()
        self.node.run(3.0)
        self.node.fake.s3.faults.delay_s = 0.0
        self.node.fake.workloads.running[U].write("a")
        self.successResultOf(Deferred.fromCoroutine(self.node.tenant(U).replication.acknowledge()))
        self.assertEqual(self.s3.rows(U, 1), ["a"])

    def test_async_tenant(self) -> None:
        """An async tenant's write is acknowledged at once and synced within a second or so."""
        self.node.assign(assignment(U, durability=Durability.ASYNC))
        self.node.load(U)
        self.node.fake.workloads.running[U].write("a")
        tenant = self.node.tenant(U)
        self.successResultOf(Deferred.fromCoroutine(tenant.replication.acknowledge()))
        self.assertEqual(self.s3.rows(U, 1), [])
        self.node.run(2.1)
        self.assertEqual(self.s3.rows(U, 1), ["a"])


class RoomTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.node = NodeHarness(self.clock, self.s3, capacity=1)
        self.node.assign(assignment(T), assignment(U))
        self.node.load(T)

    def test_least_recently_used_makes_room(self) -> None:
        """The load of a second tenant stops the first, which keeps its copy."""
        self.successResultOf(self.node.ready(U))
        self.assertIs(self.node.tenant(T).state, State.ABSENT)
        self.assertEqual(self.node.outcomes(T)[-1], ("stopped", 1))
        self.successResultOf(self.node.ready(T))
        self.assertEqual(self.node.tenants.cache.evictions, 2)

    def test_open_request_is_never_evicted(self) -> None:
        """A tenant with an open request stays; the other one waits for room, then is told that
        there is none."""
        self.node.tenants.uses.opened(self.node.tenant(T))
        waiting = self.node.ready(U, within_s=3.0)
        self.node.run(2.0)
        self.assertNoResult(waiting)
        self.node.run(1.0)
        self.failureResultOf(waiting, Busy)
        self.assertIs(self.node.tenant(T).state, State.ACTIVE)

    def test_room_is_waited_for(self) -> None:
        """A request that finds no room is served as soon as there is some, not refused."""
        self.node.tenants.uses.opened(self.node.tenant(T))
        waiting = self.node.ready(U)
        self.node.run(1.0)
        self.node.tenants.uses.closed(self.node.tenant(T), stream=False)
        self.node.run(0.5)
        self.successResultOf(waiting)

    def test_what_was_given_away_takes_no_room(self) -> None:
        """A tenant that is finishing its requests here, given away already, keeps another one out
        no longer than that takes."""
        self.node.tenants.uses.opened(self.node.tenant(T))
        self.node.assign(assignment(U))
        waiting = self.node.ready(U)
        self.node.run(6.0)
        self.successResultOf(waiting)

    def test_fenced_tenant_is_no_victim(self) -> None:
        """A fenced tenant that is still being ended cannot be asked to make room; who needs it
        waits, and the node goes on."""
        self.node.fake.workloads.running[T].write("not durable")
        self.node.fake.replication.sync_delay_s = 2.0
        self.node.tenant(T).fence("ownership_lost", None)
        waiting = self.node.ready(U)
        self.node.run(1.0)
        self.assertNoResult(waiting)
        self.node.fake.replication.sync_delay_s = 0.0
        self.node.run(3.0)
        self.successResultOf(waiting)

    def test_failed_load_frees_its_place(self) -> None:
        """A tenant that cannot be loaded takes no room from others."""
        self.node.fake.workloads.fail_next("exit status 1")
        self.failureResultOf(self.node.ready(U), Unavailable)
        self.assertEqual(len(self.node.tenants.cache), 0)


class StopTests(Base):
    def test_node_stop(self) -> None:
        """A clean end syncs and stops everything and reports nothing: a restart resumes."""
        self.node.assign(assignment(T), assignment(U))
        self.node.load(T)
        self.node.load(U)
        self.node.fake.workloads.running[T].write("unacknowledged")
        reported = len(self.node.reports)
        stopped = Deferred.fromCoroutine(self.node.tenants.stop(drain_s=5.0))
        self.successResultOf(stopped)
        self.assertEqual(self.node.fake.workloads.running, {})
        self.assertEqual(self.s3.rows(T, 1), ["unacknowledged"])
        self.assertEqual(len(self.node.reports), reported)
        self.node.run(2.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_usage(self) -> None:
        """Each heartbeat tells the requests since the last one."""
        self.node.assign(assignment())
        self.node.load()
        self.node.tenants.uses.opened(self.node.tenant())
        (usage,) = self.node.tenants.usage()
        self.assertEqual((usage.state, usage.epoch, usage.request_count), ("active", 1, 1))
        (usage,) = self.node.tenants.usage()
        self.assertEqual(usage.request_count, 0)
