"""What becomes of a tenant's writes while S3 is away (rule 8 of "Ownership").

    durable → asking → local → catching up → clearing → durable

``durable``: every acknowledgement says that S3 has the write. When writes have waited their whole
time and S3 does not answer this node (``durability`` tells: *expired*), they are refused, or, with
``on_s3_outage = degrade``, the control plane is asked to commit the tenant's degraded flag
(``asking``). Only the answer to that makes it ``local``: from then on the control plane gives the
tenant to nobody, so writes may be acknowledged that only this disk has. With S3 back, no write is
acknowledged locally any more (``catching up``), and once a sync covers the last one that was, the
end of the flag is committed (``clearing``).

What holds:

* no write is released locally unless the last definite answer about the flag was "committed", and
  nothing that could take it back is under way: a request to end the flag is repeated under its key
  until its fate is known, before another one begins;
* the flag is not asked to end before everything released locally is in S3.

Pure: times come in (seconds of CLOCK_BOOTTIME), frozen effects come out.
"""

from __future__ import annotations

import enum

import attrs

from pbcluster.records import OnOutage


class Mode(enum.Enum):
    """See the module."""

    DURABLE = "durable"
    ASKING = "asking"
    LOCAL = "local"
    CATCHING_UP = "catching_up"
    CLEARING = "clearing"


@attrs.frozen
class CommitFlag:
    """Have the control plane commit the flag; answer with :meth:`Degrading.flag_answered`."""

    degraded: bool


@attrs.frozen
class ReleaseLocally:
    """These writes are acknowledged as local; so are all that wait for a sync."""

    tickets: tuple[int, ...]


@attrs.frozen
class Refuse:
    """These writes are not acknowledged."""

    tickets: tuple[int, ...]
    detail: str


@attrs.frozen
class SyncAgain:
    """Sync once more: the last one began before the newest local acknowledgement."""


Effect = CommitFlag | ReleaseLocally | Refuse | SyncAgain
Effects = tuple[Effect, ...]


class Answer(enum.Enum):
    """What is known of a flag that was to be committed."""

    COMMITTED = "committed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Degrading:
    """One tenant under one claim."""

    def __init__(self, on_outage: OnOutage, *, flagged: bool) -> None:
        """
        :param flagged: the assignment says that the flag is committed. All is in S3 now.
        """
        self._on_outage = on_outage
        #: The flag may be committed.
        self._flagged = flagged
        self._mode = Mode.DURABLE
        self._asked: bool | None = None
        self._parked: tuple[int, ...] = ()
        self._last_local: float | None = None

    @property
    def mode(self) -> Mode:
        """Where it is."""
        return self._mode

    @property
    def local(self) -> bool:
        """Whether a write may be acknowledged at once, as local."""
        return self._mode is Mode.LOCAL and self._on_outage is OnOutage.DEGRADE

    @property
    def wants_sync(self) -> bool:
        """Whether a sync is due although nobody waits for one."""
        asking = self._mode in (Mode.ASKING, Mode.CLEARING)
        return not asking and (self._flagged or self._mode is not Mode.DURABLE)

    @property
    def only_here(self) -> bool:
        """Whether acknowledged writes are perhaps on this disk only."""
        return self._last_local is not None

    @property
    def parked(self) -> tuple[int, ...]:
        """Writes that wait for the flag."""
        return self._parked

    def released_locally(self, now: float) -> None:
        """A write was acknowledged as local."""
        if not self.local:
            raise AssertionError(f"a local acknowledgement while {self._mode.value}")
        self._last_local = now

    def expired(self, tickets: tuple[int, ...], detail: str) -> Effects:
        """These writes have waited as long as they may, and S3 does not answer."""
        if self._on_outage is OnOutage.REJECT:
            return (Refuse(tickets, detail),)
        if self._mode in (Mode.LOCAL, Mode.CATCHING_UP):
            self._mode = Mode.LOCAL  # the flag was never asked to end
            return (ReleaseLocally(tickets),)
        self._parked += tickets
        self._mode = Mode.ASKING
        if self._asked is not None:
            return ()
        self._asked = True
        return (CommitFlag(True),)

    def flag_answered(self, degraded: bool, answer: Answer) -> Effects:
        """What became of the last :class:`CommitFlag`."""
        if self._asked is not degraded:
            return ()
        if not degraded:
            return self._end_answered(answer)
        self._asked = None
        self._flagged = self._flagged or answer is not Answer.REFUSED
        parked, self._parked = self._parked, ()
        if answer is Answer.COMMITTED:
            self._mode = Mode.LOCAL
            return (ReleaseLocally(parked),)
        self._mode = Mode.DURABLE
        return (Refuse(parked, "S3 and the control plane are away"),) if parked else ()

    def _end_answered(self, answer: Answer) -> Effects:
        if answer is Answer.UNKNOWN:
            return (CommitFlag(False),)  # under the same key, until its fate is known
        self._asked = None
        if answer is Answer.COMMITTED:
            self._flagged = False
        if self._mode is Mode.ASKING:
            self._asked = True
            return (CommitFlag(True),)
        self._mode = Mode.DURABLE
        return ()

    def give_up_waiting(self) -> Effects:
        """Writes that wait for the flag have waited long enough."""
        parked, self._parked = self._parked, ()
        return (Refuse(parked, "the control plane does not answer"),) if parked else ()

    def covered(self, began: float) -> Effects:
        """A sync that began then succeeded, and the tenant is still ours."""
        if self._mode in (Mode.ASKING, Mode.CLEARING):
            return ()
        if self._last_local is not None and began <= self._last_local:
            self._mode = Mode.CATCHING_UP
            return (SyncAgain(),)
        self._last_local = None
        if self._mode is Mode.DURABLE and not self._flagged:
            return ()
        self._mode, self._asked = Mode.CLEARING, False
        return (CommitFlag(False),)

    def assigned(self, on_outage: OnOutage, *, flagged: bool) -> Effects:
        """What the control plane's list says now.

        A flag that is there though we do not know of it is ended by the next sync; one that is gone
        though we rely on it was given up by an operator: nothing is local any more.
        """
        self._on_outage = on_outage
        if flagged and not self._flagged:
            self._flagged = True
            return (SyncAgain(),) if self._mode is Mode.DURABLE else ()
        if not flagged and self._mode in (Mode.LOCAL, Mode.CATCHING_UP):
            self._mode, self._flagged, self._last_local = Mode.DURABLE, False, None
        return ()

    def begin(self) -> Effects:
        """Called once at the start: a flag from before is ended, since all is in S3."""
        if not self._flagged:
            return ()
        self._mode, self._asked = Mode.CLEARING, False
        return (CommitFlag(False),)
