"""What leaves together, and what does not."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.transport.envelopes import seal
from pbcluster.transport.gathering import GATHERED, Gathering
from tests.transport.bodies import envelope


def frame(number: int, size: int = 0) -> bytes:
    return seal(envelope(request_id=number, idempotency_key="k" * size))


def numbers(sent: bytes) -> list[int]:
    """Of the messages in a frame."""
    if sent.startswith(wire.BUNDLE_MAGIC):
        return [each.request_id for each in wire.decode_bundle(sent)]
    return [wire.decode(sent).request_id]


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[str, list[int]]] = []
        self.unsent: list[tuple[str, Sequence[int]]] = []
        self.reachable = True
        self.gathering: Gathering[str] = Gathering(
            self.clock, self.wire, lambda *told: self.unsent.append(told)
        )
        self.gathering.reads("a", True)
        self.gathering.reads("b", True)

    def wire(self, session: str, sent: bytes) -> bool:
        if self.reachable:
            self.sent.append((session, numbers(sent)))
        return self.reachable

    def send(self, session: str, *each: int, size: int = 0) -> None:
        for number in each:
            self.assertTrue(self.gathering.send(session, frame(number, size), number))

    def turn(self) -> None:
        self.clock.advance(0)


class InTurns(Case):
    def test_the_first_does_not_wait(self) -> None:
        """What comes alone leaves at once; what follows in its turn leaves together at the end."""
        self.send("a", 1)
        self.assertEqual(self.sent, [("a", [1])])
        self.send("a", 2, 3, 4)
        self.assertEqual(self.sent, [("a", [1])])
        self.turn()
        self.assertEqual(self.sent, [("a", [1]), ("a", [2, 3, 4])])
        self.send("a", 5)
        self.assertEqual(self.sent[2:], [("a", [5])])
        self.turn()
        self.assertEqual(len(self.sent), 3)
        self.assertEqual(self.gathering.counts, {"bundles": 1, "bundled": 3})
        self.assertFalse(self.clock.getDelayedCalls())

    def test_sessions_are_apart(self) -> None:
        """Each gets its own."""
        for number in (1, 2, 3):
            self.send("a", number)
            self.send("b", number + 10)
        self.turn()
        self.assertEqual(self.sent, [("a", [1]), ("b", [11]), ("a", [2, 3]), ("b", [12, 13])])

    def test_many_leave_before_the_end(self) -> None:
        """So that the other side begins, and no bundle is larger than what may be read."""
        self.send("a", *range(2 * GATHERED + 2))
        sizes = [len(found) for _, found in self.sent]
        self.assertEqual(sizes, [1, GATHERED, GATHERED])
        self.turn()
        found = [number for _, each in self.sent for number in each]
        self.assertEqual(found, list(range(2 * GATHERED + 2)))
        self.assertLessEqual(GATHERED, wire.MAX_BUNDLED)

    def test_who_reads_none_gets_none(self) -> None:
        """Who never said so, who says so no more, and who comes after a lost session."""
        self.send("other", 1, 2, 3)
        self.assertEqual(self.sent, [("other", [1]), ("other", [2]), ("other", [3])])
        self.gathering.forget("a")
        self.gathering.reads("b", False)
        del self.sent[:]
        self.send("a", 4, 5)
        self.send("b", 6, 7)
        self.assertEqual([found for _, found in self.sent], [[4], [5], [6], [7]])
        self.assertFalse(self.clock.getDelayedCalls())

    def test_who_reads_none_any_more(self) -> None:
        """What waits for it leaves in its order, each alone."""
        self.send("a", 1, 2, 3)
        self.gathering.reads("a", False)
        self.assertEqual(self.sent, [("a", [1]), ("a", [2]), ("a", [3])])
        self.turn()
        self.assertEqual(len(self.sent), 3)
        self.assertEqual(self.gathering.counts, {"bundles": 0, "bundled": 0})

    def test_what_is_large_goes_alone_and_behind(self) -> None:
        """The order stays: first what waited."""
        self.send("a", 1, 2, 3)
        self.send("a", 4, size=wire.MAX_BUNDLED_BYTES)
        self.assertEqual(self.sent, [("a", [1]), ("a", [2, 3]), ("a", [4])])
        self.send("a", 5)
        self.assertTrue(self.gathering.send_alone("a", frame(6)))
        self.turn()
        self.assertEqual(self.sent[3:], [("a", [5]), ("a", [6])])

    def test_what_cannot_be_sent_is_told(self) -> None:
        """At once for what does not wait, by its numbers for what did."""
        self.send("a", 1, 2, 3)
        self.reachable = False
        self.assertFalse(self.gathering.send("b", frame(9), 9))
        self.turn()
        self.assertEqual(self.unsent, [("a", [2, 3])])

    def test_a_session_that_ends_gets_what_waited(self) -> None:
        """If it still can; nothing is kept for it."""
        self.send("a", 1, 2, 3)
        self.gathering.forget("a")
        self.assertEqual(self.sent, [("a", [1]), ("a", [2, 3])])
        self.turn()
        self.assertEqual(len(self.sent), 2)

    def test_stop(self) -> None:
        """Nothing waits afterwards, no call is left, and what is sent goes at once."""
        self.send("a", 1, 2, 3)
        self.gathering.stop()
        self.assertEqual(self.sent, [("a", [1]), ("a", [2, 3])])
        self.assertFalse(self.clock.getDelayedCalls())
        self.send("a", 4, 5)
        self.assertEqual([found for _, found in self.sent[2:]], [[4], [5]])


class WhileHeld(Case):
    def test_the_first_waits_too(self) -> None:
        """And all leave when the hold ends, with what waited for the end of the turn."""
        self.send("a", 1, 2)
        self.gathering.hold()
        self.send("a", 3, 4)
        self.gathering.hold()
        self.send("b", 5)
        self.gathering.release()
        self.assertEqual(self.sent, [("a", [1])])
        self.gathering.release()
        self.assertEqual(self.sent[1:], [("a", [2, 3, 4]), ("b", [5])])
        self.send("a", 6, 7)
        self.assertEqual(self.sent[3:], [("a", [6])])
        self.turn()
        self.assertEqual(self.sent[4:], [("a", [7])])
        self.assertFalse(self.clock.getDelayedCalls())

    def test_a_failed_first_of_a_turn(self) -> None:
        """Is told at once; those behind it by their numbers, when the turn ends."""
        self.reachable = False
        self.assertFalse(self.gathering.send("a", frame(1), 1))
        self.send("a", 2, 3)
        self.turn()
        self.assertEqual(self.unsent, [("a", [2, 3])])
        self.assertFalse(self.clock.getDelayedCalls())

    def test_many(self) -> None:
        """What is full leaves before the end, what is large behind what waits."""
        self.gathering.hold()
        self.send("a", *range(GATHERED + 2))
        self.assertEqual(self.sent, [("a", list(range(GATHERED)))])
        self.send("a", 90, size=wire.MAX_BUNDLED_BYTES)
        self.assertEqual(self.sent[1:], [("a", [GATHERED, GATHERED + 1]), ("a", [90])])
        self.send("a", 91)
        self.gathering.release()
        self.assertEqual(self.sent[3:], [("a", [91])])

    def test_what_goes_elsewhere_joins_what_waits_there(self) -> None:
        """Questions that cannot leave to one are sent to another from within: behind those that
        wait for it, and together with them."""

        def unsent(session: str, each: Sequence[int]) -> None:
            self.unsent.append((session, each))
            self.send("b", *each)

        gathering: Gathering[str] = Gathering(
            self.clock,
            lambda session, frame: session != "a" and self.wire(session, frame),
            unsent,
        )
        self.gathering = gathering
        gathering.reads("a", True)
        gathering.reads("b", True)
        gathering.hold()
        self.send("a", 1, 2, 3)
        self.send("b", 4, 5)
        gathering.release()
        self.assertEqual(self.unsent, [("a", [1, 2, 3])])
        self.assertEqual(self.sent, [("b", [4, 5, 1, 2, 3])])
        self.send("b", 6)
        self.assertEqual(self.sent[1:], [("b", [6])])

    def test_what_breaks_counts_as_unsent(self) -> None:
        """And does not keep what waits for others."""
        gathering: Gathering[str] = Gathering(
            self.clock,
            lambda session, frame: self.broken() if session == "a" else self.wire(session, frame),
            lambda *told: self.unsent.append(told),
        )
        self.gathering = gathering
        gathering.reads("a", True)
        gathering.reads("b", True)
        gathering.hold()
        self.send("a", 1, 2)
        self.send("b", 3, 4)
        gathering.release()
        self.assertEqual(self.unsent, [("a", [1, 2])])
        self.assertEqual(self.sent, [("b", [3, 4])])
        self.assertEqual(gathering.counts, {"bundles": 1, "bundled": 2})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def broken(self) -> bool:
        raise ZeroDivisionError

    def test_an_end_while_held(self) -> None:
        """A session that ends, and a stop, send what waits at once; the release finds nothing."""
        self.gathering.hold()
        self.send("a", 1, 2)
        self.send("b", 3, 4)
        self.gathering.forget("a")
        self.assertEqual(self.sent, [("a", [1, 2])])
        self.gathering.stop()
        self.assertEqual(self.sent[1:], [("b", [3, 4])])
        self.gathering.release()
        self.assertEqual(len(self.sent), 2)
