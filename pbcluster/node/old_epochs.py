"""Which epochs of a tenant may leave S3 (rule 3 of "Ownership", its last sentence). Pure.

What is never removed: our own epoch, which must be the highest with READY; the epoch it was
restored from; anything above that. A restore begins from the highest READY that its claim saw, so
no restore that can still become an owner reads what is below our parent.

The rest goes when two things hold. A newer READY was restored cleanly: ours names it as its parent,
and it was written only after that restore passed its check. And the point-in-time window is over:
an epoch is what a restore to a moment needs until its successor was ready, so that moment must be
older than the window. The moments are wall clocks of nodes: one that is not understood, or lies in
the future, keeps its epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from pbcluster.node.interfaces import EpochSeen

#: A restore to a moment at the window's edge may take so long after it was begun; it is also what
#: the clocks of two nodes may differ.
MARGIN_S = 3600.0


def removable(
    epochs: Iterable[EpochSeen], *, own: int, now: datetime, window_s: float
) -> tuple[int, ...]:
    """The epochs to remove, oldest first.

    :param epochs: all that S3 shows. :param own: the epoch under which this node owns the tenant.
    :param now: wall clock. :param window_s: how far back a restore to a moment must be possible.
    """
    seen = {each.epoch: each for each in epochs}
    ready = sorted(number for number, each in seen.items() if each.ready is not None)
    mine = seen.get(own)
    if not ready or ready[-1] != own or mine is None or mine.ready is None:
        return ()
    parent = mine.ready.parent
    if parent not in ready:
        return ()  # it began empty, or what it was restored from is gone: nothing is proven
    over = now - timedelta(seconds=window_s + MARGIN_S)
    gone = []
    for number in sorted(seen):
        successor = next((each for each in ready if each > number), None)
        if number >= parent or successor is None:
            break
        began = _moment(seen[successor])
        if began is not None and began <= over:
            gone.append(number)
    return tuple(gone)


def _moment(seen: EpochSeen) -> datetime | None:
    try:
        at = datetime.fromisoformat(seen.ready.at) if seen.ready is not None else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None
