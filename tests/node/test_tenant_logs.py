"""What the tenants' processes printed: bounds, cursors, escapes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node import tenant_logs
from pbcluster.node.tenant_logs import (
    BURST,
    MAX_ANSWER_BYTES,
    MAX_BYTES,
    MAX_LINES,
    MAX_TENANTS,
    RATE,
    TenantLogs,
    escaped,
)
from tests.node.harness import T, U


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.logs = TenantLogs("life")
        self.now = 0.0

    def add(self, *lines: str, tenant: str = T, pace_s: float = 1.0) -> None:
        for line in lines:
            self.now += pace_s
            self.logs.add(tenant, self.now, "t", line)

    def read(self, cursor: str = "", most: int = 100, tenant: str = T) -> tuple[str, ...]:
        return self.logs.read(tenant, cursor, most).lines


class ReadingTests(Case):
    def test_the_last_lines_then_what_follows(self) -> None:
        """Without a cursor the last ones; with one exactly what came after, once."""
        self.add("a", "b", "c")
        first = self.logs.read(T, "", 2)
        self.assertEqual((first.lines, first.missed), (("t b", "t c"), 0))
        self.assertEqual(self.read(first.cursor), ())
        self.add("d")
        self.assertEqual(self.read(first.cursor), ("t d",))

    def test_one_who_follows_gets_it_in_pieces(self) -> None:
        """An answer has so many lines and bytes at most; the next one goes on where it ended."""
        self.add(*(str(number) for number in range(10)))
        cursor, seen = self.logs.read(T, "", 1).cursor, []
        self.add(*(str(number) for number in range(10, 20)))
        for _ in range(4):
            found = self.logs.read(T, cursor, 3)
            self.assertLessEqual(len(found.lines), 3)
            cursor, seen = found.cursor, [*seen, *found.lines]
        self.assertEqual(seen, [f"t {number}" for number in range(10, 20)])

    def test_what_was_missed_is_told(self) -> None:
        """Who asks too late gets what is there, and how much was not."""
        self.add("first")
        cursor = self.logs.read(T, "", 1).cursor
        self.add(*(str(number) for number in range(MAX_LINES + 7)))
        found = self.logs.read(T, cursor, 1)
        self.assertEqual((found.lines, found.missed), (("t 7",), 7))

    def test_a_foreign_cursor(self) -> None:
        """One of another life, of the future, or no cursor at all, begins at what is there."""
        self.add("a", "b")
        for cursor in (
            "other.2",
            "life.99",
            "life.0",
            "life.-1",
            "life.",
            "x",
            "life.²",
            "l" * 999,
        ):
            self.assertEqual(self.read(cursor), ("t a", "t b"), cursor)

    def test_nothing_yet(self) -> None:
        """A tenant that printed nothing has a cursor by which its first line comes."""
        cursor = self.logs.read(T, "", 10).cursor
        self.add("a")
        self.assertEqual(self.read(cursor), ("t a",))

    def test_tenants_see_their_own(self) -> None:
        """Lines of one tenant are read under its id only."""
        self.add("mine")
        self.add("theirs", tenant=U)
        self.assertEqual((self.read(), self.read(tenant=U)), (("t mine",), ("t theirs",)))


class BoundTests(Case):
    def test_lines_and_bytes(self) -> None:
        """A tenant's lines are bounded in number and in bytes, an answer in bytes."""
        self.add(*("x" * 4000 for _ in range(200)))
        log = self.logs._logs[T]
        self.assertLessEqual(log._bytes, MAX_BYTES)
        self.assertEqual(log._bytes, sum(len(line) for line in log._lines))
        size = sum(len(line) for line in self.read("life.1", 500))
        self.assertLessEqual(size, MAX_ANSWER_BYTES)
        self.add(*("" for _ in range(2 * MAX_LINES)))
        self.assertEqual(len(log._lines), MAX_LINES)
        self.assertLessEqual(len(self.read("life.1", 10**9)), tenant_logs.MAX_ANSWER_LINES)

    def test_a_flood(self) -> None:
        """Beyond its rate a tenant loses lines; one line tells how many; its neighbour's stay."""
        self.add("calm", tenant=U)
        lines = int(BURST) + 500
        self.add(*(str(number) for number in range(lines)), pace_s=0.0)
        self.assertEqual(self.read(most=1), (f"t {int(BURST) - 1}",))
        self.now += 1 / RATE
        self.add("after", pace_s=0.0)
        told = "t [pbcluster: 500 lines were dropped here: too fast]"
        self.assertEqual(self.read(most=2), (told, "t after"))
        self.assertEqual(self.read(tenant=U), ("t calm",))

    def test_tenants(self) -> None:
        """So many tenants are kept; the one that printed longest ago goes."""
        for number in range(MAX_TENANTS):
            self.add("x", tenant=f"tenant_{number:08}")
        self.add("again", tenant="tenant_00000000")
        self.add("x")
        self.assertEqual(self.read(tenant="tenant_00000001"), ())
        self.assertEqual(len(self.read(tenant="tenant_00000000")), 2)


class EscapeTests(SynchronousTestCase):
    def test_what_a_terminal_would_obey(self) -> None:
        """Controls, line ends of Unicode, marks that turn or hide text: by number; words stay."""
        for raw, shown in (
            ("plain", "plain"),
            ("é ü ├─ 漢字 😀\t!", "é ü ├─ 漢字 😀\t!"),
            ("\x1b[2J\x07\x00\x7f", "\\x1b[2J\\x07\\x00\\x7f"),
            ("\x9b31m", "\\x9b31m"),
            ("a\rb\x0bc\u2028d\u2029e\x85f", "a\\rb\\x0bc\\u2028d\\u2029e\\x85f"),
            ("\u202eevil\u2066\u200b\ufeff", "\\u202eevil\\u2066\\u200b\\ufeff"),
            ("\ud800\ue000", "\\ud800\\ue000"),
            ("\U000e0041", "\\U000e0041"),
        ):
            self.assertEqual(escaped(raw), shown)
        self.assertEqual(len(escaped("x" * 10_000)), tenant_logs.MAX_LINE)
