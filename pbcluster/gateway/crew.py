"""Which worker is to be started when, and who serves for one that is dead. Pure; time comes in.

* A worker that ends is started again, at once if it had served for a while, else after a pause
  that doubles with each death.
* From its end until it serves again its share of the sockets (``doors``) is adopted by the living
  worker that keeps fewest. If none lives, connections wait in the kernel; the first one that serves
  adopts all that nobody serves.
* One that leaves by itself (somebody sent it SIGTERM) counts as gone at once: it accepts nothing
  more soon, and may need its whole drain to end.
* Once told to stop, nothing is started or adopted any more.

Workers are numbered from 1.
"""

from __future__ import annotations

import enum

import attrs

#: The first start after a death; a process takes about a second to serve.
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 15.0
#: Who served that long is started with the first delay again.
STEADY_AFTER_S = 60.0


@attrs.frozen
class Start:
    """Start ``worker`` after ``delay_s`` seconds."""

    worker: int
    delay_s: float


@attrs.frozen
class Adopt:
    """``keeper`` serves the share of ``worker`` too."""

    keeper: int
    worker: int


@attrs.frozen
class Release:
    """``worker`` serves itself: ``keeper`` lets go of its share."""

    keeper: int
    worker: int


Effect = Start | Adopt | Release


class State(enum.Enum):
    """What a worker does."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    DEAD = "dead"


@attrs.define
class _Worker:
    state: State = State.STARTING
    delay_s: float = FIRST_DELAY_S
    ready_at: float | None = None
    restarts: int = 0
    keeper: int | None = None


class Crew:
    """The workers of one gateway."""

    def __init__(self, count: int) -> None:
        self._workers = {number: _Worker() for number in range(1, count + 1)}
        self._stopping = False

    @property
    def numbers(self) -> list[int]:
        """Of all workers."""
        return list(self._workers)

    def state(self, worker: int) -> State:
        """What ``worker`` does."""
        return self._workers[worker].state

    def restarts(self, worker: int) -> int:
        """How often ``worker`` was started again."""
        return self._workers[worker].restarts

    def ready(self) -> list[int]:
        """Those that serve."""
        return [number for number, one in self._workers.items() if one.state is State.READY]

    def begin(self) -> list[Effect]:
        """The first starts."""
        return [Start(number, 0.0) for number in self._workers]

    def stop(self) -> None:
        """Start and adopt nothing any more."""
        self._stopping = True

    def started(self, worker: int) -> None:
        """It was started."""
        self._workers[worker].state = State.STARTING

    def became_ready(self, worker: int, now: float) -> list[Effect]:
        """It serves its own share."""
        one = self._workers[worker]
        one.state, one.ready_at = State.READY, now
        if self._stopping:
            return []
        effects: list[Effect] = []
        if one.keeper is not None:
            effects.append(Release(one.keeper, worker))
            one.keeper = None
        return effects + self._adoptions()

    def ended(self, worker: int, now: float) -> list[Effect]:
        """Its process is gone."""
        one = self._workers[worker]
        steady = one.ready_at is not None and now - one.ready_at >= STEADY_AFTER_S
        if steady:
            one.delay_s = FIRST_DELAY_S
        one.ready_at = None
        self._gone(worker, State.DEAD)
        if self._stopping:
            return []
        delay_s, one.delay_s = one.delay_s, min(one.delay_s * 2, LONGEST_DELAY_S)
        one.restarts += 1
        return [*self._adoptions(), Start(worker, delay_s)]

    def leaves(self, worker: int) -> list[Effect]:
        """It says that it ends soon."""
        self._gone(worker, State.LEAVING)
        return [] if self._stopping else self._adoptions()

    def _gone(self, worker: int, state: State) -> None:
        self._workers[worker].state = state
        for other in self._workers.values():
            if other.keeper == worker:
                other.keeper = None

    def _adoptions(self) -> list[Effect]:
        effects: list[Effect] = []
        for number, one in self._workers.items():
            if one.state is State.READY or one.keeper is not None:
                continue
            living = self.ready()
            if not living:
                break
            kept = [other.keeper for other in self._workers.values()]
            one.keeper = min(living, key=lambda keeper: (kept.count(keeper), keeper))
            effects.append(Adopt(one.keeper, number))
        return effects
