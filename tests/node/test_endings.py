"""Tenants that are archived, deleted and purged by a node, on fakes."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred

from pbcluster.node.claims import owner_key
from pbcluster.node.interfaces import Owner, OwnerState
from pbcluster.node.lifecycle import State
from tests.node.harness import NodeHarness, T, U, assignment
from tests.node.tenants_case import Base


class EndCase(Base):
    def setUp(self) -> None:
        super().setUp()
        self.node.assign(assignment())
        self.node.load()
        self.successResultOf(self.write("a"))

    def order(self, ending: str, epoch: int = 2, node: NodeHarness | None = None) -> None:
        (node or self.node).assign(assignment(epoch=epoch, ending=ending))

    def owner(self) -> Owner:
        return msgspec.json.decode(self.s3.objects[owner_key(T)].body, type=Owner)


class ArchiveTests(EndCase):
    def test_archive(self) -> None:
        """It is stopped with a last sync, claimed with the terminal state, its copy removed, and
        only then reported; activated, it is restored with all its rows."""
        self.node.fake.workloads.running[T].write("unacknowledged")
        self.order("archived")
        self.assertNotIn(T, self.node.fake.workloads.running)
        self.assertEqual(self.s3.rows(T, 1), ["a", "unacknowledged"])
        self.assertEqual((self.owner().state, self.owner().epoch), (OwnerState.ARCHIVED, 2))
        self.assertEqual(self.node.fake.directories.known(), ())
        self.assertEqual(self.node.fake.disk.aside, [])
        self.assertEqual(self.node.outcomes(), [("ready", 1), ("ended", 2)])
        self.assertIsNone(self.node.tenants.find(T))
        self.node.assign()
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=3))
        other.load()
        self.assertEqual(other.fake.workloads.running[T].rows(), ["a", "unacknowledged"])
        self.assertIs(self.owner().state, OwnerState.SERVING)

    def test_open_requests_finish_first(self) -> None:
        """As at every release; the claim waits for the stop."""
        tenant = self.node.tenant()
        self.node.tenants.uses.opened(tenant)
        self.order("archived")
        self.assertIn(T, self.node.fake.workloads.running)
        self.assertIs(self.owner().state, OwnerState.SERVING)
        self.node.tenants.uses.closed(tenant, stream=False)
        self.assertIs(self.owner().state, OwnerState.ARCHIVED)

    def test_s3_away(self) -> None:
        """Nothing is claimed, removed or reported before the last sync succeeded."""
        self.node.fake.workloads.running[T].write("late")
        self.node.fake.s3.faults.down = True
        self.order("archived")
        self.node.run(20.0)
        self.assertIn(T, self.node.fake.directories.known())
        self.assertEqual(self.node.outcomes()[1:], [("failed", 2)])
        self.node.fake.s3.faults.down = False
        self.node.run(16.0)
        self.assertEqual(self.s3.rows(T, 1), ["a", "late"])
        self.assertEqual(self.node.outcomes()[-1], ("ended", 2))
        self.assertEqual(self.node.fake.directories.known(), ())

    def test_lost_answer_of_the_claim(self) -> None:
        """The object is read again: our nonce is there."""
        self.node.fake.s3.faults.lose_answers = 1
        self.order("archived")
        self.node.run(1.0)
        self.assertEqual(self.node.outcomes()[-1], ("ended", 2))

    def test_node_starts_anew_in_the_middle(self) -> None:
        """It does the last sync that its former life could not do. If a claim was made and its
        report not sent, it asks for a new epoch and ends under that."""
        self.node.fake.workloads.running[T].write("late")
        self.node.fake.s3.faults.down = True
        self.order("archived")
        self.node.fake.die()
        again = NodeHarness(self.clock, self.s3, disk=self.node.fake.disk)
        self.order("archived", node=again)
        self.assertEqual(again.outcomes(), [("ended", 2)])
        self.assertEqual(self.s3.rows(T, 1), ["a", "late"])
        self.assertEqual((again.fake.disk.aside, again.fake.directories.known()), ([], ()))
        third = NodeHarness(self.clock, self.s3, disk=self.node.fake.disk)
        self.order("archived", node=third)
        self.assertEqual(third.outcomes(), [("refused", 2)])
        self.order("archived", epoch=3, node=third)
        self.assertEqual(third.outcomes()[-1], ("ended", 3))

    def test_copy_that_may_not_be_synced(self) -> None:
        """After the machine's start, or put back to an earlier state, a copy is no source: it is
        set aside, and nothing of it is written over what S3 has."""
        image = self.node.fake.disk.image()
        self.successResultOf(self.write("b"))
        self.node.fake.workloads.running[T].write("late")
        for revert in (False, True):
            with self.subTest(revert=revert):
                self.node.fake.die()
                self.node.fake.disk.boot += not revert
                if revert:
                    self.node.fake.disk.revert(image)
                    self.node.fake.directories.write_claim_note(T, self.owner())
                again = NodeHarness(self.clock, self.s3, disk=self.node.fake.disk)
                self.order("archived", epoch=2 + revert, node=again)
                self.assertEqual(again.outcomes()[-1], ("ended", 2 + revert))
                self.assertEqual(self.s3.rows(T, 1), ["a", "b"])
                self.assertEqual(len(self.node.fake.disk.aside), 1 + revert)

    def test_another_node_after_the_owner_died(self) -> None:
        """It has no copy; it claims, and what the dead one had acknowledged is in S3. The dead one
        that comes back acknowledges nothing."""
        other = NodeHarness(self.clock, self.s3, "node_b")
        self.order("archived", node=other)
        self.assertEqual(other.outcomes(), [("ended", 2)])
        self.assertEqual(other.fake.directories.known(), ())
        held = self.write("lost")
        self.node.run(0.1)
        self.failureResultOf(held)
        self.assertTrue(self.node.tenant().refused_by)

    def test_order_is_taken_away(self) -> None:
        """Nothing is claimed any more once the list does not name it."""
        self.node.fake.s3.faults.down = True
        self.order("archived")
        self.node.assign()
        self.node.fake.s3.faults.down = False
        self.node.run(20.0)
        self.assertIs(self.owner().state, OwnerState.SERVING)
        self.assertNotIn(("ended", 2), self.node.outcomes())

    def test_order_replaces_a_load(self) -> None:
        """A tenant that is being loaded is stopped first; requests are told the newer epoch."""
        self.node.assign()
        self.node.fake.workloads.start_delay_s = 2.0
        self.node.assign(assignment(epoch=3))
        waiting = self.node.ready()
        self.node.run(1.5)
        self.assertIs(self.node.tenant().state, State.STARTING)
        self.order("archived", epoch=4)
        self.failureResultOf(waiting)
        self.node.run(3.0)
        self.assertEqual(self.node.outcomes()[-1], ("ended", 4))

    def test_node_ends_in_the_middle(self) -> None:
        """Its end waits for no S3, and leaves no timer behind."""
        self.node.fake.s3.faults.down = True
        self.order("archived")
        ended = Deferred.fromCoroutine(self.node.tenants.stop(drain_s=0.0))
        self.successResultOf(ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DeleteTests(EndCase):
    def test_delete_and_purge(self) -> None:
        """The tombstone first, the copy, later every object but the tombstone; the id is refused
        for ever."""
        self.s3.write(f"tenants/{T}/storage/c/r/file.txt", b"x")
        self.order("deleted")
        self.assertIs(self.owner().state, OwnerState.DELETED)
        self.assertEqual(self.node.fake.directories.known(), ())
        self.assertGreater(len(self.s3.objects), 2)
        self.node.assign()
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=3, ending="purged"))
        other.run(1.0)
        self.assertEqual(list(self.s3.objects), [owner_key(T)])
        self.assertEqual(other.outcomes(), [("ended", 3)])
        other.assign(assignment(epoch=4, ever_ready=False))
        other.ready()
        other.run(1.0)
        self.assertEqual(other.outcomes()[-1], ("deleted", 4))

    def test_delete_of_what_is_deleted(self) -> None:
        """A repeated order finds the tombstone."""
        self.order("deleted")
        self.order("deleted", epoch=3)
        self.assertEqual(self.node.outcomes()[-1], ("ended", 3))
        self.assertEqual(self.owner().epoch, 2)

    def test_purge_needs_the_tombstone(self) -> None:
        """Objects of a tenant that S3 does not show as deleted are never removed."""
        before = dict(self.s3.objects)
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.assign(assignment(epoch=2, ending="purged"))
        other.run(5.0)
        self.assertEqual(self.s3.objects, before)
        self.assertEqual(other.outcomes(), [("failed", 2)])

    def test_purge_goes_on_elsewhere(self) -> None:
        """A purge that was cut off is finished by whoever is ordered next."""
        self.order("deleted")
        for number in range(1500):
            self.s3.write(f"tenants/{T}/storage/{number:05}", b"x")
        other = NodeHarness(self.clock, self.s3, "node_b")
        other.fake.s3.faults.lose_requests = 3
        other.assign(assignment(epoch=3, ending="purged"))
        other.run(5.0)
        self.assertEqual(list(self.s3.objects), [owner_key(T)])

    def test_a_last_sync_that_fails_holds_no_deletion_up(self) -> None:
        """Nothing of it is worth keeping."""
        self.node.fake.workloads.running[T].write("late")
        self.node.fake.replication.broken_syncs = 10
        self.order("deleted")
        self.assertEqual(self.node.outcomes()[-1], ("ended", 2))

    def test_others_go_on(self) -> None:
        """The neighbour is served all the while."""
        self.node.assign(assignment(epoch=2, ending="deleted"), assignment(U))
        self.node.load(U)
        self.assertIs(self.node.tenant(U).state, State.ACTIVE)
