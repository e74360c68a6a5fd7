"""Several members agree, whatever happens to one of them: driver, core and real LMDB."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.beginning import genesis
from pbcluster.errors import (
    Busy,
    ConfigError,
    Conflict,
    DeadlineExceeded,
    NotLeader,
    PBClusterError,
    Unavailable,
)
from pbcluster.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    SnapshotChunk,
    VoteReply,
)
from tests.controlplane.raft_world import RaftWorld, create


class WorldCase(SynchronousTestCase):
    def world(self, count: int = 3, **more: Any) -> RaftWorld:
        world = RaftWorld(Path(self.mktemp()), count, **more)
        self.addCleanup(world.close)
        world.start()
        return world

    def refused(self, kind: type[PBClusterError], deferred: Deferred[Any]) -> Any:
        return self.failureResultOf(deferred, kind).value


class Agreement(WorldCase):
    def test_a_leader_within_a_second(self) -> None:
        """Three new members have one leader within a second and know who it is."""
        world = self.world()
        world.until(lambda: any(m.is_leader for m in world.members.values()), within_s=1.0)
        leader = world.leader()
        world.run(0.1)
        self.assertEqual({m.leader_endpoint for m in world.members.values()}, {leader})
        world.run(3.0)
        self.assertEqual(world.leaderships, [(leader, True)])

    def test_a_command_reaches_all(self) -> None:
        """What the leader acknowledged is in each registry, the same to the byte."""
        world = self.world()
        outcome = world.create("a")
        self.assertEqual(outcome.tenant_id, "tenant_a")
        world.agree()
        self.assertEqual(world.names("m1"), {"a"})

    def test_one_member_alone(self) -> None:
        """A group of one works too."""
        world = self.world(1)
        world.create("a")
        world.kill("m1")
        world.start("m1")
        world.leader()
        self.assertEqual(world.names("m1"), {"a"})

    def test_a_follower_names_the_leader(self) -> None:
        """A proposal elsewhere is refused with the leader's id and does nothing."""
        world = self.world()
        follower = world.followers()[0]
        world.run(0.1)
        error = self.refused(NotLeader, world.propose(follower, create("a")))
        self.assertEqual(error.data["leader"], world.leader())

    def test_a_refusal_of_the_registry(self) -> None:
        """What the registry refuses is raised, and the log goes on."""
        world = self.world()
        world.create("a")
        with self.assertRaisesRegex(Conflict, "is taken"):
            world.create("a")
        world.create("b")
        world.agree()

    def test_many_at_once_share_writes(self) -> None:
        """A hundred proposals of one turn cost a few fsyncs, and each has its own outcome."""
        world = self.world()
        leader = world.leader()
        before = world.stores[leader].writes
        answers = [world.propose(leader, create(f"t{n}")) for n in range(100)]
        outcomes = {world.wait(answer).tenant_id for answer in answers}
        self.assertEqual(len(outcomes), 100)
        self.assertLess(world.stores[leader].writes - before, 5)

    def test_the_same_key_runs_once(self) -> None:
        """A repetition with the same key gives the first outcome, at another leader too."""
        world = self.world()
        first = world.create("a", "key")
        world.kill(world.leader())
        self.assertEqual(world.create("b", "key"), first)
        self.assertEqual(world.names(world.leader()), {"a"})


class Failures(WorldCase):
    def test_the_leader_dies(self) -> None:
        """Within a second the others go on with all that was acknowledged; the dead one returns
        and catches up."""
        world = self.world()
        for n in range(20):
            world.create(f"t{n}")
        dead = world.leader()
        world.kill(dead)
        began = world.clock.seconds()
        world.create("after")
        self.assertLess(world.clock.seconds() - began, 1.0)
        self.assertEqual(len(world.names(world.leader())), 21)
        world.start(dead)
        world.agree()
        self.assertEqual(len(world.names(dead)), 21)

    def test_all_die(self) -> None:
        """After a failure of all members everything acknowledged is there."""
        world = self.world()
        for n in range(5):
            world.create(f"t{n}")
        for member in world.ids:
            world.kill(member)
        world.start()
        world.leader()
        world.agree()
        self.assertEqual(world.names("m1"), {f"t{n}" for n in range(5)})

    def test_a_minority_acknowledges_nothing(self) -> None:
        """A leader cut off answers "unknown" within a second and leads no more; its proposal is
        gone when it is back, and the others' is there."""
        world = self.world()
        old = world.leader()
        world.isolate(old)
        lost = world.propose(old, create("lost"))
        world.run(1.0)
        self.refused(DeadlineExceeded, lost)
        self.assertFalse(world.members[old].is_leader)
        self.assertIn((old, False), world.leaderships)
        world.until(lambda: any(m.is_leader for m in world.members.values()))
        world.create("kept")
        world.heal()
        world.agree()
        self.assertEqual(world.names(old), {"kept"})

    def test_a_replaced_proposal_was_not_done(self) -> None:
        """One that waits while its entry is replaced hears that it is not done, not a stranger's
        outcome."""
        world = self.world()
        leader = world.leader()
        world.create("a")
        member = world.members[leader]
        waiting = world.propose(leader, create("b"))
        waits = member._proposals._pending
        ((index, pending),) = waits.items()
        # As if it had been proposed under an older term.
        waits[index] = type(pending)(pending.term - 1, pending.answer, pending.deadline)
        world.run(0.1)
        self.refused(NotLeader, waiting)

    def test_a_failed_fsync_ends_the_member(self) -> None:
        """It says why once, acknowledges nothing, sends nothing more; the others go on."""
        world = self.world()
        leader = world.leader()
        world.stores[leader].broken = "input/output error"
        waiting = world.propose(leader, create("a"))
        world.run(0.05)
        self.assertIn("input/output error", world.failures[leader])
        self.refused(DeadlineExceeded, waiting)
        sent = len(world.networks[leader].sent)
        world.run(1.0)
        self.assertEqual(len(world.networks[leader].sent), sent)
        self.assertFalse(world.members[leader].is_leader)
        world.create("b")

    def test_slow_disks_and_floods_cause_no_election(self) -> None:
        """With fsyncs of 50 ms everywhere, and a thousand commands at once, the leader stays."""
        world = self.world()
        leader = world.leader()
        status = world.members[leader].status()
        assert status is not None
        for store in world.stores.values():
            store.fsync_s = 0.05
        answers = [world.propose(leader, create(f"t{n}")) for n in range(1000)]
        for answer in answers:
            world.wait(answer)
        world.run(2.0)
        after = world.members[leader].status()
        assert after is not None
        self.assertEqual((after.term, after.role), (status.term, status.role))

    def test_no_acknowledgement_before_the_fsync(self) -> None:
        """While a follower's disk is slow it acknowledges no entry, and while the voters' disks are
        slow there is no vote and no leader; each is said when the fsync returned."""
        world = self.world()
        leader, followers = world.leader(), world.followers()
        world.run(0.1)
        for member in followers:
            world.stores[member].fsync_s = 0.1
            world.networks[member].sent.clear()
        waiting = world.propose(leader, create("a"))
        world.run(0.08)
        index = next(iter(world.members[leader]._proposals._pending))

        def acknowledged(member: str) -> bool:
            sent = world.networks[member].sent
            return any(isinstance(m, AppendReply) and m.index >= index for m in sent)

        self.assertFalse(any(acknowledged(member) for member in followers))
        self.assertNoResult(waiting)
        world.wait(waiting)
        self.assertTrue(any(acknowledged(member) for member in followers))
        world.kill(leader)

        def voted(member: str) -> bool:
            sent = world.networks[member].sent
            return any(isinstance(m, VoteReply) and m.granted and not m.pre for m in sent)

        for member in followers:
            world.networks[member].sent.clear()
        writes = {member: world.stores[member].writes for member in followers}
        world.until(lambda: any(voted(member) for member in followers))
        (voter,) = filter(voted, followers)
        self.assertGreater(world.stores[voter].writes, writes[voter])

    def test_full(self) -> None:
        """Nearly full: proposals are refused as busy, reads go on."""
        world = self.world()
        leader = world.leader()
        world.stores[leader].full = True
        self.refused(Busy, world.propose(leader, create("a")))
        world.wait(world.barrier(leader))

    def test_a_pause_ends_leadership_before_what_waited_is_believed(self) -> None:
        """A leader that slept through an election timeout cancels its reads, though the answers
        that would allow them lie in its queue."""
        world = self.world()
        leader = world.leader()
        replies: list[Any] = []

        def keep(to: str, message: Any) -> bool:
            if to == leader and isinstance(message, HeartbeatReply):
                replies.append(message)
                return False
            return True

        world.keep = keep
        reading = world.barrier(leader)
        world.run(0.02)
        self.assertNoResult(reading)
        self.assertTrue(replies)
        # The process stood still: time went on, its timers did not.
        world.clock.rightNow += 1.0
        received = world.networks[leader].received
        assert received is not None
        for reply in replies:
            received(reply)
        world.clock.advance(0)
        self.refused(NotLeader, reading)
        self.assertFalse(world.members[leader].is_leader)

    def test_a_lost_disk_is_refused(self) -> None:
        """A member whose store is gone does not start under its old id."""
        world = self.world()
        member = world.followers()[0]
        world.kill(member)
        for file in (world.directory / member / "store").iterdir():
            file.unlink()
        with self.assertRaisesRegex(ConfigError, "must not come back under its old id"):
            world.start(member)

    def test_stopping_answers_those_who_wait(self) -> None:
        """Nobody is left waiting by a member that stops."""
        world = self.world()
        leader = world.leader()
        waiting, reading = world.propose(leader, create("a")), world.barrier(leader)
        world.result(world.members.pop(leader).stop())
        self.refused(Unavailable, waiting)
        self.refused(Unavailable, reading)


class Reads(WorldCase):
    def test_a_follower_shows_what_was_acknowledged(self) -> None:
        """After a barrier at any member its registry has what was committed before the call."""
        world = self.world()
        for n, member in enumerate(world.ids):
            world.create(f"t{n}")
            world.wait(world.barrier(member))
            self.assertIn(f"t{n}", world.names(member))

    def test_no_answer_without_a_majority(self) -> None:
        """A leader cut off confirms nothing, however fresh it believes to be."""
        world = self.world()
        leader = world.leader()
        world.isolate(leader)
        reading = world.barrier(leader)
        world.run(1.0)
        self.refused(NotLeader, reading)

    def test_a_round_that_began_before_does_not_count(self) -> None:
        """Only a round of heartbeats that was sent after the call allows it."""
        world = self.world()
        leader = world.leader()
        world.run(0.1)
        seen: list[Heartbeat] = []
        world.keep = lambda to, message: (
            not isinstance(message, Heartbeat)
            or bool(
                seen.append(message)  # type: ignore[func-returns-value]
            )
        )
        first = world.barrier(leader)
        world.run(0.02)
        self.assertNoResult(first)
        world.keep = lambda to, message: not isinstance(message, HeartbeatReply)
        second = world.barrier(leader)
        world.run(0.02)
        self.assertNoResult(second)
        world.keep = lambda to, message: True
        world.wait(first)
        world.wait(second)

    def test_five_hundred_leases_share_rounds(self) -> None:
        """Many barriers of one turn cost one round of heartbeats and nothing in the log."""
        world = self.world()
        leader = world.leader()
        world.run(0.1)
        index = world.members[leader].registry.applied_index
        sent = world.networks[leader].sent
        sent.clear()
        reading = [world.barrier(leader) for _ in range(500)]
        world.clock.advance(0)
        rounds = [m for m in sent if isinstance(m, Heartbeat)]
        self.assertEqual(len(rounds), 2)
        for one in reading:
            world.wait(one)
        self.assertEqual(world.members[leader].registry.applied_index, index)


class Snapshots(WorldCase):
    def test_the_log_stays_bounded_and_restarts_are_whole(self) -> None:
        """Snapshots replace the log; a restart from snapshot and tail gives the same registry."""
        world = self.world(snapshot_every=20, keep_entries=5)
        for n in range(90):
            world.create(f"t{n}")
        world.agree()
        world.run(0.1)
        for member in world.ids:
            world.kill(member)
        for member in world.ids:
            store = world.store(member)
            stored = store.recover()
            self.assertGreater(stored.snapshot.index, 60)
            self.assertLess(len(stored.entries), 60)
            store.crash()
        world.start()
        world.leader()
        world.agree()
        self.assertEqual(len(world.names("m2")), 90)

    def test_a_snapshot_is_made_beside_the_loop(self) -> None:
        """While a thread is busy with it, however long, entries are committed; nothing of it is
        done before the thread does it, and it tells of the moment at which it began."""
        world = self.world(snapshot_every=20, keep_entries=5)
        leader = world.leader()
        work: list[tuple[Callable[[], Any], Deferred[Any]]] = []

        def in_thread(function: Callable[[], Any]) -> Deferred[Any]:
            work.append((function, Deferred()))
            return work[-1][1]

        world.in_thread = in_thread
        for number in range(60):
            world.create(f"t{number}")
        self.assertGreaterEqual(len(work), 3)
        driver = world.members[leader]._driver
        assert driver.core is not None
        self.assertEqual(driver.core.snapshots_in_use()[0].index, 1)
        began, world.in_thread = work[:], lambda function, *args: succeed(function(*args))
        for function, done in began:
            done.callback(function())
        world.until(lambda: driver.core.snapshots_in_use()[0].index > 1)  # type: ignore[union-attr]
        self.assertLess(driver.core.snapshots_in_use()[0].index, 60)

    def test_a_member_far_behind_gets_a_snapshot(self) -> None:
        """One whose entries are gone from the leader's log catches up by its snapshot, goes on
        with the log, and is whole after its own restart."""
        world = self.world(snapshot_every=20, keep_entries=5)
        behind = world.followers()[0]
        world.kill(behind)
        for n in range(60):
            world.create(f"t{n}")
        world.run(0.2)
        chunks: list[Any] = []

        def keep(to: str, message: Any) -> bool:
            if isinstance(message, SnapshotChunk):
                chunks.append(message)
            return True

        world.keep = keep
        world.start(behind)
        world.agree()
        self.assertTrue(chunks)
        self.assertEqual(len(world.names(behind)), 60)
        world.create("more")
        world.agree()
        world.kill(behind)
        world.start(behind)
        world.agree()
        self.assertEqual(len(world.names(behind)), 61)
        self.assertEqual(world.failures, {})

    def test_a_damaged_snapshot_is_not_installed(self) -> None:
        """Chunks whose bytes were changed on the way are refused as a whole and sent again."""
        world = self.world(snapshot_every=20, keep_entries=5)
        behind = world.followers()[0]
        world.kill(behind)
        for n in range(60):
            world.create(f"t{n}")
        world.run(0.2)
        deliver, spoilt = world.deliver, []

        def spoil(sender: str, to: Any, frame: bytes) -> None:
            if to.member == behind and not spoilt and b"tenant_t33" in frame:
                spoilt.append(frame)
                frame = frame.replace(b"tenant_t33", b"tenant_t34")
            deliver(sender, to, frame)

        world.deliver = spoil  # type: ignore[method-assign]
        world.start(behind)
        world.agree()
        self.assertTrue(spoilt)
        self.assertEqual(len(world.names(behind)), 60)

    def test_the_empty_registry_is_the_same_everywhere(self) -> None:
        """Members of a new group begin with equal bytes, or they would differ for ever."""
        self.assertEqual(genesis("localhost"), genesis("localhost"))


class Leadership(WorldCase):
    def test_handing_over(self) -> None:
        """The leader hands over within 100 ms; both hear of it, the old one first."""
        world = self.world()
        old = world.leader()
        world.create("a")
        new = world.followers()[0]
        world.run(0.1)
        world.leaderships.clear()
        world.members[old].transfer_leadership(new)
        world.until(lambda: world.members[new].is_leader, within_s=0.1)
        self.assertEqual(world.leaderships, [(old, False), (new, True)])
        with self.assertRaises(NotLeader):
            world.members[old].transfer_leadership(new)
        with self.assertRaises(Conflict):
            world.members[new].transfer_leadership("m9")

    def test_followers_hear_of_a_lone_write_soon(self) -> None:
        """A commit waits for the next write's entries, but only for some milliseconds."""
        world = self.world()
        for number in range(3):
            world.create(f"t{number}")
            index = world.members[world.leader()].registry.applied_index
            behind = [m for m in world.members.values() if m.registry.applied_index < index]
            self.assertEqual(len(behind), 2)
            world.run(0.01)
            self.assertEqual({m.registry.applied_index for m in world.members.values()}, {index})

    def test_a_write_during_a_transfer_hears_who_leads(self) -> None:
        """It is not refused meanwhile, and not done here; a transfer that fails delays it."""
        world = self.world()
        old = world.leader()
        new = world.followers()[0]
        world.run(0.1)
        began = world.clock.seconds()
        world.members[old].transfer_leadership(new)
        refused = world.propose(old, create("shop"), "k")
        self.assertNoResult(refused)
        world.until(lambda: world.members[new].is_leader, within_s=0.1)
        world.until(lambda: refused.called, within_s=0.1)
        self.assertLess(world.clock.seconds() - began, 0.1)
        error = self.failureResultOf(refused, NotLeader).value
        self.assertEqual(error.data["leader"], new)
        world.wait(world.propose(new, create("shop"), "k"))
        world.isolate(old)
        world.members[new].transfer_leadership(old)
        world.wait(world.propose(new, create("late"), "l"))
        self.assertTrue(world.members[new].is_leader)

    def test_a_leader_that_stops_hands_over(self) -> None:
        """The next one leads at once, not after an election timeout; who does not lead, or has
        nobody, does not wait."""
        world = self.world()
        leader = world.leader()
        world.run(0.1)
        began = world.clock.seconds()
        world.result(world.members[world.followers()[0]].hand_over())
        done = Deferred.fromCoroutine(world.members[leader].hand_over())
        world.wait(done)
        world.until(lambda: any(m.is_leader for m in world.members.values()))
        self.assertLess(world.clock.seconds() - began, 0.1)
        alone = self.world(1)
        alone.leader()
        self.successResultOf(Deferred.fromCoroutine(alone.members["m1"].hand_over()))

    def test_it_leads_only_when_it_knows_everything(self) -> None:
        """Between its election and its first commit a member takes nothing and names nobody."""
        world = self.world()
        for n in range(3):
            world.create(f"t{n}")
        world.keep = lambda to, message: not isinstance(message, Append)
        world.kill(world.leader())
        world.until(lambda: any(m.status().role.value == "leader" for m in world.members.values()))  # type: ignore[union-attr]
        (elected,) = [k for k, m in world.members.items() if m.status().role.value == "leader"]  # type: ignore[union-attr]
        self.assertFalse(world.members[elected].is_leader)
        error = self.refused(NotLeader, world.propose(elected, create("b")))
        self.assertEqual(error.data["leader"], "")
        world.keep = lambda to, message: True
        self.assertEqual(world.leader() in world.members, True)
