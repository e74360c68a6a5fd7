"""The timer of a member's core: how seldom an idle member wakes up, and that none wakes up late."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.raft_intervals import HEARTBEAT_TICKS, TICK_S
from pbcluster.controlplane.raft_ticks import Ticks
from pbcluster.errors import ConfigError
from tests.controlplane.raft_world import Network, RaftWorld


class TickTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.1)
        self.woken: list[int] = []
        self.ticks = Ticks(self.clock, lambda: self.woken.append(self.ticks.passed()))
        self.ticks.start()

    def test_each_tick_once(self) -> None:
        """However time is cut, none is counted twice or forgotten."""
        counted = 0
        for _ in range(1000):
            self.clock.advance(TICK_S * 0.37)
            counted += self.ticks.passed()
        self.assertEqual(counted, 370)

    def test_sleeping(self) -> None:
        """It is called after as many ticks, not before."""
        self.ticks.sleep(3)
        self.clock.pump([TICK_S] * 2)
        self.assertEqual(self.woken, [])
        self.clock.advance(TICK_S)
        self.assertEqual(self.woken, [3])
        self.clock.advance(1)
        self.assertEqual(self.woken, [3])

    def test_sooner(self) -> None:
        """A shorter sleep replaces a longer one; a longer one leaves the shorter."""
        self.ticks.sleep(5)
        self.ticks.sleep(2)
        self.ticks.sleep(4)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(2 * TICK_S)
        self.assertEqual(self.woken, [2])

    def test_two_clocks(self) -> None:
        """The timers' own times are not compared with those of the clock: a member's clock goes on
        while the machine sleeps, and its timers are the reactor's."""

        class Steady:
            callLater = staticmethod(self.clock.callLater)

            def seconds(self) -> float:
                return 5.0

        ticks = Ticks(Steady(), lambda: None)  # type: ignore[arg-type]
        ticks.start()
        ticks.sleep(2)
        (first,) = self.clock.getDelayedCalls()
        ticks.sleep(5)
        self.assertEqual(self.clock.getDelayedCalls(), [first])
        ticks.sleep(1)
        (second,) = self.clock.getDelayedCalls()
        self.assertIsNot(second, first)

    def test_late(self) -> None:
        """Ticks that passed before it was asked to sleep are of the sleep."""
        self.clock.advance(5 * TICK_S)
        self.ticks.sleep(2)
        self.clock.advance(0)
        self.assertEqual(self.woken, [5])

    def test_stopped(self) -> None:
        """No call afterwards."""
        self.ticks.sleep(2)
        self.ticks.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_started(self) -> None:
        """Before the start, and after the end, no time passes and nobody is called."""
        for ticks in (Ticks(self.clock, lambda: None), self.ticks):
            ticks.stop()
            self.clock.advance(1)
            self.assertEqual(ticks.passed(), 0)
            ticks.sleep(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class IdleTests(SynchronousTestCase):
    def count_wakes(self, world: RaftWorld) -> Counter[str]:
        """Of each member, from now on."""
        woken: Counter[str] = Counter()
        for name, member in world.members.items():
            ticks = member._driver._ticks

            def counted(name: str = name, due: Callable[[], None] = ticks._due) -> None:
                woken[name] += 1
                due()

            ticks._due = counted
        return woken

    def test_few_wakes(self) -> None:
        """An idle leader wakes up for its heartbeats, an idle follower not more often, instead of
        at each of a hundred ticks a second; and nobody campaigns."""
        world = RaftWorld(Path(self.mktemp()))
        self.addCleanup(world.close)
        world.start()
        world.leader()
        world.run(1.0)
        before = {name: member.status().term for name, member in world.members.items()}
        woken = self.count_wakes(world)
        world.run(2.0)
        for name in world.ids:
            self.assertLessEqual(woken[name], 2.0 / (HEARTBEAT_TICKS * TICK_S) + 2, woken)
        after = {name: member.status().term for name, member in world.members.items()}
        self.assertEqual(after, before)

    def test_an_address_that_cannot_be_had(self) -> None:
        """A member that cannot listen ends, and does not go on ticking."""

        def refuse(*_: object) -> None:
            raise ConfigError("the address is in use")

        world = RaftWorld(Path(self.mktemp()), 1)
        self.patch(Network, "start", refuse)
        self.assertRaises(ConfigError, world.start)
        self.addCleanup(world.stores["m1"].close)
        timers = [call for call in world.clock.getDelayedCalls() if "Raft" in str(call.func)]
        self.assertEqual(timers, [])
