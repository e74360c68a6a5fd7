"""What happened, in order: hashed always, kept as text where somebody will read it."""

from __future__ import annotations

import hashlib

#: Lines kept of a run that is shown.
MAX_LINES = 20_000


class Trace:
    """The steps of one run.

    :ivar steps: how many there were. :ivar lines: the last ones, if they are kept.
    """

    def __init__(self, *, keep: bool) -> None:
        self.steps = 0
        self.lines: list[str] = []
        self._keep = keep
        self._digest = hashlib.blake2b(digest_size=8)

    def add(self, now: float, who: str, what: str) -> None:
        """One step. :param now: seconds of the world."""
        self.steps += 1
        line = f"{now:9.4f} {who:<12} {what}"
        self._digest.update(line.encode())
        if self._keep:
            self.lines.append(line)
            if len(self.lines) > MAX_LINES:
                del self.lines[: MAX_LINES // 10]

    @property
    def hash(self) -> str:
        """Of everything so far."""
        return self._digest.hexdigest()
