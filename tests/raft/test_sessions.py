"""Exactly-once commands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import SessionExpired
from pbcluster.raft.sessions import SessionTable


class SessionTests(SynchronousTestCase):
    def test_a_repetition_gets_the_first_result(self) -> None:
        """And is not to be applied again."""
        table = SessionTable()
        session = table.open(7)
        self.assertEqual(session, 7)
        self.assertIsNone(table.recall(session, 1, 8))
        table.remember(session, 1, b"done")
        self.assertEqual(table.recall(session, 1, 9), b"done")

    def test_numbers_may_come_in_any_order(self) -> None:
        """Several commands are in flight; each runs once."""
        table = SessionTable()
        session = table.open(1)
        for sequence in (3, 1, 2):
            self.assertIsNone(table.recall(session, sequence, 2))
            table.remember(session, sequence, b"%d" % sequence)
        self.assertEqual(table.recall(session, 1, 3), b"1")

    def test_an_unknown_session_is_refused(self) -> None:
        """Never opened, or dropped for others: it is not guessed."""
        table = SessionTable(max_sessions=2)
        first, second = table.open(1), table.open(2)
        table.recall(first, 1, 3)
        table.open(4)
        self.assertRaises(SessionExpired, table.recall, second, 1, 5)
        self.assertIsNone(table.recall(first, 1, 6))
        self.assertRaises(SessionExpired, table.recall, 99, 1, 7)

    def test_a_forgotten_number_is_refused(self) -> None:
        """Its result is gone; and so are numbers below it, which may have run."""
        table = SessionTable(max_results=2)
        session = table.open(1)
        for sequence in (2, 3, 4):
            table.recall(session, sequence, 1)
            table.remember(session, sequence, b"x")
        self.assertRaises(SessionExpired, table.recall, session, 2, 5)
        self.assertRaises(SessionExpired, table.recall, session, 1, 5)
        self.assertEqual(table.recall(session, 3, 5), b"x")

    def test_an_id_is_never_used_twice(self) -> None:
        """A repeated open makes another session: an old command cannot run in a renewed one."""
        table = SessionTable(max_sessions=1)
        first = table.open(1)
        table.open(2)
        self.assertRaises(SessionExpired, table.recall, first, 1, 3)

    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=60))
    def test_a_restored_table_goes_on_alike(self, commands: list[tuple[int, int]]) -> None:
        """Stored and loaded in the middle, it decides like one that never was."""
        tables = [SessionTable(max_sessions=3, max_results=2) for _ in range(2)]
        for index, (choice, sequence) in enumerate(commands, 1):
            if index % 5 == 0:
                fresh = SessionTable(max_sessions=3, max_results=2)
                fresh.load(tables[1].store())
                tables[1] = fresh
            answers = [self._apply(table, index, choice, sequence) for table in tables]
            self.assertEqual(answers[0], answers[1])
            self.assertEqual(tables[0].store(), tables[1].store())
            self.assertLessEqual(len(tables[0]), 3)

    @staticmethod
    def _apply(table: SessionTable, index: int, choice: int, sequence: int) -> object:
        known = [one.session_id for one in table.store()]
        if choice == 0 or not known:
            return table.open(index)
        session = known[choice % len(known)]
        try:
            result = table.recall(session, sequence, index)
        except SessionExpired:
            return "expired"
        if result is None:
            table.remember(session, sequence, b"%d" % index)
        return result
