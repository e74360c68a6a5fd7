"""When another member that leads was heard last: a leader that is silent is named to nobody.

It knows the time and what it is told; who leads is the core's to say.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

#: A leader that was not heard for so long, three heartbeats, is not named to anybody: it may be
#: dead, and an election is about to begin.
LEADER_SILENT_S = 0.15


class LeaderWatch:
    """See the module.

    :ivar lost: its connection ended, and it was not heard since: it is probably dead.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.lost = False
        self._clock = clock
        self._heard_at = 0.0

    def heard(self) -> None:
        """The leader was heard, or there is a new one."""
        self._heard_at, self.lost = self._clock.seconds(), False

    def silence_s(self) -> float:
        """Seconds since another member that leads, or led, was heard."""
        return self._clock.seconds() - self._heard_at

    def silent(self) -> bool:
        """Whether the leader, another one, was not heard lately, or lost its connection."""
        return self.lost or self.silence_s() > LEADER_SILENT_S
