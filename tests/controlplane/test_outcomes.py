"""The memory of repeated commands: bounded, and honest about what it forgot."""

from __future__ import annotations

from unittest import mock

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import outcomes
from pbcluster.controlplane.outcomes import Outcome, Outcomes, OutcomesImage, encode_each
from pbcluster.errors import SessionExpired


def decoded(image: OutcomesImage) -> list[tuple[str, Outcome]]:
    head = b"\xdd" + len(image).to_bytes(4)
    return msgspec.msgpack.decode(head + b"".join(image.encoded()), type=list[tuple[str, Outcome]])


#: Few of everything, so that each bound is met often.
SMALL = mock.patch.multiple(outcomes, MAX_OUTCOMES=5, MAX_SPENT=4, BLOCK=2)
KEYS = st.lists(st.integers(0, 19).map(str))


class EncodeTests(SynchronousTestCase):
    def test_encode_each(self) -> None:
        """A list without its head, whose length depends on the list's."""
        for count in (0, 1, 15, 16, 17, 2**16 - 1, 2**16):
            found = encode_each([7] * count)
            self.assertEqual(found, b"\x07" * count)


class Model:
    """The same memory without blocks."""

    def __init__(self) -> None:
        self.newest: dict[str, Outcome] = {}
        self.spent: list[str] = []

    def recall(self, key: str) -> Outcome | None:
        if key in self.spent:
            raise SessionExpired("spent")
        return self.newest.get(key)

    def remember(self, key: str, outcome: Outcome) -> None:
        self.newest[key] = outcome
        if len(self.newest) > 5:
            oldest = next(iter(self.newest))
            del self.newest[oldest]
            self.spent = [*self.spent, oldest][-4:]


class OutcomeTests(SynchronousTestCase):
    def carry_out(self, memory: Outcomes | Model, key: str, number: int) -> object:
        """What a command under ``key`` comes to; None: it is carried out."""
        try:
            known = memory.recall(key)
        except SessionExpired:
            return "spent"
        if known is None:
            memory.remember(key, Outcome(number))
        return known

    def test_three_ages(self) -> None:
        """Remembered, known to be used, and unknown: in this order, the oldest first."""
        memory = Outcomes()
        with (
            mock.patch.object(outcomes, "MAX_OUTCOMES", 2),
            mock.patch.object(outcomes, "MAX_SPENT", 3),
        ):
            for number in range(7):
                memory.remember(f"k{number}", Outcome(number))
        self.assertEqual([memory.recall(key) for key in ("k5", "k6")], [Outcome(5), Outcome(6)])
        for key in ("k2", "k3", "k4"):
            self.assertRaises(SessionExpired, memory.recall, key)
        for key in ("k0", "k1", "new"):
            self.assertIsNone(memory.recall(key))

    def test_without_a_key(self) -> None:
        """Nothing is remembered, and nothing found."""
        memory = Outcomes()
        memory.remember("", Outcome(1))
        self.assertIsNone(memory.recall(""))
        self.assertEqual(list(memory.newest()), [])

    @given(KEYS)
    def test_it_is_what_a_plain_dictionary_is(self, keys: list[str]) -> None:
        """Blocks are how it is kept, and change nothing."""
        memory, model = Outcomes(), Model()
        with SMALL:
            for number, key in enumerate(keys):
                told = self.carry_out(memory, key, number)
                self.assertEqual(told, self.carry_out(model, key, number))
                self.assertEqual(list(memory.newest()), list(model.newest.items()))
                self.assertEqual(len(memory.spent()), 8 * len(model.spent))

    @given(KEYS, st.integers(0, 40))
    def test_an_image_is_of_its_moment(self, keys: list[str], at: int) -> None:
        """What comes and goes later is not seen in it, whether its blocks were encoded before."""
        memory = Outcomes()
        with SMALL:
            for number, key in enumerate(keys):
                if number == at:
                    image, then = memory.image(), list(memory.newest())
                    self.assertEqual(decoded(memory.image()), then)
                    spent = memory.spent()
                self.carry_out(memory, key, number)
            self.assertEqual(decoded(memory.image()), list(memory.newest()))
            if at < len(keys):
                self.assertEqual((decoded(image), image.spent), (then, spent))

    def test_a_block_is_encoded_once(self) -> None:
        """Snapshots of a busy group come every second or two."""
        memory = Outcomes()
        with SMALL:
            for number in range(5):
                memory.remember(str(number), Outcome(number))
        first, again = list(memory.image().encoded()), list(memory.image().encoded())
        self.assertEqual(len(first), 3)  # two blocks and the rest
        self.assertEqual([a is b for a, b in zip(first, again, strict=True)], [True, True, False])

    @given(KEYS)
    def test_a_copy_knows_the_same(self, keys: list[str]) -> None:
        """What a snapshot holds is all there is, in the same order."""
        memory = Outcomes()
        with SMALL:
            for number, key in enumerate(keys):
                self.carry_out(memory, key, number)
        copy = Outcomes(memory.newest(), memory.spent())
        self.assertEqual(list(copy.newest()), list(memory.newest()))
        self.assertEqual(copy.spent(), memory.spent())
