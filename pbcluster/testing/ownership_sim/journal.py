"""What clients know, and what must hold: the properties that a run is checked against.

A property has a name; the first one that breaks ends the run.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pbcluster.node.durability import ASYNC_LOSS_BOUND_S
from pbcluster.records import Durability

PROPERTIES = {
    "one_owner": "two processes would answer for one tenant at one moment",
    "ack_is_durable": "a write was acknowledged as durable, but a restore would not have it",
    "nothing_lost": "a restored copy lacks what was acknowledged as durable",
    "no_stale_read": "a read did not show a write that was acknowledged before it began",
    "async_bound": "an async tenant's acknowledged write was unsynced for longer than 5 s",
    "local_is_committed": "a write was acknowledged as local before its flag was committed",
    "flag_ends_durable": "a degraded flag was ended before all local writes were in S3",
    "degraded_stays": "a degraded tenant got another epoch without an operator",
    "one_writer": "an epoch's prefix was written by another node than its claimant",
    "epochs_grow": "an owner object was replaced by one of no higher epoch",
    "own_claim_known": "a claim was taken for lost though it was won",
    "ready_restored": "a copy was restored from an epoch without READY",
    "tombstone_stands": "a deleted tenant's owner object was replaced",
    "released_is_over": "a release was reported while something of the tenant ran",
    "files_present": "a served row names a file that is gone",
    "no_internal_error": "production code met something that it says cannot be",
    "recovers": "a tenant did not come back after everything was well again",
}


@attrs.frozen
class Violation:
    """Which property broke, and how."""

    broken: str
    text: str

    def __str__(self) -> str:
        return f"{self.broken} ({PROPERTIES[self.broken]}): {self.text}"


@attrs.define
class _Row:
    acked_at: float
    epoch: int


class Journal:
    """The acknowledged rows of one tenant."""

    def __init__(self, durability: Durability) -> None:
        self.durability = durability
        #: Must be in every copy that is restored from now on.
        self.durable: dict[str, None] = {}
        #: Acknowledged at once, not seen in S3 yet (``async``): may be lost at the next claim.
        self.unsynced: dict[str, _Row] = {}
        #: Acknowledged as local, under the epoch.
        self.local: dict[str, int] = {}
        self.acked = 0

    def needed(self) -> set[str]:
        """What a read that begins now must show."""
        return {*self.durable, *self.unsynced, *self.local}

    def missing(self, needed: set[str], rows: Iterable[str]) -> list[str]:
        """Of ``needed``, what ``rows`` lack and what was not lost lawfully meanwhile."""
        lacking = needed.difference(rows)
        return sorted(
            row
            for row in lacking
            if row in self.durable or row in self.unsynced or row in self.local
        )

    def acked_durably(self, row: str, stored: Iterable[str]) -> Violation | None:
        """:param stored: what a restore of the acknowledging epoch would give now."""
        self.acked += 1
        self.durable[row] = None
        if row not in stored:
            return Violation("ack_is_durable", row)
        return None

    def acked_at_once(
        self, row: str, now: float, epoch: int, stored: Iterable[str], *, ours: bool
    ) -> Violation | None:
        """An ``async`` acknowledgement. :param ours: the owner object still shows that claim."""
        self.acked += 1
        self.synced(stored)
        if not ours:
            return None  # the successor has claimed; the loss is bounded by what came before
        self.unsynced[row] = _Row(now, epoch)
        since = min(each.acked_at for each in self.unsynced.values())
        if now - since > ASYNC_LOSS_BOUND_S + 1e-6:
            return Violation("async_bound", f"{row}: something is unsynced for {now - since:.3f} s")
        return None

    def synced(self, stored: Iterable[str]) -> None:
        """These rows are in S3 where the next claimant would find them."""
        for row in set(stored).intersection(self.unsynced):
            del self.unsynced[row]
            self.durable[row] = None

    def claimed(self, stored: Iterable[str]) -> None:
        """Somebody claimed a new epoch: what is not stored is lost, lawfully."""
        self.synced(stored)
        self.unsynced.clear()

    def local_missing(self, stored: Iterable[str]) -> list[str]:
        """What was acknowledged as local and is not stored."""
        return sorted(set(self.local).difference(stored))

    def local_lost(self) -> None:
        """An operator gave the tenant away."""
        self.local.clear()

    def disk_lost(self) -> None:
        """The owner's disk is gone or shows an earlier state: what was there only is lost, lawfully
        (``async_bound`` bounds it)."""
        self.local.clear()
        self.unsynced.clear()

    def caught_up(self) -> None:
        """All that was local is durable."""
        self.durable.update(dict.fromkeys(self.local))
        self.local.clear()

    def restored_without(self, rows: Iterable[str]) -> list[str]:
        """What must be in a restored copy and is not."""
        return sorted(set(self.durable).difference(rows))
