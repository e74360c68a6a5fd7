"""What becomes of writes while S3 is away: the core alone, by hand and by random histories."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.degrading import (
    Answer,
    CommitFlag,
    Degrading,
    Effects,
    Mode,
    Refuse,
    ReleaseLocally,
    SyncAgain,
)
from pbcluster.records import OnOutage


def tenant(on_outage: OnOutage = OnOutage.DEGRADE, *, flagged: bool = False) -> Degrading:
    return Degrading(on_outage, flagged=flagged)


class DegradingTests(SynchronousTestCase):
    def test_whole_way(self) -> None:
        """Writes are let go only after the flag is committed; the flag ends only after a sync that
        began after the last of them."""
        core = tenant()
        self.assertEqual(core.expired((1, 2), "away"), (CommitFlag(True),))
        self.assertFalse(core.local)
        released = core.flag_answered(True, Answer.COMMITTED)
        self.assertEqual(released, (ReleaseLocally((1, 2)),))
        core.released_locally(10.0)
        core.released_locally(20.0)
        self.assertEqual(core.covered(15.0), (SyncAgain(),))
        self.assertFalse(core.local, "no further local acknowledgement while it catches up")
        self.assertEqual(core.covered(21.0), (CommitFlag(False),))
        self.assertFalse(core.only_here)
        self.assertEqual(core.flag_answered(False, Answer.COMMITTED), ())
        self.assertIs(core.mode, Mode.DURABLE)

    def test_reject(self) -> None:
        """Where the tenant wants it so, nothing is asked and nothing let go."""
        core = tenant(OnOutage.REJECT)
        self.assertEqual(core.expired((1,), "away"), (Refuse((1,), "away"),))
        self.assertIs(core.mode, Mode.DURABLE)

    def test_control_plane_away_too(self) -> None:
        """Without a commit there is no local acknowledgement; the next write asks again. What was
        perhaps committed is ended by the next sync."""
        core = tenant()
        core.expired((1,), "away")
        (refused,) = core.flag_answered(True, Answer.UNKNOWN)
        self.assertIsInstance(refused, Refuse)
        self.assertEqual(core.expired((2,), "away"), (CommitFlag(True),))
        core.flag_answered(True, Answer.UNKNOWN)
        self.assertTrue(core.wants_sync)
        self.assertEqual(core.covered(1.0), (CommitFlag(False),))

    def test_refused_flag(self) -> None:
        """A control plane that gave the tenant to somebody else commits nothing: no write goes."""
        core = tenant()
        core.expired((1,), "away")
        (refused,) = core.flag_answered(True, Answer.REFUSED)
        self.assertEqual(refused.tickets if isinstance(refused, Refuse) else (), (1,))
        self.assertFalse(core.wants_sync)

    def test_away_again_while_the_flag_ends(self) -> None:
        """While the end of the flag is under way its fate is unknown: it is repeated until it is
        known, and only then the flag is asked for again."""
        core = tenant(flagged=True)
        self.assertEqual(core.begin(), (CommitFlag(False),))
        self.assertEqual(core.expired((1,), "away"), ())
        self.assertEqual(core.flag_answered(False, Answer.UNKNOWN), (CommitFlag(False),))
        self.assertFalse(core.local)
        self.assertEqual(core.flag_answered(False, Answer.COMMITTED), (CommitFlag(True),))
        self.assertEqual(core.flag_answered(True, Answer.COMMITTED), (ReleaseLocally((1,)),))

    def test_flapping(self) -> None:
        """S3 that goes again while the tenant catches up: the flag stands, so it is local again at
        once."""
        core = tenant()
        core.expired((1,), "away")
        core.flag_answered(True, Answer.COMMITTED)
        core.released_locally(1.0)
        core.covered(0.5)
        self.assertEqual(core.expired((2,), "away"), (ReleaseLocally((2,)),))
        self.assertTrue(core.local)

    def test_given_up_by_an_operator(self) -> None:
        """A flag that is gone though it was relied on ends local acknowledgements at once."""
        core = tenant()
        core.expired((1,), "away")
        core.flag_answered(True, Answer.COMMITTED)
        core.released_locally(1.0)
        core.assigned(OnOutage.DEGRADE, flagged=False)
        self.assertFalse(core.local)
        self.assertEqual(core.expired((2,), "away"), (CommitFlag(True),))

    def test_writes_wait_for_the_flag_only_so_long(self) -> None:
        """A control plane that does not answer holds nobody for ever."""
        core = tenant()
        core.expired((1,), "away")
        (refused,) = core.give_up_waiting()
        self.assertEqual(refused.tickets if isinstance(refused, Refuse) else (), (1,))
        self.assertEqual(core.flag_answered(True, Answer.COMMITTED), (ReleaseLocally(()),))


class World:
    """The core, a control plane that may do what it was asked and lose the answer, and S3."""

    def __init__(self) -> None:
        self.core = tenant()
        self.now = 0.0
        self.committed = False
        self.asked: list[bool] = []
        self.local_until_synced: list[float] = []
        self.ticket = 0
        self.open: set[int] = set()

    def run(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, CommitFlag):
                assert not self.asked, "two flags under way at once"
                self.asked.append(effect.degraded)
            elif isinstance(effect, ReleaseLocally):
                for ticket in effect.tickets:
                    self.open.discard(ticket)
                    self.local()
            elif isinstance(effect, Refuse):
                self.open -= set(effect.tickets)

    def local(self) -> None:
        if self.core.local:
            assert self.committed, "a local acknowledgement without a committed flag"
            self.core.released_locally(self.now)
            self.local_until_synced.append(self.now)

    def write_expires(self) -> None:
        self.ticket += 1
        self.open.add(self.ticket)
        self.run(self.core.expired((self.ticket,), "away"))

    def sync(self, age: float) -> None:
        began = self.now - age
        self.local_until_synced = [at for at in self.local_until_synced if at >= began]
        self.run(self.core.covered(began))

    def answer(self, done: bool, told: bool) -> None:
        if not self.asked:
            return
        degraded = self.asked.pop()
        if done:
            assert degraded or not self.local_until_synced, "ended before all was in S3"
            self.committed = degraded
        answer = Answer.UNKNOWN if not told else Answer.COMMITTED if done else Answer.REFUSED
        self.run(self.core.flag_answered(degraded, answer))


STEPS = st.one_of(
    st.tuples(st.just("expire")),
    st.tuples(st.just("write")),
    st.tuples(st.just("sync"), st.floats(0.0, 3.0)),
    st.tuples(st.just("answer"), st.booleans(), st.booleans()),
    st.tuples(st.just("told")),
)


class HistoryTests(SynchronousTestCase):
    @given(st.lists(STEPS, max_size=40))
    @settings(deadline=None, max_examples=300)
    def test_any_history(self, steps: list[tuple[object, ...]]) -> None:
        """Whatever fails, is lost or comes late: no local acknowledgement without a committed flag,
        no flag ended before everything is in S3, one question at a time, nobody forgotten."""
        world = World()
        for step in steps:
            world.now += 1.0
            match step:
                case ("expire",):
                    world.write_expires()
                case ("write",):
                    world.local()
                case ("sync", float(age)):
                    world.sync(age)
                case ("answer", bool(done), bool(told)):
                    world.answer(done, told)
                case ("told",):
                    world.run(world.core.assigned(OnOutage.DEGRADE, flagged=world.committed))
        for _ in range(4):
            world.now += 10.0
            world.sync(1.0)
            world.answer(done=True, told=True)
        self.assertEqual(world.open, set())
        self.assertIs(world.core.mode, Mode.DURABLE)
        self.assertFalse(world.committed)
