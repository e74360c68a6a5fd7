"""A circuit breaker: whether requests are sent to one node (in one incarnation).

Pure; ``now`` (seconds) and the random for jitter come in. Each attempt carries a :class:`Ticket`
with the breaker's generation; a verdict of an older generation is dropped, so that a late failure
does not open a breaker that was closed since.

============  ===========================================================  ============
state         event                                                        next state
============  ===========================================================  ============
CLOSED        ``FAILURES_TO_OPEN`` failures with no success between        OPEN
CLOSED        ``SLOW_TENANTS`` tenants without an answer in ``SLOW_S``     counts as one failure
CLOSED        one without, and the last health question failed             counts as one failure
CLOSED        ``MISSES_TO_OPEN`` health questions in a row fail            OPEN
OPEN          its wait is over and a health question is asked              HALF_OPEN
HALF_OPEN     the first success (health)                                   HALF_OPEN, for one GET
HALF_OPEN     the second success (a GET or HEAD, or health again)          CLOSED, with a ramp
HALF_OPEN     a failure                                                    OPEN, wait doubled
HALF_OPEN     a probe that was dropped or took over ``PROBE_S``            HALF_OPEN, no verdict
any           the control plane says that the node is down                 OPEN
============  ===========================================================  ============

A CLOSED node is asked for its health each ``CHECK_S`` while it is in use and says nothing: requests
that it answers tell more. So a node that took requests and fell silent is found out in some 6 s,
though its connections stand.

What is a failure and what a success is decided by the caller, see ``breaker_words``.
"""

from __future__ import annotations

import enum
from typing import Protocol

import attrs

FAILURES_TO_OPEN = 5
#: The first wait of an open breaker, and the longest; it doubles with each failed probe.
OPEN_S = 2.0
OPEN_MAX_S = 15.0
#: A node that is in use and silent is asked for its health so often...
CHECK_S = 2.0
#: ... which it must answer within so long...
CHECK_TIMEOUT_S = 1.0
#: ... and so many failed questions in a row open its breaker.
MISSES_TO_OPEN = 3
#: In use: a request waits for it, or it answered one within so long.
IN_USE_S = 30.0
#: Waits vary by this share, so that gateways do not knock together.
JITTER = 0.2
#: A probe without a verdict for so long makes room for the next one.
PROBE_S = 2.0
#: With one success and no GET or HEAD coming by, health is asked again after so long.
HEALTH_AGAIN_S = 1.0
SUCCESSES_TO_CLOSE = 2
#: After closing, so many attempts may be without a verdict at once, doubling each second...
RAMP_START = 10
#: ... until so long after closing.
RAMP_S = 10.0
#: So many different tenants without an answer within so long mean the node, not a tenant.
SLOW_TENANTS = 3
SLOW_S = 10.0


class State(enum.StrEnum):
    """See the module."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Uniform(Protocol):
    """The part of ``random.Random`` that jitter needs."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between ``a`` and ``b``."""


@attrs.frozen
class Ticket:
    """Leave to make one attempt; given back with exactly one verdict."""

    generation: int
    probe: bool = False


#: By names of their own: to look a member up in its enum is a call in Python 3.11.
_CLOSED = State.CLOSED
_OPEN = State.OPEN
_HALF_OPEN = State.HALF_OPEN


@attrs.frozen
class Change:
    """The breaker went from one state to another, and why."""

    before: State
    after: State
    why: str


class Breaker:
    """One breaker.

    :ivar state: now. :ivar failures: in a row. :ivar why: cause of the last change.
    :ivar changed_at: when that was. :ivar open_until: when an open one may be probed.
    """

    def __init__(self, now: float, random: Uniform) -> None:
        self.state = _CLOSED
        self.failures = 0
        self.why = ""
        self.changed_at = now
        self.open_until = now
        self._random = random
        self._ticket = Ticket(0)
        self._opened_in_a_row = 0
        self._ramp_from: float | None = None
        self._in_flight = 0
        self._successes = 0
        self._success_at = now
        self._probe_since: float | None = None
        self._slow: dict[str, float] = {}
        #: When it answered a request, and when it was last asked for its health; failed questions.
        self._heard_at = float("-inf")
        self._asked_at = now
        self._misses = 0

    # -- leave ------------------------------------------------------------------------------------

    def admit(self, now: float, safe: bool) -> Ticket | None:
        """Leave to send a request.

        :param safe: its method is GET or HEAD: it may serve as a probe.
        :returns: None: not now.
        """
        if self.state is _CLOSED:
            if self._ramp_from is not None and self._in_flight >= self._ramp(now):
                return None
            self._in_flight += 1
            return self._ticket
        if self.state is _OPEN or not safe or self._successes < 1:
            return None
        return self._probe(now)

    def admit_health(self, now: float) -> Ticket | None:
        """Leave to ask the node for its health; None: no need, or not yet."""
        if self.state is _CLOSED:
            return self._check(now)
        if self.state is _OPEN and now >= self.open_until:
            self._to(_HALF_OPEN, now, "its wait is over")
            return self._probe(now)
        if self.state is _HALF_OPEN:
            waited = self._successes < 1 or now - self._success_at >= HEALTH_AGAIN_S
            return self._probe(now) if waited else None
        return None

    def _check(self, now: float) -> Ticket | None:
        if self._heard_at >= self._asked_at:
            self._misses = 0
        silent_s = now - max(self._heard_at, self._asked_at)
        if silent_s < CHECK_S or not (self._in_flight or now - self._heard_at < IN_USE_S):
            return None
        self._asked_at = now
        return Ticket(self._ticket.generation, probe=True)

    def _probe(self, now: float) -> Ticket | None:
        if self._probe_since is not None and now - self._probe_since < PROBE_S:
            return None
        self._probe_since = now
        return Ticket(self._ticket.generation, probe=True)

    def _ramp(self, now: float) -> float:
        since = now - (self._ramp_from or 0.0)
        if since >= RAMP_S:
            self._ramp_from = None
            return float("inf")
        return RAMP_START * 2.0 ** int(since)

    # -- verdicts ---------------------------------------------------------------------------------

    def succeeded(self, ticket: Ticket, now: float) -> Change | None:
        """The node answered."""
        if ticket is self._ticket and self.state is _CLOSED:
            self._in_flight -= 1
            self.failures = 0
            self._heard_at = now
            return None
        if not self._back(ticket):
            return None
        if ticket.probe and self.state is _CLOSED:
            self._misses = 0  # that it is well does not undo that requests failed
            return None
        self.failures = 0
        if self.state is not _HALF_OPEN:
            return None
        self._successes += 1
        self._success_at = now
        if self._successes < SUCCESSES_TO_CLOSE:
            return None
        change = self._to(_CLOSED, now, "it answers again")
        self._ramp_from = now
        return change

    def failed(self, ticket: Ticket, now: float, why: str) -> Change | None:
        """The node did not answer, or not as a node does."""
        if not self._back(ticket):
            return None
        if ticket.probe and self.state is _CLOSED:
            return self._missed(now, why)
        return self._failure(now, why)

    def _missed(self, now: float, why: str) -> Change | None:
        if self._heard_at >= self._asked_at:
            return None  # it answered a request meanwhile
        self._misses += 1
        return self._open(now, why) if self._misses >= MISSES_TO_OPEN else None

    def slow(self, ticket: Ticket, now: float, tenant_id: str) -> Change | None:
        """No answer in time: the tenant's fault, unless several have the same trouble."""
        if not self._back(ticket):
            return None
        if self._misses and self._heard_at < self._asked_at:
            return self._failure(now, "no answer, and none to the question for its health")
        self._slow = {one: at for one, at in self._slow.items() if now - at < SLOW_S}
        if len(self._slow) < SLOW_TENANTS:
            self._slow[tenant_id] = now
        if len(self._slow) < SLOW_TENANTS:
            return None
        self._slow.clear()
        return self._failure(now, f"{SLOW_TENANTS} tenants without an answer")

    def dropped(self, ticket: Ticket, now: float) -> None:
        """The attempt says nothing of the node."""
        self._back(ticket)

    def force_open(self, now: float, why: str) -> Change | None:
        """The node is said to be down."""
        return None if self.state is _OPEN else self._open(now, why)

    def forgettable(self, now: float) -> bool:
        """Whether a new breaker would say the same."""
        calm = now - self.changed_at >= RAMP_S
        return calm and self.state is _CLOSED and not self.failures

    def look_again(self, now: float) -> None:
        """The node is said to be up: an open breaker need not wait."""
        if self.state is _OPEN:
            self.open_until = min(self.open_until, now)

    def _back(self, ticket: Ticket) -> bool:
        """Whether the ticket's verdict counts."""
        if ticket.generation != self._ticket.generation:
            return False
        if ticket.probe:
            self._probe_since = None
        else:
            self._in_flight -= 1
        return True

    def _failure(self, now: float, why: str) -> Change | None:
        self.failures += 1
        if self.state is _HALF_OPEN or self.failures >= FAILURES_TO_OPEN:
            return self._open(now, why)
        return None

    # -- states -----------------------------------------------------------------------------------

    def _open(self, now: float, why: str) -> Change:
        calm = self.state is _CLOSED and now - self.changed_at >= RAMP_S
        self._opened_in_a_row = 0 if calm else self._opened_in_a_row
        wait = min(OPEN_S * 2.0**self._opened_in_a_row, OPEN_MAX_S)
        self._opened_in_a_row = min(self._opened_in_a_row + 1, 10)
        self.open_until = now + wait * self._random.uniform(1 - JITTER, 1 + JITTER)
        return self._to(_OPEN, now, why)

    def _to(self, state: State, now: float, why: str) -> Change:
        change = Change(self.state, state, why)
        self.state, self.why, self.changed_at = state, why, now
        self._ticket = Ticket(self._ticket.generation + 1)
        self._in_flight = self._successes = 0
        self._probe_since = self._ramp_from = None
        self._slow.clear()
        self._asked_at, self._misses = now, 0
        if state is _CLOSED:
            self.failures = 0
        return change
