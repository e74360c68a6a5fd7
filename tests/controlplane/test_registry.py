"""The registry: what every command does, and what holds after any sequence of them."""

from datetime import UTC, datetime, timedelta
from unittest import mock

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import commands as c
from pbcluster.controlplane import outcomes
from pbcluster.controlplane.node_changes import MAX_STARTS
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.controlplane.registry_image import REST_AFTER
from pbcluster.records import (
    InitialSuperuser,
    NodeStatus,
    TenantQuotas,
    TenantRecord,
    TenantStatus,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
T1, T2 = "tenant_00000001", "tenant_00000002"


class Log:
    """A registry and the log that made it."""

    def __init__(self) -> None:
        self.registry = Registry("example.com")
        self.entries: list[c.Keyed] = []

    def __call__(self, command: c.AnyCommand, key: str = "") -> Applied:
        keyed = c.decode(c.encode(c.Keyed(key, command)))
        self.entries.append(keyed)
        return self.registry.apply(len(self.entries), keyed)

    def node(self, node_id: str = "node_a", start: str = "s1", capacity: int = 2) -> Applied:
        return self(c.RegisterNode(AT, node_id, start, f"http://{node_id}:1", capacity))

    def tenant(self, tenant_id: str = T1, name: str = "one") -> TenantRecord:
        self(c.CreateTenant(AT, tenant_id, name, f"{name}.example.com"))
        return self.registry.tenant(tenant_id)

    def assign(self, tenant_id: str = T1, node_id: str = "node_a", above: int = 0) -> Applied:
        epoch = self.registry.tenant(tenant_id).epoch
        return self(c.AssignTenant(AT, tenant_id, node_id, epoch, above))


def code(applied: Applied) -> str:
    return applied.outcome.error.code if applied.outcome.error else ""


class TestTenants(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()
        self.log.node()
        self.log.tenant()

    def test_a_taken_name_is_refused(self) -> None:
        """Two living tenants never have one name; the second gets a conflict that names it."""
        refused = self.log(c.CreateTenant(AT, T2, "one", "one.example.com"))
        self.assertEqual(code(refused), "conflict")
        self.assertEqual(self.log.registry.tenant("one").id, T1)

    def test_a_name_comes_back_but_an_id_never(self) -> None:
        """After a deletion the name is free, the id is not."""
        self.log(c.DeleteTenant(AT, T1))
        self.assertEqual(
            code(self.log(c.CreateTenant(AT, T1, "other", "other.example.com"))), "conflict"
        )
        self.assertEqual(code(self.log(c.CreateTenant(AT, T2, "one", "one.example.com"))), "")
        self.assertEqual(self.log.registry.tenant(T1).status, TenantStatus.DELETED)

    def test_a_creation_gives_it_its_first_node(self) -> None:
        """In the same entry: epoch 1, the node's list, and the route for gateways."""
        made = self.log(c.CreateTenant(AT, T2, "two", "two.example.com", node_id="node_a"))
        self.assertEqual((made.outcome.tenant_id, made.outcome.epoch), (T2, 1))
        self.assertEqual(made.changed_nodes, ("node_a",))
        assert made.broadcast is not None
        assert made.broadcast.route is not None
        self.assertEqual(made.broadcast.route.epoch, 1)
        (given,) = self.log.registry.assignments("node_a").assignments
        self.assertEqual((given.tenant_id, given.epoch), (T2, 1))
        self.assertEqual(self.log.registry.tenant(T2).version, made.outcome.index)

    def test_a_creation_whose_node_cannot_take_it(self) -> None:
        """Full, draining or unknown by then: it exists without a node, and is placed later."""
        self.log.node("node_b")
        self.log(c.DrainNode(AT, "node_b", wanted=True))
        self.log.node("node_c", capacity=1)
        for number, node_id in enumerate(("node_c", "node_c", "node_b", "node_x")):
            name = f"t{number}"
            made = self.log(
                c.CreateTenant(
                    AT, f"tenant_1000000{number}", name, f"{name}.example.com", node_id=node_id
                )
            )
            self.assertIsNone(made.outcome.error)
            tenant = self.log.registry.tenant(name)
            wanted = ("node_c", 1) if number == 0 else ("", 0)
            self.assertEqual((tenant.node_id, tenant.epoch), wanted)
            self.assertEqual(made.broadcast is None, number > 0)

    def test_a_new_epoch_exceeds_what_was_observed(self) -> None:
        """The next epoch is the larger of the known and the observed one, plus one."""
        self.assertEqual(self.log.assign(above=7).outcome.epoch, 8)
        self.assertEqual(self.log.assign(above=3).outcome.epoch, 9)

    def test_of_two_decisions_from_one_view_one_wins(self) -> None:
        """An assignment that expects an older epoch changes nothing."""
        self.log.assign()
        refused = self.log(c.AssignTenant(AT, T1, "node_a", 0))
        self.assertEqual(code(refused), "wrong_epoch")
        self.assertEqual(self.log.registry.tenant(T1).epoch, 1)

    def test_a_move_changes_both_lists_and_is_broadcast(self) -> None:
        """Loser and winner get a new list index, and the route is announced with its epoch."""
        self.log.node("node_b")
        self.log.assign()
        moved = self.log.assign(node_id="node_b")
        index = moved.outcome.index
        self.assertEqual(moved.changed_nodes, ("node_a", "node_b"))
        for node_id in moved.changed_nodes:
            self.assertEqual(self.log.registry.assignments(node_id).index, index)
        assert moved.broadcast is not None
        assert moved.broadcast.route is not None
        self.assertEqual(moved.broadcast.topic, "tenant.moved")
        self.assertEqual(moved.broadcast.route.epoch, 2)
        self.assertEqual(self.log.registry.assignments("node_a").assignments, ())

    def test_each_broadcast_names_the_one_before(self) -> None:
        """Broadcasts form a chain, so that a subscriber sees what it missed."""
        registry, previous = self.log.registry, self.log.registry.last_broadcast
        for _ in range(3):
            broadcast = self.log.assign().broadcast
            assert broadcast is not None
            self.assertEqual(broadcast.previous, previous)
            previous = broadcast.index
        self.assertEqual(registry.last_broadcast, previous)

    def test_readiness_drops_the_first_login(self) -> None:
        """When a tenant was ready once, its superuser's hash is kept nowhere."""
        login = InitialSuperuser(email="a@example.com", password_hash="$2b$10$secret")
        self.log(c.CreateTenant(AT, T2, "two", "two.example.com", initial_superuser=login))
        self.log.assign(T2)
        self.log(c.MarkReady(AT, T2, "node_a", 1))
        self.assertNotIn(b"$2b$10$secret", self.log.registry.to_bytes())
        self.assertTrue(self.log.registry.tenant(T2).ever_ready)

    def test_only_the_owner_of_the_epoch_can_be_ready(self) -> None:
        """A late word of a former owner changes nothing."""
        self.log.assign()
        self.log.assign()
        self.assertEqual(code(self.log(c.MarkReady(AT, T1, "node_a", 1))), "wrong_epoch")
        self.assertFalse(self.log.registry.tenant(T1).ever_ready)

    def test_a_released_tenant_has_no_node(self) -> None:
        """What its node released can be given away at once; the node's list shows that."""
        self.log.assign()
        released = self.log(c.TenantReleased(AT, T1, "node_a", 1))
        self.assertEqual(released.changed_nodes, ("node_a",))
        self.assertEqual(self.log.registry.tenant(T1).node_id, "")
        self.assertEqual(self.log.registry.count_of("node_a"), 0)
        self.assertEqual(code(self.log(c.TenantReleased(AT, T1, "node_a", 1))), "wrong_epoch")

    def test_a_deletion_has_two_steps(self) -> None:
        """A tenant on a node is deleting, its end ordered under a new epoch, until it is reported;
        the name is free at once."""
        self.log.assign()
        self.log(c.DeleteTenant(AT, T1))
        self.assertEqual(self.log.registry.tenant(T1).status, TenantStatus.DELETING)
        (order,) = self.log.registry.assignments("node_a").assignments
        self.assertEqual((order.tenant_id, order.epoch, order.ending), (T1, 2, "deleted"))
        self.assertEqual(code(self.log(c.CreateTenant(AT, T2, "one", "one.example.com"))), "")
        for late in (c.TenantEnded(AT, T1, "node_a", 1), c.TenantReleased(AT, T1, "node_a", 2)):
            self.assertEqual(code(self.log(late)), "wrong_epoch")
        self.log(c.TenantEnded(AT, T1, "node_a", 2))
        tenant = self.log.registry.tenant(T1)
        self.assertEqual((tenant.status, tenant.node_id), (TenantStatus.DELETED, ""))
        self.assertEqual(tenant.purge_at, AT + timedelta(days=7))
        self.assertEqual([t.id for t in self.log.registry.tenants()], [T2])

    def test_a_new_start_of_the_node_goes_on_with_an_end(self) -> None:
        """The order is in the list that it gets when it registers."""
        self.log.assign()
        self.log(c.DeleteTenant(AT, T1))
        self.log.node(start="s2")
        (order,) = self.log.registry.assignments("node_a").assignments
        self.assertEqual(order.ending, "deleted")

    def test_archive_and_activate(self) -> None:
        """The name stays taken; no route and no assignment until it is activated; then it is idle
        under an epoch above that of the archive."""
        self.log.assign()
        self.log(c.MarkReady(AT, T1, "node_a", 1))
        self.log(c.ArchiveTenant(AT, T1))
        self.assertEqual(self.log.registry.tenant(T1).status, TenantStatus.ARCHIVING)
        self.assertEqual(code(self.log(c.ActivateTenant(AT, T1))), "conflict")
        self.assertEqual(code(self.log(c.MarkReady(AT, T1, "node_a", 2))), "conflict")
        self.log(c.TenantEnded(AT, T1, "node_a", 2))
        self.assertEqual(self.log.registry.tenant("one").status, TenantStatus.ARCHIVED)
        self.assertEqual(self.log.registry.assignments("node_a").assignments, ())
        self.assertEqual(code(self.log(c.AssignTenant(AT, T1, "node_a", 2))), "conflict")
        taken = self.log(c.CreateTenant(AT, T2, "one", "one.example.com"))
        self.assertEqual(code(taken), "conflict")
        self.assertEqual(code(self.log(c.ArchiveTenant(AT, T1))), "")
        self.log(c.ActivateTenant(AT, T1))
        self.assertEqual(self.log.registry.tenant(T1).status, TenantStatus.IDLE)
        self.log(c.AssignTenant(AT, T1, "node_a", 2))
        self.assertEqual(self.log.registry.tenant(T1).epoch, 3)
        self.assertEqual(code(self.log(c.ActivateTenant(AT, T1))), "")

    def test_a_degraded_tenant_is_not_archived(self) -> None:
        """Its node has acknowledged writes that are not in S3."""
        self.log.assign()
        record = self.log.registry.tenant(T1)
        self.log.registry._put(msgspec.structs.replace(record, degraded=True))
        self.assertEqual(code(self.log(c.ArchiveTenant(AT, T1))), "conflict")

    def test_what_never_had_a_node_ends_at_once(self) -> None:
        """Nothing of it is in S3."""
        self.log(c.ArchiveTenant(AT, T1))
        self.assertEqual(self.log.registry.tenant(T1).status, TenantStatus.ARCHIVED)
        self.log(c.ActivateTenant(AT, T1))
        self.assertEqual(self.log.registry.tenant(T1).status, TenantStatus.CREATED)
        self.log(c.DeleteTenant(AT, T1))
        tenant = self.log.registry.tenant(T1)
        self.assertEqual((tenant.status, tenant.purged), (TenantStatus.DELETED, True))
        self.assertEqual(list(self.log.registry.to_end(AT + timedelta(days=99))), [])

    def test_a_repeated_deletion_brings_the_purge_nearer(self) -> None:
        """Never farther; and no assignment before that time."""
        self.log.assign()
        self.log(c.DeleteTenant(AT, T1, keep_s=100.0))
        self.log(c.TenantEnded(AT, T1, "node_a", 2))
        self.assertEqual(code(self.log(c.AssignTenant(AT, T1, "node_a", 2))), "conflict")
        self.log(c.DeleteTenant(AT, T1, keep_s=500.0))
        self.assertEqual(self.log.registry.tenant(T1).purge_at, AT + timedelta(seconds=100))
        self.log(c.DeleteTenant(AT, T1, keep_s=0.0))
        self.assertEqual([t.id for t in self.log.registry.to_end(AT)], [T1])
        self.assertEqual(code(self.log(c.AssignTenant(AT, T1, "node_a", 2))), "")

    def test_a_change_needs_the_version_it_was_made_from(self) -> None:
        """Of two changes made from one version, the second is refused with the newer version."""
        version = self.log.registry.tenant(T1).version
        quotas = TenantQuotas(burst=3)
        self.assertEqual(code(self.log(c.UpdateTenant(AT, T1, version, None, quotas))), "")
        again = self.log(c.UpdateTenant(AT, T1, version, {"a": 1}, None))
        self.assertEqual(code(again), "conflict")
        self.assertEqual(self.log.registry.tenant(T1).quotas, quotas)


class TestNodes(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()
        self.log.node()

    def test_one_start_has_one_incarnation(self) -> None:
        """The same start gets its incarnation again, a new one the next."""
        self.assertEqual(self.log.node().outcome.incarnation, 1)
        self.assertEqual(self.log.node(start="s2").outcome.incarnation, 2)

    def test_a_replaced_start_does_not_come_back(self) -> None:
        """An old process that wakes up is refused; else two would depose each other for ever."""
        self.log.node(start="s2")
        self.assertEqual(code(self.log.node(start="s1")), "wrong_epoch")
        self.assertEqual(self.log.registry.node("node_a").incarnation, 2)

    def test_former_starts_survive_a_snapshot(self) -> None:
        """A member restored from a snapshot refuses them too."""
        self.log.node(start="s2")
        restored = Registry.from_bytes("example.com", self.log.registry.to_bytes())
        again = c.Keyed("", c.RegisterNode(AT, "node_a", "s1", "http://a:1", 2))
        self.assertEqual(code(restored.apply(restored.applied_index + 1, again)), "wrong_epoch")

    def test_the_memory_of_starts_is_bounded(self) -> None:
        """Only the newest starts are kept."""
        for number in range(3 * MAX_STARTS):
            self.log.node(start=f"n{number}")
        kept = self.log.registry._starts["node_a"]
        self.assertEqual(len(kept), MAX_STARTS)
        self.assertNotIn("s1", kept)

    def test_a_full_node_takes_nothing_more(self) -> None:
        """Over capacity an assignment fails, whatever the proposer believed."""
        for number in range(3):
            self.log.tenant(f"tenant_1000000{number}", f"n{number}")
        self.log.assign("tenant_10000000")
        self.log.assign("tenant_10000001")
        self.assertEqual(code(self.log.assign("tenant_10000002")), "no_capacity")
        self.assertEqual(code(self.log.assign("tenant_10000000")), "", "its own place is its own")

    def test_nothing_goes_to_a_node_that_drains_or_is_down(self) -> None:
        """Whatever the proposer believed."""
        self.log.tenant()
        for status in (NodeStatus.DRAINING, NodeStatus.DOWN):
            self.log(c.SetNodeStatus(AT, "node_a", 1, status))
            self.assertEqual(code(self.log.assign()), "no_capacity")

    def test_the_word_of_an_older_incarnation_is_refused(self) -> None:
        """Status and capacity are of the incarnation that was meant."""
        self.log.node(start="s2")
        stale = self.log(c.SetNodeStatus(AT, "node_a", 1, NodeStatus.DOWN))
        self.assertEqual(code(stale), "wrong_epoch")
        self.assertEqual(code(self.log(c.SetNodeCapacity(AT, "node_a", 1, 9))), "wrong_epoch")


class TestRepetition(SynchronousTestCase):
    def test_a_repeated_key_gives_the_first_outcome(self) -> None:
        """A repetition changes nothing, tells nobody, and answers as the first did."""
        log = Log()
        first = log(c.RegisterNode(AT, "node_a", "s1", "http://a:1", 2), "k")
        again = log(c.RegisterNode(AT, "node_a", "s9", "http://a:2", 2), "k")
        self.assertEqual(again.outcome, first.outcome)
        self.assertTrue(again.repeated)
        self.assertEqual((again.broadcast, again.changed_nodes), (None, ()))
        self.assertEqual(log.registry.node("node_a").start_id, "s1")

    def test_errors_are_remembered_too(self) -> None:
        """What was refused stays refused for its repetitions, even if it could be done now."""
        log = Log()
        create = c.CreateTenant(AT, T1, "one", "one.example.com")
        log(create)
        refused = log(c.CreateTenant(AT, T2, "one", "one.example.com"), "k")
        log(c.DeleteTenant(AT, T1))
        self.assertEqual(log(create, "k").outcome, refused.outcome)

    def test_a_forgotten_repetition_is_refused(self) -> None:
        """Its outcome is gone, so it is neither guessed nor done again; a snapshot knows it too."""
        log = Log()
        with mock.patch.object(outcomes, "MAX_OUTCOMES", 3):
            for number in range(5):
                log(c.RegisterNode(AT, "node_a", f"s{number}", "http://a:1", 2), f"k{number}")
            before = log.registry.node("node_a")
            log.registry = Registry.from_bytes("example.com", log.registry.to_bytes())
            for key in ("k0", "k1"):
                again = log(c.RegisterNode(AT, "node_a", "s9", "http://a:1", 2), key)
                assert again.outcome.error is not None
                self.assertEqual(again.outcome.error.code, "session_expired")
                self.assertTrue(again.repeated)
            self.assertEqual(log.registry.node("node_a"), before)
            again = log(c.RegisterNode(AT, "node_a", "s9", "http://a:1", 2), "k2")
            self.assertEqual(again.outcome.incarnation, 3)

    def test_an_index_is_applied_once_and_in_order(self) -> None:
        """A gap or a repetition of an index is a fault of the log and does not pass."""
        log = Log()
        log.node()
        keyed = c.Keyed("", c.RegisterNode(AT, "node_a", "s1", "http://a:1", 2))
        for index in (1, 3):
            self.assertRaises(AssertionError, log.registry.apply, index, keyed)


IDS = st.sampled_from([f"tenant_0000000{n}" for n in range(4)])
NODES = st.sampled_from(["node_a", "node_b", "node_c"])
SMALL = st.integers(0, 5)
ATS = st.integers(0, 99).map(lambda s: AT + timedelta(seconds=s))
COMMANDS = st.one_of(
    st.builds(
        lambda at, t, n, node: c.CreateTenant(at, t, n, f"{n}.example.com", node_id=node),
        ATS,
        IDS,
        st.sampled_from(["one", "two", "three"]),
        st.one_of(st.just(""), NODES),
    ),
    st.builds(c.AssignTenant, ATS, IDS, NODES, SMALL, SMALL),
    st.builds(c.MarkReady, ATS, IDS, NODES, SMALL),
    st.builds(
        c.SetTenantStatus,
        ATS,
        IDS,
        SMALL,
        st.sampled_from([TenantStatus.ACTIVE, TenantStatus.IDLE]),
    ),
    st.builds(c.DeleteTenant, ATS, IDS, st.just(0), st.sampled_from([0.0, 50.0])),
    st.builds(c.ArchiveTenant, ATS, IDS),
    st.builds(c.ActivateTenant, ATS, IDS),
    st.builds(c.TenantEnded, ATS, IDS, NODES, SMALL),
    st.builds(c.TenantReleased, ATS, IDS, NODES, SMALL),
    st.builds(
        c.RegisterNode,
        ATS,
        NODES,
        st.sampled_from(["s1", "s2", "s3"]),
        st.just("http://n:1"),
        st.integers(1, 2),
    ),
    st.builds(c.SetNodeStatus, ATS, NODES, SMALL, st.sampled_from(NodeStatus)),
    st.builds(c.UpdateTenant, ATS, IDS, SMALL, st.just({"a": 1}), st.none()),
)
LOGS = st.lists(st.tuples(COMMANDS, st.sampled_from(["", "", "k1", "k2"])), max_size=40)
LIVING = (TenantStatus.CREATED, TenantStatus.ACTIVE, TenantStatus.IDLE)


class TestInvariants(SynchronousTestCase):
    def check(self, log: Log, before: dict[str, TenantRecord], capacity: dict[str, int]) -> None:
        registry = log.registry
        everything = list(registry._tenants.values())
        names = [t.name for t in everything if t.status in LIVING]
        self.assertEqual(len(names), len(set(names)))
        for name in names:
            self.assertEqual(registry.tenant(name).name, name)
        for tenant in everything:
            old = before.get(tenant.id)
            if old is not None:
                self.assertGreaterEqual(tenant.epoch, old.epoch)
                if tenant.node_id and tenant.node_id != old.node_id:
                    self.assertGreater(tenant.epoch, old.epoch)
                if old.status is TenantStatus.DELETED:
                    self.assertIs(tenant.status, TenantStatus.DELETED)
                    self.assertGreaterEqual(tenant.purged, old.purged)
        self.assertLessEqual(set(before), {t.id for t in everything})
        for node in registry.nodes():
            having = {t.id for t in everything if t.node_id == node.id}
            self.assertEqual(registry.tenants_of(node.id), having)
            living = [t for t in having if registry.tenant(t).status in LIVING]
            self.assertLessEqual(len(living), max(capacity[node.id], node.capacity))

    @settings(max_examples=150, deadline=None)
    @given(LOGS)
    def test_invariants(self, steps: list[tuple[c.AnyCommand, str]]) -> None:
        """After any log: epochs grow, one owner, unique names, tombstones stay, none over bound;
        each list is what one read from a snapshot would be."""
        log = Log()
        capacity: dict[str, int] = {}
        for command, key in steps:
            before = dict(log.registry._tenants)
            lists = {n.id: log.registry.assignments(n.id) for n in log.registry.nodes()}
            log(command, key)
            for node in log.registry.nodes():
                capacity[node.id] = max(capacity.get(node.id, 0), node.capacity)
            self.check(log, before, capacity)
            again = Registry.from_bytes("example.com", log.registry.to_bytes())
            for node_id, old in lists.items():
                new = log.registry.assignments(node_id)
                self.assertEqual(new, again.assignments(node_id))
                owned = [(a.tenant_id, a.epoch) for a in new.assignments]
                if owned != [(a.tenant_id, a.epoch) for a in old.assignments]:
                    self.assertEqual(new.index, log.registry.applied_index)

    def test_who_encodes_an_image_lets_others_go_before(self) -> None:
        """After some records each, and what comes of it is the same."""
        log = Log()
        counted = []
        for number in range(4 * REST_AFTER):
            log(c.CreateTenant(AT, f"t{number}", f"n{number}", f"n{number}.x"), f"key-{number}")
            if number + 1 in (REST_AFTER, 4 * REST_AFTER):
                rested: list[int] = []
                image = log.registry.image().to_bytes(lambda each=rested: each.append(1))
                self.assertEqual(image, log.registry.to_bytes())
                counted.append(len(rested))
        self.assertGreaterEqual(counted[1] - counted[0], 3)

    @settings(max_examples=100, deadline=None)
    @given(LOGS, st.integers(0, 40))
    def test_snapshot_and_tail_equal_the_whole_log(
        self, steps: list[tuple[c.AnyCommand, str]], cut: int
    ) -> None:
        """A registry from a snapshot and the rest of the log is the one of the whole log."""
        log = Log()
        snapshot = log.registry.to_bytes()
        for number, (command, key) in enumerate(steps):
            if number == cut:
                snapshot = log.registry.to_bytes()
            log(command, key)
        restored = Registry.from_bytes("example.com", snapshot)
        for index, keyed in enumerate(log.entries[restored.applied_index :]):
            restored.apply(restored.applied_index + 1, keyed)
            self.assertLess(index, len(steps))
        self.assertEqual(restored.to_bytes(), log.registry.to_bytes())
        for node in log.registry.nodes():
            self.assertEqual(restored.assignments(node.id), log.registry.assignments(node.id))

    def test_junk_is_no_snapshot(self) -> None:
        """Bytes that are no snapshot are refused as such."""
        self.assertRaises(msgspec.DecodeError, Registry.from_bytes, "example.com", b"junk")
