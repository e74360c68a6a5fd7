"""The store and the consensus of one, on a real LMDB."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lmdb
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import commands as c
from pbcluster.controlplane import single as single_module
from pbcluster.controlplane.registry import Applied, Outcome, Registry
from pbcluster.controlplane.single import SingleMember
from pbcluster.controlplane.store import Batch, Entry, LogStore, StoredSnapshot
from pbcluster.errors import Busy, ConfigError, NotLeader, StorageCorrupt, Unavailable

AT = datetime(2026, 1, 1, tzinfo=UTC)
WAIT_S = 20.0


def entry(index: int, data: bytes = b"x") -> Entry:
    return Entry(index, 1, data)


class StoreCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    def open(self, cluster: str = "c1", **more: Any) -> LogStore:
        store = LogStore(self.directory, cluster, **more)
        self.addCleanup(store.close)
        return store

    def write(self, store: LogStore, *batches: Batch) -> list[BaseException | None]:
        """Submit all, wait for all."""
        done = threading.Event()
        results: list[BaseException | None] = []

        def written(error: BaseException | None) -> None:
            results.append(error)
            if len(results) == len(batches):
                done.set()

        for batch in batches:
            store.submit(batch, written)
        if store._thread is None:
            store.start()
        self.assertTrue(done.wait(WAIT_S))
        return results

    def spoil(self, table: bytes, key: bytes, change: Any) -> None:
        env = lmdb.open(str(self.directory), max_dbs=3)
        with env.begin(write=True) as transaction:
            where = env.open_db(table, transaction)
            value = change(transaction.get(key, db=where))
            if value is None:
                transaction.delete(key, db=where)
            else:
                transaction.put(key, value, db=where)
        env.close()


class TestLogStore(StoreCase):
    def test_what_was_written_is_found_again(self) -> None:
        """Entries and the snapshot, with index and term, in order."""
        store = self.open()
        batches = [Batch((Entry(n, n // 3 + 1, b"%d" % n),)) for n in range(1, 300)]
        self.assertEqual(set(self.write(store, *batches)), {None})
        store.close()
        found = self.open().recover()
        self.assertEqual(found.entries, tuple(b.entries[0] for b in batches))

    def test_a_snapshot_replaces_the_entries_before_it(self) -> None:
        """The log ends at the snapshot's index; what follows stays."""
        store = self.open()
        snapshot = StoredSnapshot(2, 1, b"state")
        self.write(store, Batch((entry(1), entry(2), entry(3))), Batch(snapshot=snapshot))
        found = store.recover()
        self.assertEqual((found.snapshot, found.entries), (snapshot, (entry(3),)))
        with store._env.begin(db=store._log) as transaction:
            self.assertEqual(transaction.stat()["entries"], 1)

    def test_waiting_batches_share_a_transaction(self) -> None:
        """What came while the disk was busy is one commit."""
        store = self.open()
        before = store._env.info()["last_txnid"]
        self.write(store, *[Batch((entry(n),)) for n in range(1, 101)])
        self.assertEqual(store._env.info()["last_txnid"], before + 1)

    def test_damage_is_named(self) -> None:
        """A flipped bit, a cut entry, a missing one and a damaged snapshot are each refused."""

        def flip(value: bytes) -> bytes:
            return value[:-1] + bytes([value[-1] ^ 1])

        third = (3).to_bytes(8, "big")
        cases: list[tuple[bytes, bytes, Any, str]] = [
            (b"log", third, flip, "log entry 3 fails its checksum"),
            (b"log", third, lambda value: value[:5], "log entry 3 is cut short"),
            (b"log", third, lambda value: None, "log entry 3 is missing"),
            (b"snapshots", b"latest", flip, "snapshot at index 1 fails"),
            (b"snapshots", b"latest", lambda value: b"x", "snapshot is cut short"),
        ]
        for table, key, change, told in cases:
            self.directory = Path(self.mktemp())
            store = self.open()
            self.write(
                store,
                Batch(tuple(entry(n) for n in range(1, 5))),
                Batch(snapshot=StoredSnapshot(1, 1, b"state")),
            )
            store.close()
            self.spoil(table, key, change)
            store = self.open()
            self.assertIn(told, str(self.assertRaises(StorageCorrupt, store.recover)))

    def test_an_entry_moved_to_another_index_is_damage(self) -> None:
        """The checksum covers the index."""
        store = self.open()
        self.write(store, Batch((entry(1), entry(2))))
        with store._env.begin(db=store._log) as transaction:
            first = transaction.get((1).to_bytes(8, "big"))
        store.close()
        self.spoil(b"log", (2).to_bytes(8, "big"), lambda value: first)
        self.assertRaises(StorageCorrupt, self.open().recover)

    def test_another_cluster_is_refused(self) -> None:
        """A member started with the wrong directory says so, and leaves it usable."""
        self.open("c1").close()
        error = self.assertRaises(ConfigError, LogStore, self.directory, "c2")
        self.assertIn("cluster_id 'c1'", str(error))
        self.open("c1")

    def test_a_second_process_is_refused(self) -> None:
        """Two writers of one log would undo each other."""
        store = self.open()
        error = self.assertRaises(ConfigError, LogStore, self.directory, "c1")
        self.assertIn("in use", str(error))
        store.close()
        self.open()

    def test_after_a_failed_write_nothing_is_written(self) -> None:
        """What was queued behind it fails too: else the log would get a hole."""
        store = self.open(map_bytes=256 * 1024)
        self.assertIsInstance(self.write(store, Batch((entry(1, b"x" * 2**20),)))[0], lmdb.Error)
        self.assertIsInstance(self.write(store, Batch((entry(2),)))[0], lmdb.Error)
        self.assertEqual(store.recover().entries, ())

    def test_a_full_map_is_seen_before_it_fails(self) -> None:
        """At 80 % of the map it says so, while writes still work."""
        store = self.open(map_bytes=1024 * 1024)
        index = 0
        while not store.nearly_full():
            index += 1
            self.assertEqual(self.write(store, Batch((entry(index, b"x" * 20000),))), [None])
        self.assertLess(index, 60)
        self.assertEqual(len(store.recover().entries), index)


class Gate:
    """``callFromThread`` that runs when the test says so, in the test's thread."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.came = threading.Condition()

    def callFromThread(self, call: Any, *args: Any) -> None:
        with self.came:
            self.calls.append((call, args))
            self.came.notify()

    def run(self, number: int = 1) -> None:
        for _ in range(number):
            with self.came:
                assert self.came.wait_for(lambda: self.calls, WAIT_S)
                call, args = self.calls.pop(0)
            call(*args)


def node(number: int = 1) -> c.RegisterNode:
    return c.RegisterNode(AT, f"node_{number}", "s", "http://n:1", 5)


class TestSingleMember(StoreCase):
    def start(self, **more: Any) -> SingleMember:
        self.gate, self.failures, self.applied = Gate(), list[str](), list[Applied]()
        self.store = self.open(**{k: v for k, v in more.items() if k == "map_bytes"})
        member = SingleMember(
            self.gate,
            self.store,
            "example.com",
            lambda: "tcp://here",
            self.failures.append,
            snapshot_every=more.get("snapshot_every", 10_000),
        )
        self.successResultOf(Deferred.fromCoroutine(member.start()))
        member.subscribe(self.applied.append)
        return member

    def propose(self, member: SingleMember, command: Any, key: str = "") -> Deferred[Outcome]:
        return Deferred.fromCoroutine(member.propose(command, key))

    def restart(self, member: SingleMember, **more: Any) -> SingleMember:
        self.successResultOf(Deferred.fromCoroutine(member.stop()))
        return self.start(**more)

    def test_nothing_is_applied_before_it_is_durable(self) -> None:
        """The answer and the change come after the write, not before."""
        member = self.start()
        asked = self.propose(member, node())
        self.assertNoResult(asked)
        self.assertEqual(member.registry.applied_index, 0)
        self.gate.run()
        self.assertEqual(self.successResultOf(asked).index, 1)
        self.assertEqual(len(self.applied), 1)

    def test_a_restart_finds_everything(self) -> None:
        """State, index and the memory of keys; and nothing is told to subscribers again."""
        member = self.start()
        asked = [self.propose(member, node(n), f"k{n}") for n in range(5)]
        self.gate.run(5)
        state = member.registry.to_bytes()
        self.assertEqual([self.successResultOf(each).index for each in asked], [1, 2, 3, 4, 5])
        member = self.restart(member)
        self.assertEqual(member.registry.to_bytes(), state)
        self.assertEqual(self.applied, [])
        again = self.propose(member, node(9), "k3")
        self.gate.run()
        self.assertEqual(self.successResultOf(again).index, 4)

    def test_the_log_is_bounded_by_snapshots(self) -> None:
        """Even while proposals never cease to wait."""
        member = self.start(snapshot_every=10)
        asked = [self.propose(member, node(n)) for n in range(100)]
        self.gate.run(100)
        for each in asked:
            self.successResultOf(each)
        state = member.registry.to_bytes()
        member = self.restart(member, snapshot_every=10)
        self.assertEqual(member.registry.to_bytes(), state)
        self.assertLessEqual(len(self.store.recover().entries), 10)

    def test_a_refused_command_is_an_error_and_a_full_entry(self) -> None:
        """Its proposer gets the registry's error; the log goes on."""
        member = self.start()
        asked = self.propose(member, c.DeleteTenant(AT, "tenant_unknown1"))
        self.gate.run()
        self.assertEqual(self.failureResultOf(asked).value.code, "not_found")
        after = self.propose(member, node())
        self.gate.run()
        self.assertEqual(self.successResultOf(after).index, 2)

    def test_what_cannot_be_encoded_takes_no_index(self) -> None:
        """A value beyond 64 bits fails by itself and leaves the log whole."""
        member = self.start()
        huge = c.SetNodeCapacity(AT, "node_1", 1, 2**70)
        self.failureResultOf(self.propose(member, huge), OverflowError)
        after = self.propose(member, node())
        self.gate.run()
        self.assertEqual(self.successResultOf(after).index, 1)

    def test_a_failing_subscriber_does_not_hide_the_outcome(self) -> None:
        """What is committed is answered."""
        member = self.start()

        def fail(applied: Applied) -> None:
            raise RuntimeError("subscriber")

        member.subscribe(fail)
        asked = self.propose(member, node())
        self.gate.run()
        self.assertEqual(self.successResultOf(asked).index, 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_asker_that_goes_away_changes_nothing(self) -> None:
        """The command is committed all the same, and the log goes on."""
        member = self.start()
        asked = self.propose(member, node())
        asked.cancel()
        self.failureResultOf(asked)
        self.gate.run()
        self.assertEqual(member.registry.applied_index, 1)

    def test_a_failed_write_ends_the_member_once(self) -> None:
        """All who wait are told, none of it is applied, and proposals are refused from then on."""
        member = self.start(map_bytes=256 * 1024)
        big = c.CreateTenant(AT, "tenant_00000001", "a", "a.b", metadata={"x": "y" * 2**20})
        asked = [self.propose(member, big), self.propose(member, node())]
        self.gate.run(2)
        for each in asked:
            self.failureResultOf(each, Unavailable)
        self.assertEqual(len(self.failures), 1)
        self.assertEqual(member.registry.applied_index, 0)
        self.assertFalse(member.is_leader)
        self.failureResultOf(self.propose(member, node()), NotLeader)
        self.failureResultOf(Deferred.fromCoroutine(member.read_barrier()), NotLeader)

    def test_a_nearly_full_store_refuses_changes_only(self) -> None:
        """Busy, before anything is written; reads go on."""
        member = self.start()
        self.patch(self.store, "nearly_full", lambda: True)
        self.failureResultOf(self.propose(member, node()), Busy)
        self.successResultOf(Deferred.fromCoroutine(member.read_barrier()))

    def test_too_many_waiting_proposals_are_refused(self) -> None:
        """The bound is a refusal, not a queue."""
        member = self.start()
        self.patch(single_module, "MAX_PENDING", 2)
        waiting = [self.propose(member, node(n)) for n in range(2)]
        self.failureResultOf(self.propose(member, node(3)), Busy)
        self.gate.run(2)
        for each in waiting:
            self.successResultOf(each)

    def test_a_command_that_cannot_be_read_is_corruption(self) -> None:
        """An entry with a good checksum but no command in it stops the start."""
        store = self.open()
        self.write(store, Batch((entry(1, b"junk"),)))
        store.close()
        store = self.open()
        member = SingleMember(Gate(), store, "example.com", str, self.fail)
        self.failureResultOf(Deferred.fromCoroutine(member.start()), StorageCorrupt)
        self.assertIsInstance(member.registry, Registry)
