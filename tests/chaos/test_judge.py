"""The judge of the chaos stories sees each kind of broken promise, and nothing where none is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.chaos.history import ADMIN, History, Operation
from pbcluster.testing.chaos.judge import KINDS, Permits, judge
from tests.chaos.planted import Planted, row


class JudgeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.planted = Planted()

    def check(self, history: History, kind: str = "", permits: Permits | None = None) -> None:
        """Exactly one promise of this kind is broken, or none at all."""
        verdict = judge(history, permits or Permits())
        self.assertEqual(verdict.counts(), {k: int(k == kind) for k in KINDS}, verdict.told())
        self.assertEqual(verdict.good, not kind)
        self.assertEqual(len(verdict.told()), int(bool(kind)))


class RowTests(JudgeTestCase):
    def test_all_is_well(self) -> None:
        """Rows, pairs and registers as they were written, and reads that saw them."""
        self.planted.create("k")
        self.planted.pair("p")
        self.planted.update("reg", 1)
        self.planted.update("reg", 2)
        self.planted.look("k")
        self.planted.read("reg", 2)
        history = self.planted.ends_with(
            row("k"), row("p", "a"), row("p", "b"), row("reg", n=2, value="")
        )
        history.replicas["t"] = history.rows["t"]
        self.check(history)
        verdict = judge(history)
        self.assertEqual((verdict.acknowledged, verdict.reads, verdict.probes), (4, 2, 0))

    def test_lost(self) -> None:
        """An acknowledged row, half of a pair, or step of a register that is not there."""
        self.planted.create("k")
        self.check(self.planted.ends_with(), "lost")

    def test_half_of_a_pair_is_lost(self) -> None:
        self.planted.pair("p")
        self.check(self.planted.ends_with(row("p", "b")), "lost")

    def test_a_register_fell_back(self) -> None:
        self.planted.update("reg", 1)
        self.planted.update("reg", 2)
        self.check(self.planted.ends_with(row("reg", n=1, value="")), "lost")

    def test_rows_of_earlier_rounds(self) -> None:
        """They are looked for, too."""
        earlier = [self.planted.create("old")]
        self.planted.history.operations.clear()
        history = self.planted.ends_with()
        self.assertEqual(len(judge(history, earlier=earlier).lost), 1)
        self.assertTrue(judge(self.planted.ends_with(row("old")), earlier=earlier).good)

    def test_lost_in_s3(self) -> None:
        """What was acknowledged as being in S3 is in the replica; what is on one disk need not."""
        self.planted.create("k")
        self.planted.add("create", "l", durability="local")
        history = self.planted.ends_with(row("k"), row("l"))
        history.replicas["t"] = [row("k")]
        self.check(history)
        history.replicas["t"] = [row("l")]
        self.check(history, "lost")

    def test_lost_with_a_disk(self) -> None:
        """A story that takes the disk away may lose local rows, no others."""
        self.planted.add("create", "l", durability="local")
        history = self.planted.ends_with()
        self.check(history, "lost")
        self.check(history, permits=Permits(local_loss=True))
        self.planted.create("k")
        self.check(history, "lost", permits=Permits(local_loss=True))

    def test_unclear(self) -> None:
        """A write without an answer is there or not."""
        self.planted.create("k", 0)
        permits = Permits(writes=frozenset((0,)))
        self.check(self.planted.ends_with(), permits=permits)
        self.check(self.planted.ends_with(row("k")), permits=permits)

    def test_doubled(self) -> None:
        """A write that was sent twice, acknowledged or not."""
        self.planted.create("k", 0)
        permits = Permits(writes=frozenset((0,)))
        self.check(self.planted.ends_with(row("k"), row("k")), "doubled", permits)

    def test_torn(self) -> None:
        """Half of a pair that was not acknowledged; a row with another text."""
        self.planted.pair("p", 0)
        permits = Permits(writes=frozenset((0,)))
        self.check(self.planted.ends_with(row("p", "a")), "torn", permits)
        self.check(self.planted.ends_with(row("p", "a"), row("p", "b")), permits=permits)

    def test_another_text(self) -> None:
        self.planted.create("k")
        self.check(self.planted.ends_with(row("k", value="k")), "torn")

    def test_invented(self) -> None:
        """A row that nobody asked for, or whose creation was refused; a register that nobody
        wrote."""
        self.planted.create("k")
        self.check(self.planted.ends_with(row("k"), row("x")), "invented")

    def test_refused_and_there(self) -> None:
        self.planted.create("k", 400)
        permits = Permits(writes=frozenset((400,)))
        self.check(self.planted.ends_with(row("k")), "invented", permits)

    def test_a_register_that_nobody_wrote(self) -> None:
        self.planted.update("reg", 1)
        self.check(self.planted.ends_with(row("reg", n=3, value="")), "invented")


class ReadTests(JudgeTestCase):
    def test_stale(self) -> None:
        """A row that was acknowledged before the read began is not found, whoever is asked."""
        for node in ("", "node_1"):
            planted = Planted()
            planted.claim(1, "node_1")
            planted.create("k")
            planted.look("k", 404, node=node)
            self.check(planted.ends_with(row("k")), "stale")

    def test_not_yet(self) -> None:
        """A read that began before the acknowledgement came may miss it."""
        self.planted.create("k", begun_s=0.0, ended_s=5.0)
        self.planted.look("k", 404, begun_s=4.9, ended_s=6.0)
        self.check(self.planted.ends_with(row("k")))

    def test_a_stale_register(self) -> None:
        """An older value than the acknowledged one; an unclear write may be seen or not."""
        self.planted.update("reg", 1)
        self.planted.update("reg", 2, 0)
        permits = Permits(writes=frozenset((0,)))
        self.planted.read("reg", 1)
        history = self.planted.ends_with(row("reg", n=2, value=""))
        self.check(history, permits=permits)
        self.planted.read("reg", 0)
        self.check(history, "stale", permits)

    def test_backwards(self) -> None:
        """What one client saw of a write that is acknowledged later, another does not see."""
        self.planted.update("reg", 1)
        self.planted.read("reg", 2, client="one")
        self.planted.read("reg", 1, client="another")
        self.planted.update("reg", 2, begun_s=0.5, ended_s=9.0)
        self.check(self.planted.ends_with(row("reg", n=2, value="")), "backwards")

    def test_vanished(self) -> None:
        """What was never acknowledged may have been seen and vanish, without durable reads."""
        self.planted.update("reg", 1)
        self.planted.update("reg", 2, 0)
        permits = Permits(writes=frozenset((0,)))
        self.planted.read("reg", 2, client="one")
        history = self.planted.ends_with(row("reg", n=1, value=""))
        self.check(history, permits=permits)
        self.planted.read("reg", 1, client="another")
        self.check(history, permits=permits)
        self.assertEqual(judge(history, permits).vanished, 1)
        self.assertEqual(judge(history, permits, durable_reads=True).counts()["backwards"], 1)

    def test_reads_at_the_same_time(self) -> None:
        """Of two reads at once either may see the write."""
        self.planted.update("reg", 1)
        self.planted.update("reg", 2, 0)
        self.planted.read("reg", 2, begun_s=5.0, ended_s=7.0)
        self.planted.read("reg", 1, begun_s=6.0, ended_s=8.0)
        history = self.planted.ends_with(row("reg", n=2, value=""))
        self.check(history, permits=Permits(writes=frozenset((0,))))

    def test_a_torn_read(self) -> None:
        self.planted.create("k")
        self.planted.look("k", right=False, detail="half")
        self.check(self.planted.ends_with(row("k")), "torn")


class FailureTests(JudgeTestCase):
    def test_failed(self) -> None:
        """A request without its answer is blamed, unless the story permits its status."""
        self.planted.create("k", 502)
        history = self.planted.ends_with()
        self.check(history, "failed")
        self.check(history, permits=Permits(writes=frozenset((502,))))
        self.check(history, "failed", Permits(reads=frozenset((502,))))

    def test_too_many(self) -> None:
        """Even of those that are permitted only so many."""
        for key in "abc":
            self.planted.create(key, 502)
        history = self.planted.ends_with()
        self.check(history, permits=Permits(writes=frozenset((502,)), most_writes=3))
        self.check(history, "failed", Permits(writes=frozenset((502,)), most_writes=2))

    def test_reads_fail(self) -> None:
        self.planted.look("k", 503)
        history = self.planted.ends_with()
        self.check(history, "failed")
        self.check(history, permits=Permits(reads=frozenset((503,))))

    def test_the_control_plane_fails(self) -> None:
        self.planted.add(ADMIN, "member_1", 503)
        history = self.planted.ends_with()
        self.check(history, "failed")
        self.check(history, permits=Permits(plane=True))

    def test_damaged(self) -> None:
        """A replica that could not be restored whole."""
        self.planted.history.damaged.append("t: not whole")
        self.check(self.planted.ends_with(), "damaged")


class OwnerTests(JudgeTestCase):
    def answers(self, *nodes: str, **more: float) -> list[Operation]:
        return [self.planted.probe(node) for node in nodes]

    def test_one_after_the_other(self) -> None:
        """There and back, each under an epoch of its own; at once while they change."""
        for epoch, node in ((1, "node_1"), (2, "node_2"), (3, "node_1")):
            self.planted.claim(epoch, node)
        self.answers("node_1", "node_1", "node_2", "node_2", "node_1")
        self.check(self.planted.ends_with())

    def test_two_owners(self) -> None:
        """The old one answers after the new one did."""
        self.planted.claim(1, "node_1")
        self.planted.claim(2, "node_2")
        self.answers("node_1", "node_2")
        self.check(self.planted.ends_with())
        self.answers("node_1")
        self.check(self.planted.ends_with(), "owners")

    def test_answers_that_overlap(self) -> None:
        """An answer that was asked for before the new owner's came may be older."""
        self.planted.claim(1, "node_1")
        self.planted.claim(2, "node_2")
        self.planted.probe("node_2", begun_s=1.0, ended_s=2.0)
        self.planted.probe("node_1", begun_s=1.5, ended_s=3.0)
        self.check(self.planted.ends_with())

    def test_a_frozen_answer(self) -> None:
        """What a frozen owner answers when it wakes up was asked for before: only a later question
        shows that it still takes itself for the owner."""
        self.planted.claim(1, "node_1")
        self.planted.claim(2, "node_2")
        self.planted.probe("node_1", begun_s=0.0, ended_s=9.0)
        self.planted.probe("node_2", begun_s=5.0, ended_s=6.0)
        self.check(self.planted.ends_with())
        self.planted.probe("node_1", begun_s=8.0, ended_s=9.0)
        self.check(self.planted.ends_with(), "owners")

    def test_before_its_claim(self) -> None:
        """A node answers before it stood in S3, or never stood there."""
        self.planted.claim(1, "node_1")
        self.answers("node_1")
        self.planted.claim(2, "node_2", after_s=5.0)
        self.answers("node_2")
        self.check(self.planted.ends_with(), "owners")

    def test_never_claimed(self) -> None:
        self.planted.claim(1, "node_1")
        self.answers("node_2")
        self.check(self.planted.ends_with(), "owners")
