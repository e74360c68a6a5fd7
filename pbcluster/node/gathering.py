"""How long a sync waits for writes that PocketBase has not answered yet, so that they share it.

A sync costs the same for one write as for fifty, and one is in flight at a time. If it begins at
the first answer of many, it covers that one and all the others wait for the next: twice the syncs,
and twice the wait. So it begins when the last write under way is answered, but

* no later than a share of what a sync takes: one slow write costs the others less than what they
  save;
* not for a write that PocketBase has had for long (a slow hook, a body that is still coming):
  nobody knows when it ends.

One writer alone never waits. Nothing here decides what is durable: whatever it says, a write is
acknowledged after a sync that began after its answer.

Pure: times come in (seconds of CLOCK_BOOTTIME).
"""

from __future__ import annotations

#: A sync waits at most so much of what the last syncs took.
SHARE = 0.5
#: And at most so long.
MAX_PAUSE_S = 0.01
#: A write that PocketBase has had for longer is not waited for.
FRESH_S = 0.05
#: How much one sync counts in the mean of them.
_WEIGHT = 0.2


class Gathering:
    """The writes of one tenant that PocketBase has and has not answered yet."""

    def __init__(self) -> None:
        # In the order in which they were sent.
        self._sent: dict[int, float] = {}
        self._sync_s: float | None = None
        self._tickets = 0

    @property
    def under_way(self) -> int:
        """Writes that PocketBase has not answered yet."""
        return len(self._sent)

    def sent(self, now: float) -> int:
        """A write goes to PocketBase.

        :returns: what :meth:`answered` is told when it is over, however it ends.
        """
        self._tickets += 1
        self._sent[self._tickets] = now
        return self._tickets

    def answered(self, ticket: int) -> None:
        """PocketBase answered, or never will."""
        self._sent.pop(ticket, None)

    def synced(self, took_s: float) -> None:
        """A sync succeeded after so long."""
        mean = took_s if self._sync_s is None else self._sync_s
        self._sync_s = mean + _WEIGHT * (took_s - mean)

    def pause_s(self, now: float) -> float:
        """How long a sync that could begin now may wait; 0: nothing is worth waiting for."""
        if not self._sent or self._sync_s is None:
            return 0.0
        newest = next(reversed(self._sent.values()))
        if now - newest > FRESH_S:
            return 0.0
        return min(SHARE * self._sync_s, MAX_PAUSE_S)
