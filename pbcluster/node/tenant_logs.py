"""What the tenants' PocketBase processes printed last, for operators. Pure.

What holds:

* Bounded: lines and bytes a tenant, tenants in all; the oldest go first. Nothing is on the disk, so
  nothing fills it, and nothing is left after the node's end.
* A tenant that prints faster than its rate loses lines here, and is told so by one line; it costs
  the node no more than the pipe does (which ``processes`` paces).
* Lines are text of one line: control characters, and what turns a terminal's direction around, are
  escaped. Tokens were taken out before (``processes.redacted``).
* A cursor that is not of this node's life, or too old, is no error: reading begins at what is
  there, and how much was missed is told where it is known.
"""

from __future__ import annotations

import unicodedata
from collections import deque

import attrs

from pbcluster.rates import TokenBucket

#: Of one tenant. 200 tenants that use all of it: 25 MB.
MAX_LINES, MAX_BYTES = 1_000, 128 * 1024
#: Tenants whose lines are kept; the one that printed longest ago goes first.
MAX_TENANTS = 1_000
#: Lines a second, and at once after a rest.
RATE, BURST = 100.0, 1_000.0
#: Lines and bytes of one answer: it must fit into a frame.
MAX_ANSWER_LINES, MAX_ANSWER_BYTES = 500, 128 * 1024
#: Of one line: PocketBase's own are short, a stack trace of a hook is a few lines.
MAX_LINE = 4_096
#: Controls, formats (they hide text or turn its direction), surrogates, private use, line ends.
_ESCAPED = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def escaped(text: str) -> str:
    """``text`` on one line that a terminal shows as it is: other characters by their numbers."""
    if text.isascii() and text.isprintable():
        return text[:MAX_LINE]
    shown = (
        character
        if character == "\t" or unicodedata.category(character) not in _ESCAPED
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text[:MAX_LINE]
    )
    return "".join(shown)


@attrs.frozen
class Read:
    """Lines, the oldest first. :ivar cursor: for those after them. :ivar missed: came in between
    and are gone."""

    cursor: str
    lines: tuple[str, ...]
    missed: int


class _Log:
    """One tenant's. :ivar next: number of the next line; the first one has 1."""

    def __init__(self, now: float) -> None:
        self.next = 1
        self._lines: deque[str] = deque()
        self._bytes = 0
        self._bucket = TokenBucket(BURST, now)
        self._dropped = 0

    @property
    def first(self) -> int:
        """Number of the oldest line that is there."""
        return self.next - len(self._lines)

    def add(self, now: float, stamp: str, text: str) -> None:
        if not self._bucket.take(now, RATE, BURST):
            self._dropped += 1
            return
        if self._dropped:
            self._append(f"{stamp} [pbcluster: {self._dropped} lines were dropped here: too fast]")
            self._dropped = 0
        self._append(f"{stamp} {escaped(text)}")

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._bytes += len(line.encode())
        self.next += 1
        while len(self._lines) > MAX_LINES or self._bytes > MAX_BYTES:
            self._bytes -= len(self._lines.popleft().encode())

    def after(self, number: int, most: int) -> tuple[int, tuple[str, ...]]:
        """Lines from ``number`` on, and the number after them."""
        found: list[str] = []
        size = 0
        for place in range(number - self.first, len(self._lines)):
            size += len(self._lines[place].encode())
            if len(found) >= most or size > MAX_ANSWER_BYTES:
                break
            found.append(self._lines[place])
        return number + len(found), tuple(found)


class TenantLogs:
    """See the module."""

    def __init__(self, life: str) -> None:
        """
        :param life: a random word of this node's life, part of every cursor.
        """
        self._life = life
        self._logs: dict[str, _Log] = {}

    def add(self, tenant_id: str, now: float, stamp: str, line: str) -> None:
        """A tenant's process printed a line.

        :param now: seconds of any one clock. :param stamp: the time for people.
        """
        log = self._logs.pop(tenant_id, None) or _Log(now)
        self._logs[tenant_id] = log
        log.add(now, stamp, line)
        if len(self._logs) > MAX_TENANTS:
            del self._logs[next(iter(self._logs))]

    def read(self, tenant_id: str, cursor: str, most: int) -> Read:
        """Lines after ``cursor``; without one the last ``most``."""
        most = max(1, min(most, MAX_ANSWER_LINES))
        log = self._logs.get(tenant_id)
        if log is None:
            return Read(self._cursor(1), (), 0)
        wanted = self._number(cursor)
        if wanted is None or not 1 <= wanted <= log.next:
            wanted = log.next - most if not cursor else 1
        begin = max(wanted, log.first)
        missed = begin - wanted if cursor else 0
        after, lines = log.after(begin, most)
        return Read(self._cursor(after), lines, missed)

    def _cursor(self, number: int) -> str:
        return f"{self._life}.{number}"

    def _number(self, cursor: str) -> int | None:
        life, _, number = cursor.rpartition(".")
        fine = life == self._life and number.isascii() and number.isdigit() and len(number) < 19
        return int(number) if fine else None
