"""A process of a cluster, with what its supervisor remembers of it: when it is started again.

What holds: who dies again and again is started after longer and longer pauses, and after the first
one again once it has served for a while. It reads no clock, and starts and ends nothing
(``supervisor`` does).
"""

from __future__ import annotations

import attrs

from pbcluster.cli import state
from pbcluster.cli.child import Child, ProcessSpec
from pbcluster.cli.state import ProcessState

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 15.0
#: Who served that long starts with the first delay again.
STEADY_AFTER_S = 60.0


@attrs.define
class Managed:
    """See the module. Times are seconds of one clock that never goes back.

    :ivar due_at: when it is started again, or killed if it leaves. :ivar served_at: since when it
        serves; None: it does not. :ivar early_deaths: before it ever served, in a row.
    :ivar successor: the process that is to take its place.
    """

    child: Child
    state: str = state.WAITING
    delay_s: float = FIRST_DELAY_S
    due_at: float = 0.0
    served_at: float | None = None
    early_deaths: int = 0
    restarts: int = 0
    reason: str = ""
    successor: Child | None = None

    @property
    def spec(self) -> ProcessSpec:
        """What is run."""
        return self.child.spec

    def shown(self) -> ProcessState:
        """As ``pbcluster status`` shows it."""
        who = self.child.identity if self.child.pid is not None else None
        return ProcessState(
            kind=self.spec.kind,
            id=self.spec.id,
            state=self.state,
            address=self.spec.address,
            admin=self.spec.admin,
            identity=who,
            restarts=self.restarts,
            reason=self.reason,
        )

    def died(self, reason: str, now: float, *, restart: bool) -> None:
        """It ended, or could not be started.

        :param restart: it is to be started again.
        """
        self.reason = reason
        if self.served_at is None:
            self.early_deaths += 1
        else:
            self.early_deaths = 0
            if now - self.served_at >= STEADY_AFTER_S:
                self.delay_s = FIRST_DELAY_S
        self.served_at = None
        if not restart:
            self.state = state.DEAD
            return
        self.state = state.RESTARTING
        self.due_at = now + self.delay_s
        self.delay_s = min(self.delay_s * 2, LONGEST_DELAY_S)
