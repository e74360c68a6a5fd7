"""The states of a tenant on a node and every change between them (one line a change).

    absent → claiming → restoring → starting → syncing → active → draining → stopping → absent

``claiming`` asks S3 whether the tenant is ours: by a new claim, or for a warm copy by a look at its
old claim. ``starting`` begins PocketBase, again after a crash. ``syncing``: PocketBase answers and
reads may be served under a proof; writes only when ``active``, after the first sync and READY.
``failed`` keeps its cause; what must be stopped first goes through ``stopping``.

The table is the specification: an event that stands not in it is a bug and raises. This module
knows no time and does nothing.
"""

from __future__ import annotations

import enum

import attrs


class State(enum.Enum):
    """Where a tenant is in its life."""

    ABSENT = "absent"
    CLAIMING = "claiming"
    RESTORING = "restoring"
    STARTING = "starting"
    SYNCING = "syncing"
    ACTIVE = "active"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class Event(enum.Enum):
    """What happened to it."""

    LOAD_WANTED = "load_wanted"
    CLAIM_WON = "claim_won"
    RESUMED = "resumed"
    COPY_READY = "copy_ready"
    WORKLOAD_ANSWERED = "workload_answered"
    SYNCED = "synced"
    WORKLOAD_ENDED = "workload_ended"
    STOP_WANTED = "stop_wanted"
    DRAINED = "drained"
    STOPPED = "stopped"
    FAILED = "failed"


S, E = State, Event

TRANSITIONS: dict[tuple[State, Event], State] = {
    (S.ABSENT, E.LOAD_WANTED): S.CLAIMING,
    (S.FAILED, E.LOAD_WANTED): S.CLAIMING,
    (S.CLAIMING, E.CLAIM_WON): S.RESTORING,
    (S.CLAIMING, E.RESUMED): S.STARTING,
    (S.RESTORING, E.COPY_READY): S.STARTING,
    (S.STARTING, E.WORKLOAD_ANSWERED): S.SYNCING,
    (S.SYNCING, E.SYNCED): S.ACTIVE,
    (S.SYNCING, E.WORKLOAD_ENDED): S.STARTING,
    (S.ACTIVE, E.WORKLOAD_ENDED): S.STARTING,
    (S.ACTIVE, E.STOP_WANTED): S.DRAINING,
    (S.DRAINING, E.DRAINED): S.STOPPING,
    # whatever is under way when the tenant must go is ended, not finished
    (S.CLAIMING, E.STOP_WANTED): S.STOPPING,
    (S.RESTORING, E.STOP_WANTED): S.STOPPING,
    (S.STARTING, E.STOP_WANTED): S.STOPPING,
    (S.SYNCING, E.STOP_WANTED): S.STOPPING,
    (S.FAILED, E.STOP_WANTED): S.STOPPING,
    (S.STOPPING, E.STOPPED): S.ABSENT,
    # failed from any state of a load; a PocketBase that ended goes through starting first
    (S.CLAIMING, E.FAILED): S.FAILED,
    (S.RESTORING, E.FAILED): S.FAILED,
    (S.STARTING, E.FAILED): S.FAILED,
    (S.SYNCING, E.FAILED): S.FAILED,
}

#: States in which a load is under way: a request may wait for its end.
LOADING = frozenset({S.CLAIMING, S.RESTORING, S.STARTING, S.SYNCING})
#: States in which PocketBase may be asked to read.
READABLE = frozenset({S.SYNCING, S.ACTIVE})
#: States that take one of the node's places.
PRESENT = frozenset(State) - {S.ABSENT, S.FAILED}


@attrs.define
class Life:
    """The state of one tenant and why it failed last.

    :ivar cause: the reason of the last failure, empty once it is active again.
    """

    state: State = State.ABSENT
    cause: str = ""

    def happened(self, event: Event, cause: str = "") -> State:
        """Follow the table.

        :param cause: why it failed (with ``Event.FAILED``).
        :returns: the new state.
        :raises ValueError: the event is not possible in this state.
        """
        try:
            following = TRANSITIONS[(self.state, event)]
        except KeyError:
            raise ValueError(
                f"a tenant that is {self.state.value} cannot be {event.value}"
            ) from None
        self.state = following
        if event is Event.FAILED:
            self.cause = cause
        elif following is State.ACTIVE:
            self.cause = ""
        return following


#: A load that failed is tried again after so long, doubling.
LOAD_RETRY_S = 0.5
LOAD_RETRY_MAX_S = 15.0


def load_retry_s(failures: int) -> float:
    """Seconds until the next try, after ``failures`` failures in a row before this one."""
    return min(LOAD_RETRY_S * float(2**failures), LOAD_RETRY_MAX_S)


#: A PocketBase that ended by itself is started again after so long, doubling.
RESTART_BACKOFF_S = 0.1
RESTART_BACKOFF_MAX_S = 5.0
#: More ends than this within the window are a crash loop: the tenant fails with the reason.
MAX_CRASHES = 5
CRASH_WINDOW_S = 60.0


@attrs.define
class Crashes:
    """When a tenant's PocketBase ended by itself, as far as it matters."""

    _times: list[float] = attrs.field(factory=list)

    def add(self, now: float) -> float | None:
        """It ended at ``now``.

        :returns: seconds to wait before the next start, or None: a crash loop.
        """
        self._times = [time for time in self._times if now - time < CRASH_WINDOW_S] + [now]
        if len(self._times) > MAX_CRASHES:
            return None
        doubled: float = RESTART_BACKOFF_S * 2 ** (len(self._times) - 1)
        return min(doubled, RESTART_BACKOFF_MAX_S)

    def clear(self) -> None:
        """Forget them: a new attempt was asked for."""
        self._times = []
