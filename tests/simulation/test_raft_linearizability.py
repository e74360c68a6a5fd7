"""The judge of histories is itself judged, on histories known to be good or bad."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.raft_sim.linearizability import (
    EMPTY,
    NEVER,
    REFUSED,
    Operation,
    State,
    first_bad_key,
)


def op(kind: str, value: object, called: int, returned: int = NEVER, key: str = "x") -> Operation:
    """A get with the list it read; an add with its value (and length, after a slash); a put with
    its value; an assign with what it expected (and its result, after a slash)."""
    if kind == "get":
        items = tuple(value) if isinstance(value, tuple) else ()
        return Operation("c", kind, key, "", called, returned, (items, "", 0))
    text, _, told = str(value).partition("/")
    result: object = int(told) if told.isdigit() else told or None
    if kind == "put" and returned != NEVER:
        result = True
    return Operation("c", kind, key, text, called, returned, result)


def saw(items: tuple[str, ...], register: str, number: int, called: int) -> Operation:
    """A get of the whole state."""
    return Operation("c", "get", "x", "", called, called + 1, (items, register, number))


class KnownHistories(SynchronousTestCase):
    def good(self, *history: Operation) -> None:
        self.assertIsNone(first_bad_key(history))

    def bad(self, *history: Operation) -> None:
        self.assertEqual(first_bad_key(history), "x")

    def test_one_after_the_other(self) -> None:
        """What was written is read."""
        self.good(op("add", "a/1", 0, 1), op("get", ("a",), 2, 3))
        self.bad(op("add", "a/1", 0, 1), op("get", (), 2, 3))
        self.good(op("put", "p", 0, 1), saw((), "p", 0, 2))
        self.bad(op("put", "p", 0, 1), saw((), "", 0, 2))

    def test_a_stale_read_is_bad(self) -> None:
        """The old value after the new one was acknowledged."""
        self.bad(op("add", "a/1", 0, 1), op("add", "b/2", 2, 3), op("get", ("a",), 4, 5))
        self.bad(op("put", "a", 0, 1), op("put", "b", 2, 3), saw((), "a", 0, 4))

    def test_a_read_during_a_write_may_see_either(self) -> None:
        """But two reads, one after the other, may not go back."""
        old, new = op("put", "a", 0, 1), op("put", "b", 2, 9)
        self.good(old, new, saw((), "a", 0, 3), saw((), "b", 0, 5))
        self.bad(old, new, saw((), "b", 0, 3), saw((), "a", 0, 5))

    def test_only_one_of_two_assignments_that_expect_the_same_succeeds(self) -> None:
        """The other is refused; a refusal needs somebody who was faster."""
        self.good(op("assign", "0/1", 0, 5), op("assign", f"0/{REFUSED}", 0, 5))
        self.bad(op("assign", "0/1", 0, 5), op("assign", "0/1", 0, 5))
        self.bad(op("assign", f"0/{REFUSED}", 0, 5))
        self.good(op("assign", "0", 0), op("assign", f"0/{REFUSED}", 1, 5))

    def test_a_refused_assignment_that_was_done_is_bad(self) -> None:
        """As when it ran twice, and the second answer was given."""
        self.bad(op("assign", f"0/{REFUSED}", 0, 5), saw((), "", 1, 6))

    def test_the_parts_are_one_state(self) -> None:
        """A read sees all of them at one moment."""
        first, second = op("add", "a/1", 0, 1), op("put", "p", 2, 3)
        self.good(first, second, saw(("a",), "p", 0, 4))
        self.bad(first, second, saw((), "p", 0, 2))

    def test_a_lost_acknowledged_write_is_bad(self) -> None:
        """Nobody sees it any more."""
        self.bad(op("add", "a/1", 0, 1), op("add", "b/1", 2, 3))
        self.good(op("add", "a/1", 0, 1), op("add", "b/2", 2, 3))

    def test_a_doubled_write_is_bad(self) -> None:
        """An add that ran twice shows."""
        self.bad(op("add", "a/1", 0, 1), op("get", ("a", "a"), 2, 3))

    def test_an_unknown_outcome_may_be_either(self) -> None:
        """Never, or any time after its call, also much later; but not before, and not twice."""
        unknown = op("add", "a", 0)
        self.good(unknown, op("get", (), 5, 6))
        self.good(unknown, op("get", ("a",), 5, 6))
        self.good(unknown, op("get", (), 5, 6), op("get", ("a",), 7, 8))
        self.bad(unknown, op("get", ("a",), 5, 6), op("get", (), 7, 8))
        self.bad(op("get", ("a",), 1, 2), op("add", "a", 3))
        self.bad(unknown, op("get", ("a", "a"), 5, 6))

    def test_what_nobody_wrote_is_bad(self) -> None:
        """A value out of nowhere."""
        self.bad(op("add", "a/1", 0, 1), op("get", ("z",), 2, 3))

    def test_keys_are_judged_apart(self) -> None:
        """The bad one is named."""
        history = [op("add", "a/1", 0, 1, key="y"), op("get", ("a",), 2, 3, key="y")]
        self.assertEqual(first_bad_key([*history, op("get", ("q",), 0, 1)]), "x")

    def test_a_subtle_one(self) -> None:
        """Two overlapping writes seen in both orders by two readers one after the other."""
        writes = (op("put", "a", 0, 9), op("put", "b", 0, 9))
        self.good(*writes, saw((), "a", 0, 1), saw((), "b", 0, 3))
        self.bad(*writes, saw((), "a", 0, 1), saw((), "b", 0, 3), saw((), "a", 0, 5))


class DrawnHistories(SynchronousTestCase):
    @given(
        st.lists(
            st.tuples(st.sampled_from(["get", "put", "add", "assign"]), st.integers(0, 6)),
            max_size=12,
        ),
        st.data(),
    )
    def test_what_happened_in_an_order_is_good(
        self, steps: list[tuple[str, int]], data: st.DataObject
    ) -> None:
        """Operations that really happened one at a time, at a moment within their interval."""
        state: State = EMPTY
        history = []
        for number, (kind, width) in enumerate(steps):
            moment = 10 * number
            called, returned = moment - data.draw(st.integers(0, 25)), moment + 4 * width
            items, register, epoch = state
            value, result = f"v{number}", None
            if kind == "add":
                items = (*items, value)
                result = len(items)
            elif kind == "put":
                register, result = value, True
            elif kind == "assign":
                value = str(data.draw(st.integers(0, 3)))
                fits = int(value) == epoch
                epoch += fits
                result = epoch if fits else REFUSED
            state = (items, register, epoch)
            if kind == "get":
                result = state
            history.append(Operation("c", kind, "x", value, called, returned, result))
        self.assertIsNone(first_bad_key(history))

    @given(st.integers(1, 8), st.data())
    def test_a_read_of_the_past_is_found(self, writes: int, data: st.DataObject) -> None:
        """After acknowledged adds, a read that misses the last ones."""
        history = [
            Operation("c", "add", "x", f"v{i}", 10 * i, 10 * i + 5, i + 1) for i in range(writes)
        ]
        seen = data.draw(st.integers(0, writes - 1))
        values = tuple(f"v{i}" for i in range(seen))
        history.append(Operation("c", "get", "x", "", 1000, 1001, (values, "", 0)))
        self.assertEqual(first_bad_key(history), "x")
