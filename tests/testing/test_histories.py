"""The judge of histories finds each promise that a bad control plane breaks, and only those."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.histories import (
    CREATE,
    LOOKUP,
    MISSING,
    OK,
    READ,
    REFUSED,
    UNKNOWN,
    Operation,
    Verdict,
    judge,
    longest_wait,
)


def create(name: str, at: float, outcome: str = OK, key: str = "", tid: str = "") -> Operation:
    found = tid or (f"id_{name}" if outcome == OK else "")
    return Operation(CREATE, name, at, at + 0.1, outcome, found, key or f"k_{name}", "member_1")


def read(name: str, at: float, outcome: str = OK, tid: str = "") -> Operation:
    found = tid or (f"id_{name}" if outcome == OK else "")
    return Operation(READ, name, at, at + 0.1, outcome, found, "", "member_2")


GOOD = [
    create("a", 1.0),
    read("a", 2.0),
    create("b", 2.0, UNKNOWN),
    create("b", 3.0),
    create("c", 3.0, UNKNOWN),
    create("d", 3.0, REFUSED),
    read("d", 4.0, MISSING),
]
FINAL = [("a", "id_a"), ("b", "id_b")]


class JudgeTests(SynchronousTestCase):
    def judged(self, *more: Operation, final: list[tuple[str, str]] = FINAL) -> Verdict:
        return judge([*GOOD, *more], final)

    def only(self, verdict: Verdict, kind: str) -> str:
        """The only broken promise is of this kind: its sentence."""
        wrong = attrs.asdict(verdict)
        (told,) = wrong.pop(kind)
        self.assertEqual(
            [name for name, value in wrong.items() if isinstance(value, tuple) and value], []
        )
        self.assertFalse(verdict.good)
        return str(told)

    def test_good(self) -> None:
        """Kept promises; a creation of unknown fate may be there or not."""
        self.assertEqual(self.judged(), Verdict(acknowledged=2, reads=2))
        self.assertTrue(self.judged(final=[*FINAL, ("c", "id_c")]).good)

    def test_lost(self) -> None:
        """Acknowledged and not there."""
        self.assertEqual(self.only(self.judged(final=FINAL[:1]), "lost"), "b")

    def test_doubled_name(self) -> None:
        """The same name twice in the list, even if nobody knew whether it was made."""
        verdict = self.judged(final=[*FINAL, ("c", "id_1"), ("c", "id_2")])
        self.assertIn("c stands 2 times", self.only(verdict, "doubled"))

    def test_doubled_key(self) -> None:
        """A repeated creation that made another tenant."""
        verdict = judge(
            [create("a", 1.0, key="k"), create("a", 2.0, key="k", tid="id_2")], [("a", "id_2")]
        )
        self.assertIn("key k made ['id_2', 'id_a']", self.only(verdict, "doubled"))

    def test_stale(self) -> None:
        """A read that began after the acknowledgement and found nothing; one that began before it,
        or that nobody answered, is none."""
        told = self.only(self.judged(read("a", 1.5, MISSING)), "stale")
        self.assertIn("0.400 s before member_2 was asked", told)
        self.assertTrue(self.judged(read("a", 1.05, MISSING), read("a", 1.5, UNKNOWN)).good)

    def test_an_older_epoch(self) -> None:
        """A read with a lower epoch than was acknowledged; a look-up with a lower one than it asked
        for. A look-up that finds nothing promised nothing."""
        ack = attrs.evolve(create("a", 1.0), epoch=2)
        for epoch, kept in ((1, False), (2, True), (3, True)):
            again = attrs.evolve(read("a", 1.5), epoch=epoch)
            self.assertEqual(judge([ack, again], FINAL[:1]).good, kept)
            found = Operation(
                LOOKUP, "a", 1.0, 1.1, OK, member="member_3", epoch=epoch, min_epoch=2
            )
            verdict = self.judged(found)
            self.assertEqual(verdict.lookups, 1)
            self.assertEqual(verdict.good, kept)
        self.assertTrue(self.judged(attrs.evolve(found, outcome=MISSING, epoch=0)).good)

    def test_changed(self) -> None:
        """Another id than was acknowledged: in a read, in the list."""
        told = self.only(self.judged(read("a", 1.5, tid="id_x")), "changed")
        self.assertIn("as id_a, member_2 has id_x", told)
        told = self.only(self.judged(final=[("a", "id_y"), FINAL[1]]), "changed")
        self.assertIn("the list has id_y", told)

    def test_invented(self) -> None:
        """What was refused, or never asked for, is there."""
        self.assertEqual(self.only(self.judged(final=[*FINAL, ("d", "id_d")]), "invented"), "d")
        self.assertEqual(self.only(self.judged(final=[*FINAL, ("e", "id_e")]), "invented"), "e")

    def test_longest_wait(self) -> None:
        """Between a moment and the acknowledgements after it, up to an end; no others count."""
        history = [create("a", 1.0), create("b", 3.0, UNKNOWN), create("c", 4.0), create("d", 4.2)]
        self.assertAlmostEqual(longest_wait(history, 0.5), 3.0)
        self.assertAlmostEqual(longest_wait(history, 1.5), 2.6)
        self.assertAlmostEqual(longest_wait(history, 4.0, 4.15), 0.1)
        self.assertEqual(longest_wait(history, 9.0), float("inf"))
