"""Which attempt may be made again, how often, after what pause, and how many at once.

Pure. What decides is what the node can have done with the request (RFC 9110, section 9.2.2):

1. nothing was sent: any method;
2. the node marked its answer "not processed": any method;
3. sent, and no byte came back: GET, HEAD and OPTIONS only, and at most :data:`MAX_REPEATS` times,
   since such a request may be what kills nodes;
4. anything else (an answer was passed on, 504, a body that is no longer whole): never.

Repeating 1 and 2 does no harm however often it happens; their bound is the time for which a
request may be held. What repeats toward the very node that just failed is also bounded in number by
a :class:`Budget`, so that a struggling node does not get three times its load.
"""

from __future__ import annotations

import enum

from pbcluster.gateway.breaker import Uniform
from pbcluster.web.interfaces import Attempt, Outcome

SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))
#: More attempts after one whose effect is unknown.
MAX_REPEATS = 2
#: Full jitter.
PAUSE_MIN_S = 0.025
PAUSE_MAX_S = 0.25
#: After so many pauses a request is one that waits for a tenant: it asks less often.
SHORT_PAUSES = 4
LONG_PAUSE_MAX_S = 0.5
#: Repeats under way at once: so many, or this share of all requests under way.
BUDGET_MIN = 3
BUDGET_SHARE = 0.2


class Verdict(enum.Enum):
    """What an attempt's end means for the request."""

    #: It has its answer, or its client is gone.
    OVER = "over"
    #: It may be made again.
    AGAIN = "again"
    #: It may not: the client gets an error.
    FAILED = "failed"


def judge(attempt: Attempt, method: bytes, *, marked: bool, repeats: int) -> Verdict:
    """Decide about one attempt.

    :param marked: the node said "not processed".
    :param repeats: attempts with an unknown effect that were made again already.
    """
    outcome = attempt.outcome
    if outcome in (Outcome.COMPLETED, Outcome.BROKEN, Outcome.CLIENT_GONE):
        return Verdict.OVER
    if not attempt.repeatable or outcome is Outcome.TIMEOUT:
        return Verdict.FAILED
    if outcome is Outcome.NOT_SENT or (outcome is Outcome.REFUSED and marked):
        return Verdict.AGAIN
    if outcome is Outcome.NO_RESPONSE and method in SAFE_METHODS and repeats < MAX_REPEATS:
        return Verdict.AGAIN
    return Verdict.FAILED


def pause_s(pauses: int, random: Uniform) -> float:
    """Seconds to wait before the next attempt, after ``pauses`` earlier pauses."""
    longest = PAUSE_MAX_S if pauses < SHORT_PAUSES else LONG_PAUSE_MAX_S
    return random.uniform(PAUSE_MIN_S, longest)


class Budget:
    """How many repeats may be under way at once.

    :ivar taken: those that are.
    """

    def __init__(self) -> None:
        self.taken = 0

    def take(self, active: int) -> bool:
        """Begin a repeat; False: too many, wait.

        :param active: requests under way in this gateway.
        """
        if self.taken >= max(BUDGET_MIN, BUDGET_SHARE * active):
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        """The repeat has its answer or failed."""
        self.taken -= 1
