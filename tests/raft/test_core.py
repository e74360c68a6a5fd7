"""The core as its driver sees it: refusals, bounds, tokens, starts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import Busy, Conflict, InvalidInput, NotLeader, TooLarge, Unavailable
from pbcluster.raft import (
    ConfigAction,
    ConfigChange,
    ConfigStep,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    InvariantViolated,
    RaftCore,
    RaftOptions,
    Ready,
    Role,
    SnapshotMeta,
    StoredState,
)
from pbcluster.raft import messages as m
from tests.raft.trace_runner import FixedRandom, Stage

ABC = ConfState(("a", "b", "c"))
#: Drawn in a run, more than any timeout used here.
LONG_TICKS = 100


def core(
    stored: StoredState | None = None, *, member: str = "a", conf: ConfState = ABC, **options: int
) -> RaftCore:
    given = RaftOptions(member=member, **options)
    return RaftCore(given, stored or StoredState(conf), FixedRandom(0))


def drain(one: RaftCore) -> list[Ready]:
    """Do all duties at once, on a perfect disk."""
    done = []
    while one.has_ready():
        ready = one.ready()
        done.append(ready)
        one.persisted(ready.token)
        if ready.committed:
            one.applied(ready.committed[-1].index)
    return done


def single(**options: int) -> RaftCore:
    """The leader of a group of one."""
    one = core(conf=ConfState(("a",)), **options)
    one.campaign()
    drain(one)
    return one


class OptionTests(SynchronousTestCase):
    def test_values_out_of_range_are_named(self) -> None:
        """With the field and what is allowed."""
        cases: list[dict[str, int]] = [
            {"election_ticks": 0},
            {"heartbeat_ticks": 0},
            {"election_ticks": 4, "heartbeat_ticks": 2},
            {"incarnation": 0},
            {"incarnation": 2**30},
            {"max_inflight_bytes": 0},
            {"max_pending_reads": -1},
        ]
        for values in cases:
            error = self.assertRaises(InvalidInput, RaftOptions, member="a", **values)
            self.assertIn(error.data["field"], values)
        self.assertRaises(InvalidInput, RaftOptions, member="")


class StartTests(SynchronousTestCase):
    def test_pieces_that_do_not_fit_are_refused(self) -> None:
        """An applied or committed index beyond the log: the storage lies."""
        entries = (Entry(1, 1), Entry(2, 1))
        bad = [
            StoredState(ABC, HardState(1, "", 3), SnapshotMeta(), entries, 0),
            StoredState(ABC, HardState(1, "", 2), SnapshotMeta(), entries, 3),
            StoredState(ABC, HardState(1, "", 0), SnapshotMeta(5, 1, ABC), (), 3),
        ]
        for stored in bad:
            self.assertRaises(InvariantViolated, core, stored)

    def test_committed_entries_are_handed_out_again_from_the_applied_index(self) -> None:
        """And none that was applied before."""
        entries = tuple(Entry(i, 1, EntryKind.COMMAND, b"%d" % i) for i in range(1, 5))
        one = core(StoredState(ABC, HardState(1, "a", 3), SnapshotMeta(), entries, 2))
        applied = [entry for ready in drain(one) for entry in ready.committed]
        self.assertEqual(applied, [entries[2]])

    def test_the_first_members_begin_with_a_snapshot(self) -> None:
        """So nobody who joins later can be fed from the log alone."""
        one = core(StoredState.first(ABC, 10, 77))
        self.assertEqual(one.status().last_index, 1)
        self.assertEqual(one.snapshots_in_use(), (SnapshotMeta(1, 1, ABC, 10, 77),))

    def test_one_that_joins_does_not_campaign(self) -> None:
        """It knows no membership, and waits."""
        one = core(StoredState())
        for _ in range(LONG_TICKS):
            one.tick()
        self.assertIs(one.status().role, Role.FOLLOWER)
        self.assertEqual(one.status().term, 0)


class ProposalTests(SynchronousTestCase):
    def test_a_follower_names_the_leader(self) -> None:
        """As far as it knows one."""
        one = core()
        self.assertEqual(self.assertRaises(NotLeader, one.propose, b"x").data["leader"], "")
        one.step(m.Heartbeat("b", "a", 1, 0))
        self.assertEqual(self.assertRaises(NotLeader, one.propose, b"x").data["leader"], "b")

    def test_bounds(self) -> None:
        """A command over its size is refused for good, uncommitted bytes over theirs for now."""
        one = core(max_command_bytes=10, max_uncommitted_bytes=80)
        stage_leader(one)
        self.assertRaises(TooLarge, one.propose, b"x" * 11)
        one.propose(b"x")
        one.propose(b"x")
        error = self.assertRaises(Busy, one.propose, b"x" * 10)
        self.assertGreater(error.retry_after_s, 0)

    def test_a_lone_command_always_fits(self) -> None:
        """Also one larger than the bound on uncommitted bytes, or it would be busy for ever."""
        one = single(max_uncommitted_bytes=1)
        one.propose(b"x" * 100)
        self.assertRaises(Busy, one.propose, b"y")
        drain(one)
        one.propose(b"y")

    def test_the_place_of_a_proposal(self) -> None:
        """Index and term tell at apply time whether it was this one."""
        one = single()
        place = one.propose(b"x")
        applied = [entry for ready in drain(one) for entry in ready.committed]
        self.assertEqual([(e.index, e.term, e.data) for e in applied], [(2, 1, b"x")])
        self.assertEqual((place.index, place.term), (2, 1))


def stage_leader(one: RaftCore) -> None:
    """Make ``one`` the leader of a, b, c in term 1, with b's vote, nothing committed."""
    one.campaign()
    drain(one)
    one.step(m.VoteReply("b", "a", 1, True, pre=True))
    drain(one)
    one.step(m.VoteReply("b", "a", 1, True))
    drain(one)
    assert one.status().role is Role.LEADER


class SingleTests(SynchronousTestCase):
    def test_a_group_of_one_commits_after_its_disk(self) -> None:
        """Not before: its own write is the majority."""
        one = single()
        one.propose(b"x")
        ready = one.ready()
        self.assertEqual(one.status().commit, 1)
        one.persisted(ready.token)
        self.assertEqual(one.status().commit, 2)

    def test_reads_need_nobody_else(self) -> None:
        """The leader alone is the quorum."""
        one = single()
        context = one.read_index()
        reads = [read for ready in drain(one) for read in ready.reads]
        self.assertEqual([(r.context, r.index) for r in reads], [(context, 1)])


class ReadTests(SynchronousTestCase):
    def test_contexts_are_never_used_twice(self) -> None:
        """Not by one life of a member, nor by the next."""
        seen = set()
        for incarnation in (1, 2):
            one = core(conf=ConfState(("a",)), incarnation=incarnation)
            one.campaign()
            drain(one)
            for _ in range(50):
                seen.add(one.read_index())
        self.assertEqual(len(seen), 100)

    def test_heartbeats_between_do_not_hold_up_the_reads_of_one_alone(self) -> None:
        """A read that the next heartbeat took along is answered too, however often."""
        one = single()
        for _ in range(20):
            context = one.read_index()
            one.tick()
            reads = [state.context for ready in drain(one) for state in ready.reads]
            self.assertEqual(reads, [context])

    def test_pending_reads_are_bounded(self) -> None:
        """Beyond the bound callers are told to come back; here, and asked by others."""
        one = core(max_pending_reads=2)
        stage_leader(one)
        one.step(m.AppendReply("b", "a", 1, 1))
        drain(one)
        one.read_index()
        one.read_index()
        self.assertRaises(Busy, one.read_index)
        one.step(m.ReadRequest("b", "a", 1, 5))
        replies = [msg for ready in drain(one) for msg in ready.messages]
        self.assertIn(m.ReadReply("a", "b", 1, 5, refused=True), replies)

    def test_a_new_leader_refuses(self) -> None:
        """Until an entry of its term is committed."""
        one = core()
        stage_leader(one)
        self.assertRaises(Unavailable, one.read_index)
        one.step(m.AppendReply("b", "a", 1, 1))
        one.read_index()

    def test_a_forwarded_read_is_given_up(self) -> None:
        """When no answer comes; and a late answer is dropped."""
        one = core(election_ticks=5)
        one.step(m.Heartbeat("b", "a", 1, 0))
        context = one.read_index()
        drain(one)
        for _ in range(10):
            one.step(m.Heartbeat("b", "a", 1, 0))
            one.tick()
        self.assertEqual([c for ready in drain(one) for c in ready.cancelled_reads], [context])
        one.step(m.ReadReply("b", "a", 1, context, 7))
        self.assertEqual([r for ready in drain(one) for r in ready.reads], [])

    def test_a_change_of_leader_cancels(self) -> None:
        """What the old one would say counts no more."""
        one = core()
        one.step(m.Heartbeat("b", "a", 1, 0))
        context = one.read_index()
        one.step(m.Heartbeat("c", "a", 2, 0))
        self.assertEqual([c for ready in drain(one) for c in ready.cancelled_reads], [context])


class MessageTests(SynchronousTestCase):
    def test_messages_for_others_and_from_strangers_do_nothing(self) -> None:
        """A wrong recipient, an own message, answers of non-members with a high term."""
        one = core()
        one.step(m.Heartbeat("b", "c", 9, 0))
        one.step(m.Heartbeat("a", "a", 9, 0))
        one.step(m.AppendReply("x", "a", 9, 1))
        self.assertEqual(one.status().term, 0)

    def test_two_leaders_in_a_term_end_the_member(self) -> None:
        """It cannot be, so nothing is to be trusted."""
        one = core()
        stage_leader(one)
        self.assertRaises(InvariantViolated, one.step, m.Heartbeat("b", "a", 1, 0))

    def test_an_outdated_leader_is_told_the_term(self) -> None:
        """Or it would never know."""
        one = core(StoredState(ABC, HardState(5, "", 0)))
        one.step(m.Append("b", "a", 3, 0, 0, 0))
        after = [msg for ready in drain(one) for msg in ready.after]
        self.assertEqual([(msg.to, msg.term) for msg in after], [("b", 5)])

    def test_a_learner_forgets_a_leader_that_is_silent(self) -> None:
        """It does not campaign, but tells its callers that it knows no leader."""
        one = core(StoredState(ConfState(("b", "c"), (), ("a",))))
        one.step(m.Heartbeat("b", "a", 1, 0))
        self.assertEqual(one.status().leader, "b")
        for _ in range(LONG_TICKS):
            one.tick()
        self.assertEqual((one.status().leader, one.status().role), ("", Role.FOLLOWER))


class DiskTests(SynchronousTestCase):
    def test_one_whose_disk_stands_still_does_not_campaign(self) -> None:
        """It could make no vote durable, and would only disturb the others (once seed 467)."""
        one = core(election_ticks=5)
        one.step(m.Append("b", "a", 1, 0, 0, 0, (Entry(1, 1),)))
        waiting = one.ready()
        for _ in range(LONG_TICKS):
            one.tick()
        self.assertEqual((one.status().role, one.status().leader), (Role.FOLLOWER, ""))
        one.persisted(waiting.token)
        one.tick()
        self.assertIs(one.status().role, Role.PRE_CANDIDATE)

    def test_a_slow_disk_does_not_unseat_a_leader(self) -> None:
        """As long as each write is durable within three election timeouts."""
        one = core(conf=ConfState(("a",)), election_ticks=5)
        one.campaign()
        drain(one)
        for _ in range(10):
            one.propose(b"x")
            ready = one.ready()
            for _ in range(14):
                one.tick()
            one.persisted(ready.token)
            drain(one)
        self.assertIs(one.status().role, Role.LEADER)

    def test_a_token_of_an_earlier_term_makes_nothing_durable(self) -> None:
        """Its entry may have been replaced, and replaced back, by writes still under way."""
        one = core()
        one.step(m.Append("b", "a", 1, 0, 0, 0, (Entry(1, 1),)))
        first = one.ready()
        one.step(m.Append("c", "a", 2, 0, 0, 1, (Entry(1, 1), Entry(2, 2))))
        second = one.ready()
        one.persisted(first.token)
        self.assertFalse(one.has_ready() and one.ready().committed)
        one.persisted(second.token)
        self.assertEqual([e.index for ready in drain(one) for e in ready.committed], [1])


class MembershipTests(SynchronousTestCase):
    def test_a_learner_must_have_been_heard(self) -> None:
        """Caught up is what it was at its last answer; without one since the last check of the
        quorum but one it is not promoted now. Right after a check nobody was heard from since: one
        who asks in step with the checks would never succeed."""
        one = core(StoredState(ConfState(("a",), (), ("d",))), election_ticks=5)
        one.campaign()
        drain(one)
        promote = ConfigChange((ConfigStep(ConfigAction.PROMOTE, "d"),))
        one.step(m.AppendReply("d", "a", 1, 1))
        for _ in range(5):
            one.tick()
        one.check_config(promote)
        for _ in range(5):
            one.tick()
        self.assertRaises(Unavailable, one.propose_config, promote)
        one.step(m.HeartbeatReply("d", "a", 1))
        one.propose_config(promote)

    def test_one_at_a_time(self) -> None:
        """The next change waits until the one before is applied."""
        one = core(StoredState(ConfState(("a",))))
        one.campaign()
        drain(one)
        one.propose_config(ConfigChange((ConfigStep(ConfigAction.ADD_LEARNER, "d"),)))
        add = ConfigChange((ConfigStep(ConfigAction.ADD_LEARNER, "e"),))
        self.assertRaises(Conflict, one.propose_config, add)
        drain(one)
        one.propose_config(add)


class SnapshotTests(SynchronousTestCase):
    def _leader_with_lagging_c(self) -> Stage:
        stage = Stage()
        stage.members("a", "b", "c", "snapshot_chunk_bytes=4", "election_ticks=5")
        stage.campaign("a")
        stage.settle()
        stage.propose("a", "1", "2", "3")
        stage.settle("a", "b")
        stage.compact("a", "4")
        stage.tick("a")
        for member in ("a", "c", "a", "c"):
            stage.ready(member)
            stage.persist(member, "9")
            for link in ("a->c", "c->a"):
                stage.deliver(link)
        return stage

    def test_a_newer_snapshot_does_not_interrupt_one_on_its_way(self) -> None:
        """Or a slow member would never get a whole one; and the log after it is kept."""
        stage = self._leader_with_lagging_c()
        leader = stage.seats["a"].core
        self.assertEqual(leader.status().progress["c"][1], "snapshot")
        stage.propose("a", "4", "5")
        stage.settle("a", "b")
        stage.compact("a", "6")
        self.assertEqual([meta.index for meta in leader.snapshots_in_use()], [6, 4])
        self.assertEqual(leader._raft.log.compacted_index, 4)
        stage.tick("a", "5")
        stage.run()
        self.assertEqual(leader.status().progress["c"], (6, "replicate"))

    def test_a_member_that_has_the_snapshot_already_gets_a_newer_one(self) -> None:
        """When the log was compacted beyond the one that it was being sent (once seed 234)."""
        stage = self._leader_with_lagging_c()
        raft = stage.seats["a"].core._raft
        stage.propose("a", "4", "5")
        stage.settle("a", "b")
        meta = SnapshotMeta(6, 1, ABC, 10, 8)
        raft.log.compact(meta, 6)
        stage.tick("a", "5")
        stage.run()
        for _ in range(3):
            stage.tick("a", "5")
            stage.run()
        self.assertEqual(stage.seats["a"].core.status().progress["c"], (6, "replicate"))

    def test_a_damaged_snapshot_is_asked_for_again(self) -> None:
        """Refused by the driver, it begins anew at the first byte."""
        one = core(StoredState())
        meta = SnapshotMeta(9, 1, ConfState(("b",), (), ("a",)), 4, 77)
        chunk = m.SnapshotChunk("b", "a", 1, meta, 0, b"junk")
        one.step(chunk)
        parts = [part for ready in drain(one) for part in ready.chunks_received]
        self.assertTrue(parts[0].last)
        one.refuse_snapshot(meta)
        one.step(m.SnapshotChunk("b", "a", 1, meta, 0, b"good"))
        parts = [part for ready in drain(one) for part in ready.chunks_received]
        self.assertEqual([part.data for part in parts], [b"good"])
        self.assertTrue(one.install_snapshot(meta))
        ready = drain(one)[0]
        self.assertEqual((ready.snapshot, ready.must_sync), (meta, True))
        self.assertEqual(one.conf, meta.conf)

    def test_a_snapshot_that_the_log_overtook_is_not_installed(self) -> None:
        """The log holds all of it: only the commit index moves, the tail stays."""
        entries = tuple(Entry(i, 1) for i in range(1, 6))
        one = core(StoredState(ABC, HardState(1), SnapshotMeta(), entries, 0))
        self.assertFalse(one.install_snapshot(SnapshotMeta(3, 1, ABC, 0, 0)))
        status = one.status()
        self.assertEqual((status.commit, status.last_index), (3, 5))
