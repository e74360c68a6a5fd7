"""Whether the gateway is so loaded that new requests are turned away. Pure.

Two signs: the event loop comes late to what was due (every request under way then waits as long at
each step), or most descriptors are used up (the next one may be missing where it is needed most).
Turning away what is new keeps what is under way fast; it costs a fraction of serving it.

Lateness is smoothed, and one sample counts at most :data:`SAMPLE_MAX`, so that a single pause,
however long (a collection of garbage, a frozen machine), turns nobody away: what waited meanwhile
is served. Both signs end lower than they begin, so that the state does not flutter.
"""

from __future__ import annotations

import enum

#: Weight of the newest sample in the mean.
WEIGHT = 0.3
#: Most that one sample counts, in times of the limit: below 1 / WEIGHT, so one never suffices.
SAMPLE_MAX = 3.0
#: Late no more below this share of the limit.
LAG_END = 0.5
#: Short of descriptors no more below this share of the limit.
DESCRIPTORS_END = 0.9


class Overload(enum.Enum):
    """Why new requests are turned away."""

    NONE = ""
    LAG = "lag"
    DESCRIPTORS = "descriptors"


class Shedding:
    """See the module.

    :ivar state: now. :ivar lag_s: smoothed lateness. :ivar share: of all descriptors, in use.
    """

    def __init__(self, *, max_lag_s: float, max_share: float) -> None:
        """
        :param max_lag_s: smoothed lateness that is too much; 0: any is fine.
        :param max_share: share of descriptors in use that is too much, 0 to 1; 0: any is fine.
        """
        self.state = Overload.NONE
        self.lag_s = 0.0
        self.share = 0.0
        self._max_lag_s = max_lag_s
        self._max_share = max_share
        self._late = False
        self._short = False

    def late(self, late_s: float) -> bool:
        """The loop came so late to a timer. True: the state changed."""
        most = self._max_lag_s
        if not most:
            self.lag_s = late_s
            return False
        self.lag_s += WEIGHT * (min(max(0.0, late_s), SAMPLE_MAX * most) - self.lag_s)
        self._late = self.lag_s > (most * LAG_END if self._late else most)
        return self._judge()

    def descriptors(self, used: int, limit: int) -> bool:
        """So many descriptors are in use. True: the state changed."""
        self.share = used / limit if limit > 0 else 0.0
        most = self._max_share
        if most:
            self._short = self.share > (most * DESCRIPTORS_END if self._short else most)
        return self._judge()

    def _judge(self) -> bool:
        # Who lacks descriptors must also close connections, so that is the stronger word.
        before = self.state
        if self._short:
            self.state = Overload.DESCRIPTORS
        else:
            self.state = Overload.LAG if self._late else Overload.NONE
        return self.state is not before
