"""When a write may be acknowledged (rules 6 and 7 of "Ownership"): group commit for one tenant.

A write's response is held from the moment its headers arrived (PocketBase committed before it sent
them) until

1. a sync of Litestream's that *began afterwards* succeeded: what an earlier sync saw is unknown;
2. the database file is still the one that is replicated (same device and inode);
3. the owner object, asked for after the sync's answer, shows our nonce: a successor that claimed in
   between restored without this write, so acknowledging it would promise what is lost.

One sync is in flight at a time; all writes that arrive meanwhile share the next one, and those that
PocketBase is about to answer may, too (``gathering``). The owner is asked while the next sync runs.
A round that fails withholds its writes: they are answered with an error, never with PocketBase's
response.

An ``async`` tenant's write is released at once while nothing acknowledged has been waiting for a
sync longer than 5 s; a sync runs each second while something is unsynced. Older than that, its
writes wait like those of a ``sync`` tenant, so that no more than 5 s can ever be lost.

While S3 is away, a round that failed is tried again until its writes have waited 5 s; then they are
:class:`Expired`, and ``degrading`` decides. A sync that fails while S3 answers withholds at once.

Pure: times come in (seconds of CLOCK_BOOTTIME), frozen effects come out; no clock, no I/O.
"""

from __future__ import annotations

import enum

import attrs

from pbcluster.node.gathering import Gathering
from pbcluster.records import Durability

#: Writes that may wait at once for one tenant: each holds a connection and up to 64 KiB.
MAX_WAITING = 1000
#: Rounds whose owner check may be under way at once; more would mean that S3 stopped answering.
MAX_CHECKS = 4
#: An ``async`` tenant's oldest acknowledged but unsynced write is at most so old.
ASYNC_LOSS_BOUND_S = 5.0
#: An ``async`` tenant is synced so often while something is unsynced.
ASYNC_SYNC_INTERVAL_S = 1.0
#: A write waits so long while S3 is away.
OUTAGE_WAIT_S = 5.0
#: After a failure while S3 is away the next sync begins so much later.
OUTAGE_RETRY_S = 0.25
#: A sync is given at least so long, however long its writes have waited already.
MIN_SYNC_S = 0.5
#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_ASYNC = Durability.ASYNC


class Reason(enum.Enum):
    """Why a write is not acknowledged."""

    SYNC_FAILED = "sync_failed"
    OWNER_UNKNOWN = "owner_unknown"
    OWNERSHIP_LOST = "ownership_lost"
    DATABASE_REPLACED = "database_replaced"
    S3_AWAY = "s3_away"
    STOPPED = "stopped"
    BUSY = "busy"


@attrs.frozen
class BeginSync:
    """Sync now; answer with :meth:`GroupCommit.sync_succeeded` or ``sync_failed``.

    :ivar within_s: it counts as failed after so long.
    """

    round: int
    within_s: float = attrs.field(default=OUTAGE_WAIT_S, eq=False)


@attrs.frozen
class CheckOwner:
    """Read the owner object now; answer with ``owner_checked`` or ``owner_unknown``."""

    round: int


@attrs.frozen
class Release:
    """These writes are durable, or need not be (``early``): let their responses go."""

    tickets: tuple[int, ...]
    early: bool = attrs.field(default=False, eq=False)


@attrs.frozen
class Covered:
    """All that was committed before ``began`` is durable, and the tenant still ours."""

    began: float
    round: int = attrs.field(default=0, eq=False)


@attrs.frozen
class Expired:
    """These writes have waited as long as they may while S3 is away."""

    tickets: tuple[int, ...]
    reason: Reason
    detail: str


@attrs.frozen
class Later:
    """Call :meth:`GroupCommit.retry` after ``seconds``."""

    seconds: float


@attrs.frozen
class Gather:
    """Call :meth:`GroupCommit.gathered` with ``round`` after ``seconds``."""

    seconds: float = attrs.field(eq=False)
    round: int


@attrs.frozen
class Withhold:
    """These writes must not be acknowledged."""

    tickets: tuple[int, ...]
    reason: Reason
    detail: str = ""


@attrs.frozen
class Fence:
    """The tenant is not ours, or its replica is not of its database: stop everything of it."""

    reason: Reason


Effect = BeginSync | CheckOwner | Release | Covered | Expired | Later | Gather | Withhold | Fence
Effects = tuple[Effect, ...]


@attrs.frozen
class _Round:
    tickets: tuple[int, ...]
    #: When the oldest write was released that only this round makes durable.
    released_since: float | None
    began: float


class GroupCommit:
    """The writes of one tenant from their response to their acknowledgement."""

    def __init__(
        self,
        durability: Durability,
        identity: tuple[int, int],
        gathering: Gathering | None = None,
    ) -> None:
        """
        :param identity: device and inode of the database that is replicated.
        :param gathering: the tenant's; None: a sync never waits for a write to come.
        """
        self._gathering = gathering or Gathering()
        #: The round that waits for writes to come.
        self._gathers: int | None = None
        self._gathers_until = 0.0
        self._durability = durability
        self._identity = identity
        self._waiting: list[int] = []
        self._arrived: dict[int, float] = {}
        self._retry_at: float | None = None
        self._forced = False
        self._syncing: tuple[int, _Round] | None = None
        self._checking: dict[int, _Round] = {}
        self._rounds = 0
        self._released_since: float | None = None
        self._last_began: float | None = None
        self._ended = False

    @property
    def waiting(self) -> int:
        """Writes that are held now."""
        return len(self._waiting) + sum(len(each.tickets) for each in self._under_way())

    @property
    def unsynced_since(self) -> float | None:
        """Since when an acknowledged write waits for a sync (``async`` only), None: none does."""
        times = [each.released_since for each in self._under_way()] + [self._released_since]
        return min((time for time in times if time is not None), default=None)

    def responded(self, ticket: int, now: float, *, strictly: bool = False) -> Effects:
        """A write's response headers (or its last chunk) arrived from PocketBase.

        :param ticket: names the write; unique among those that wait.
        :param strictly: it waits for a sync, whatever the tenant's durability.
        """
        if self._ended:
            return (Withhold((ticket,), Reason.STOPPED),)
        if not strictly and self.passes_at_once(now):
            return (Release((ticket,), early=True),)
        if self.waiting >= MAX_WAITING:
            return (Withhold((ticket,), Reason.BUSY, f"{MAX_WAITING} writes wait already"),)
        self._waiting.append(ticket)
        self._arrived[ticket] = now
        return self._next(now)

    def passes_at_once(self, now: float) -> bool:
        """A write's response arrived: whether it is acknowledged without waiting (``async``)."""
        if self._ended or self._durability is not _ASYNC:
            return False
        oldest = self.unsynced_since
        if oldest is not None and now - oldest > ASYNC_LOSS_BOUND_S:
            return False
        self.released(now)
        return True

    def released(self, now: float) -> None:
        """A write was acknowledged without a sync: the next one makes it durable."""
        if self._released_since is None:
            self._released_since = now

    def change(self, durability: Durability, now: float) -> Effects:
        """From now on this is how writes are acknowledged."""
        self._durability = durability
        return self.force(now)

    def force(self, now: float) -> Effects:
        """Sync once more, even if nobody waits for it; ends with :class:`Covered`, or fails."""
        if self._ended:
            return ()
        self._forced = True
        return self._next(now)

    def take_waiting(self) -> tuple[int, ...]:
        """Writes that no sync under way covers; they are not held here any more."""
        taken, self._waiting = tuple(self._waiting), []
        for ticket in taken:
            self._arrived.pop(ticket, None)
        return taken

    def retry(self, now: float) -> Effects:
        """The pause of :class:`Later` is over."""
        if self._ended:
            return ()
        self._retry_at = None
        return self._next(now)

    def gathered(self, round: int, now: float) -> Effects:
        """The pause of :class:`Gather` is over."""
        if self._ended or self._gathers != round:
            return ()
        self._gathers_until = now
        return self._next(now)

    def tick(self, now: float) -> Effects:
        """Call it at least each second: begins the background sync of an ``async`` tenant."""
        if self._released_since is None or self._ended or self._syncing is not None:
            return ()
        if self._last_began is not None and now - self._last_began < ASYNC_SYNC_INTERVAL_S:
            return ()
        return self._begin(now)

    def sync_succeeded(self, round: int, now: float, identity: tuple[int, int] | None) -> Effects:
        """The sync of this round answered "synced".

        :param identity: device and inode of the database, looked up after the answer.
        """
        current = self._end_sync(round)
        if current is None:
            return ()
        if identity != self._identity:
            return self._fence(current.tickets, Reason.DATABASE_REPLACED)
        self._gathering.synced(now - current.began)
        self._checking[round] = current
        return (CheckOwner(round), *self._next(now))

    def sync_failed(
        self,
        round: int,
        now: float,
        detail: str,
        identity: tuple[int, int] | None,
        *,
        away: bool = False,
    ) -> Effects:
        """The sync of this round failed or did not answer in time.

        :param identity: as in :meth:`sync_succeeded`. If it is another file, no later sync can
            succeed either: only a new epoch helps.
        :param away: S3 does not answer this node at all.
        """
        current = self._end_sync(round)
        if current is not None and identity != self._identity:
            return self._fence(current.tickets, Reason.DATABASE_REPLACED)
        return self._round_failed(current, Reason.SYNC_FAILED, now, detail, away=away)

    def owner_checked(self, round: int, now: float, *, ours: bool) -> Effects:
        """The owner object, asked for after the sync's answer, was read.

        :param ours: it shows our nonce.
        """
        current = self._checking.pop(round, None)
        if current is None:
            return ()
        if not ours:
            return self._fence(current.tickets, Reason.OWNERSHIP_LOST)
        self._settle(current.tickets)
        released = (Release(current.tickets),) if current.tickets else ()
        return (*released, Covered(current.began, round), *self._next(now))

    def owner_unknown(self, round: int, now: float, detail: str, *, away: bool = False) -> Effects:
        """The owner object could not be read."""
        current = self._checking.pop(round, None)
        return self._round_failed(current, Reason.OWNER_UNKNOWN, now, detail, away=away)

    def stop(self, reason: Reason = Reason.STOPPED) -> Effects:
        """Nothing of this tenant is acknowledged any more."""
        tickets = [ticket for each in self._under_way() for ticket in each.tickets] + self._waiting
        self._syncing, self._checking, self._waiting = None, {}, []
        self._arrived = {}
        self._ended = True
        return self._withhold(tuple(tickets), reason, "")

    # -- inside --

    def _next(self, now: float) -> Effects:
        wanted = bool(self._waiting) or self._forced
        free = self._syncing is None and len(self._checking) < MAX_CHECKS
        if not wanted or not free or self._retry_at is not None:
            return ()
        pause_s = 0.0 if self._forced else self._gathering.pause_s(now)
        coming = self._rounds + 1
        if pause_s and self._gathers is None:
            self._gathers, self._gathers_until = coming, now + pause_s
            return (Gather(pause_s, coming),)
        if pause_s and now < self._gathers_until:
            return ()
        return self._begin(now)

    def _begin(self, now: float) -> Effects:
        self._rounds += 1
        self._gathers = None
        tickets = tuple(self._waiting)
        self._syncing = (self._rounds, _Round(tickets, self._released_since, now))
        self._waiting, self._released_since, self._forced = [], None, False
        self._last_began = now
        oldest = min((self._arrived[ticket] for ticket in tickets), default=now)
        return (BeginSync(self._rounds, max(MIN_SYNC_S, oldest + OUTAGE_WAIT_S - now)),)

    def _end_sync(self, round: int) -> _Round | None:
        if self._syncing is None or self._syncing[0] != round:
            return None
        current, self._syncing = self._syncing[1], None
        return current

    def _under_way(self) -> list[_Round]:
        syncing = [self._syncing[1]] if self._syncing is not None else []
        return [*self._checking.values(), *syncing]

    def _round_failed(
        self, failed: _Round | None, reason: Reason, now: float, detail: str, *, away: bool
    ) -> Effects:
        if failed is None:
            return ()
        if failed.released_since is not None:  # still unsynced: the next round must cover them
            self._released_since = failed.released_since
        if not away:
            return (*self._withhold(failed.tickets, reason, detail), *self._next(now))
        waiting = [*failed.tickets, *self._waiting]
        until = now - OUTAGE_WAIT_S
        over = tuple(ticket for ticket in waiting if self._arrived[ticket] <= until)
        self._settle(over)
        self._waiting = [ticket for ticket in waiting if ticket not in over]
        expired = (Expired(over, reason, detail),) if over else ()
        if self._retry_at is not None:
            return expired
        self._retry_at = now + OUTAGE_RETRY_S
        return (*expired, Later(OUTAGE_RETRY_S))

    def _settle(self, tickets: tuple[int, ...]) -> None:
        for ticket in tickets:
            self._arrived.pop(ticket, None)

    def _withhold(self, tickets: tuple[int, ...], reason: Reason, detail: str) -> Effects:
        self._settle(tickets)
        return (Withhold(tickets, reason, detail),) if tickets else ()

    def _fence(self, tickets: tuple[int, ...], reason: Reason) -> Effects:
        withheld = self._withhold(tickets, reason, "")
        return (*withheld, *self.stop(reason), Fence(reason))
