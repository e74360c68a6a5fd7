"""Who fills its limit weighs less: the rule, and the looks at /proc and at control groups."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.sandbox import balance
from pbcluster.node.sandbox.balance import LOOK_S, MAX_LOOKS, Balance
from pbcluster.node.sandbox.cgroups import Group
from pbcluster.node.sandbox.weights import REST_S, Use, Weights


class WeightsTests(SynchronousTestCase):
    def test_much_and_little(self) -> None:
        """Shares count against the own limit; between the two bounds nothing changes, and little is
        little only after a while."""
        weights, now, cpu_s = Weights(), 0.0, 0.0
        weights.look(now, {"a": Use(0.0, 2.0)})
        for share, expected in (
            (0.84, {}),
            (0.86, {"a": True}),
            (1.0, {}),
            (0.1, {}),
            (0.75, {}),
            *[(0.69, {})] * 3,
            (0.69, {"a": False}),
            (0.8, {}),
        ):
            now += REST_S * 0.3
            cpu_s += share * 2.0 * REST_S * 0.3
            self.assertEqual(weights.look(now, {"a": Use(cpu_s, 2.0)}), expected, share)

    def test_small_limits(self) -> None:
        """A tick of the kernel's is much of a small limit: it is judged over a longer while."""
        weights = Weights()
        looks = range(1, 11)
        weights.look(0.0, {"a": Use(0.0, 0.05)})
        found = [weights.look(n * 0.2, {"a": Use(0.01 * n, 0.05)}) for n in looks]
        self.assertEqual(found, [{}] * 9 + [{"a": True}])

    def test_what_is_not_known(self) -> None:
        """One look tells nothing, nor do two at once, nor a process that began anew."""
        weights = Weights()
        self.assertEqual(weights.look(1.0, {"a": Use(50.0, 1.0)}), {})
        self.assertEqual(weights.look(1.0, {"a": Use(60.0, 1.0)}), {})
        self.assertEqual(weights.look(2.0, {"a": Use(1.0, 1.0)}), {})
        self.assertEqual(weights.look(3.0, {"a": Use(2.0, 1.0)}), {"a": True})
        weights.ended("a")
        self.assertEqual(weights.light, set())
        self.assertEqual(weights.look(4.0, {"a": Use(3.0, 1.0)}), {})


class BalanceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.proc = Path(self.mktemp())
        self.balance = Balance(self.clock, self.proc)
        self.pids: dict[str, int | None] = {}

    def add(self, tenant: str, pid: int, version: int = 1) -> Group:
        directory = Path(self.mktemp())
        directory.mkdir()
        for name in ("cpu.shares", "cpu.weight"):
            (directory / name).write_text("")
        group = Group((directory,), None, 1, directory, version)
        self.pids[tenant] = pid
        self.used(pid, 0)
        self.balance.add(tenant, lambda: self.pids[tenant], 1.0, group)
        return group

    def used(self, pid: int, ticks: int) -> None:
        (self.proc / str(pid)).mkdir(parents=True, exist_ok=True)
        text = f"{pid} (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 {ticks - ticks // 3} {ticks // 3} 0 0 20"
        (self.proc / str(pid) / "stat").write_text(text)

    def weight(self, group: Group) -> str:
        assert group.cpu is not None
        return (group.cpu / ("cpu.weight" if group.cpu_version == 2 else "cpu.shares")).read_text()

    def test_weighed(self) -> None:
        """Who computes becomes light after two looks, and is as before once it rests."""
        busy, calm, other = self.add("busy", 1), self.add("calm", 2), self.add("other", 3, 2)
        each = int(LOOK_S / balance._TICK_S)
        for number in range(1, 4):
            self.clock.advance(LOOK_S)
            self.used(1, number * each)
            self.used(3, number * each)
        self.clock.advance(LOOK_S)
        self.assertEqual([self.weight(g)[:1] for g in (busy, calm, other)], ["6", "1", "6"])
        for _ in range(int(REST_S / LOOK_S) + 2):
            self.clock.advance(LOOK_S)
        self.assertEqual([self.weight(g) for g in (busy, calm, other)], ["1024", "1024", "100"])

    def test_what_cannot_be_read(self) -> None:
        """A process that is gone, or is not there yet, is nobody's trouble; when the last one
        ended, nobody looks any more."""
        first, second = self.add("a", 1), self.add("b", 2)
        (self.proc / "1" / "stat").unlink()
        self.pids["b"] = None
        self.clock.advance(LOOK_S)
        self.clock.advance(LOOK_S)
        self.balance.remove("a", first)
        self.balance.remove("a", first)
        third = self.add("b", 3)
        self.balance.remove("b", second)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.balance.remove("b", third)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_turn(self) -> None:
        """Of very many, each is looked at in its turn."""
        looked: list[str] = []

        def pid_of(name: str) -> None:
            looked.append(name)

        group = Group((), None, 1)
        for number in range(MAX_LOOKS + 10):
            name = f"t{number}"
            self.balance.add(name, lambda name=name: pid_of(name), 1.0, group)  # type: ignore[misc]
        self.clock.advance(LOOK_S)
        self.clock.advance(LOOK_S)
        self.assertEqual(len(looked), 2 * MAX_LOOKS)
        self.assertEqual(len(set(looked)), MAX_LOOKS + 10)
