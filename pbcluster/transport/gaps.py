"""Numbered broadcasts: what is delivered, and when something was missed. Pure; time comes in.

Broadcasts carry the log index of their event and that of the broadcast before. Indexes are the
cluster's, not a member's, so they go on when another member becomes the publisher. The rules, for
a message with ``index`` after ``newest`` was seen:

* first contact: a gap, whatever it says (what was cached before may be old).
* ``index > newest``: new. Unless its ``previous`` is ``newest``, something was missed: a gap. A
  beacon is never delivered, so a beacon ahead of ``newest`` is always a gap.
* ``index <= newest``: a repetition, a late one, or the beacon of a member that no longer leads.
  Dropped, with one exception: beacons behind ``newest`` that will not go away mean that the
  cluster's log was restored from an older state. They are believed when the same member that gave
  us ``newest`` repeats a lower index ``BEACONS_TO_BELIEVE`` times, or when another one does after
  the publisher was silent for ``SILENCE_S``. Then counting goes on from there, with a gap.

A wrong "gap" costs one snapshot request; a missed gap costs stale routes. So doubt means gap.
"""

from __future__ import annotations

import attrs

from pbcluster.wire import BEACON, Broadcast

#: One beacon may be late; two in a row from one TCP stream are not.
BEACONS_TO_BELIEVE = 2
#: Beacons come each second: after five missed ones the publisher is gone.
SILENCE_S = 5.0
#: Publishers remembered; a cluster has 3 or 5, so more means junk, and all are forgotten.
MAX_PUBLISHERS = 64


@attrs.frozen
class Deliver:
    """Hand this broadcast to the receiver."""

    broadcast: Broadcast


@attrs.frozen
class Gap:
    """Something before ``index`` was missed."""

    index: int


Effect = Deliver | Gap


class Gaps:
    """Sorts the broadcasts that one subscriber receives from all members.

    :ivar newest: index of the newest broadcast seen or heard of; None before the first contact.
    :ivar dropped: repetitions and late ones.
    """

    def __init__(self) -> None:
        self.newest: int | None = None
        self.dropped = 0
        self._publisher = ""
        self._heard = 0.0
        self._lower: dict[str, int] = {}

    def received(self, publisher: str, broadcast: Broadcast, now: float) -> list[Effect]:
        """What to do about ``broadcast`` of member ``publisher``, in order."""
        newest, index = self.newest, broadcast.index
        if newest is None or index > newest:
            missed = newest is None or broadcast.topic == BEACON or broadcast.previous != newest
            return self._advance(publisher, broadcast, now, missed)
        if index == newest:
            self._publisher, self._heard = publisher, now
            self._lower.clear()
            if broadcast.topic != BEACON:
                self.dropped += 1
            return []
        self.dropped += 1
        if broadcast.topic == BEACON and self._believed(publisher, now):
            return self._advance(publisher, broadcast, now, missed=True)
        return []

    def _advance(
        self, publisher: str, broadcast: Broadcast, now: float, missed: bool
    ) -> list[Effect]:
        self.newest, self._publisher, self._heard = broadcast.index, publisher, now
        self._lower.clear()
        effects: list[Effect] = [Gap(broadcast.index)] if missed else []
        if broadcast.topic != BEACON:
            effects.append(Deliver(broadcast))
        return effects

    def _believed(self, publisher: str, now: float) -> bool:
        if publisher != self._publisher and now - self._heard < SILENCE_S:
            return False
        if len(self._lower) >= MAX_PUBLISHERS:
            self._lower.clear()
        self._lower[publisher] = self._lower.get(publisher, 0) + 1
        return self._lower[publisher] >= BEACONS_TO_BELIEVE
