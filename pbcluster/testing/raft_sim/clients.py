"""Clients of the simulated group: sessions, retries, reads at any member, and what they saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pbcluster.raft import MemberId
from pbcluster.testing.raft_sim.linearizability import NEVER, Operation
from pbcluster.testing.raft_sim.machine import Command, Outcome, encode_command

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.world import World

KEYS = ("x", "y", "z")
READER_TIMEOUT = 30


class SimClient:
    """One operation at a time; an attempt without an answer is repeated elsewhere under the same
    session and sequence number, a refused or expired one is given up with unknown outcome."""

    def __init__(self, world: World, name: str, *, only_reads: bool = False) -> None:
        """
        :param only_reads: an impatient client that reads, and asks deposed leaders if there are.
        """
        self.world = world
        self.name = name
        self._only_reads = only_reads
        self._patience = READER_TIMEOUT if only_reads else world.profile.client_timeout
        self.history: list[Operation] = []
        self.stopped = False
        #: Operations that were answered, and writes among them.
        self.completed = 0
        self.written = 0
        self._session = 0
        self._sequence = 0
        self._count = 0
        self._target: MemberId = ""
        self._attempt = 0
        #: The operation under way: kind, key, value, time of its call.
        self._current: tuple[str, str, str, int] | None = None

    def begin(self, _nothing: object = None) -> None:
        """Think of something to do."""
        if self.stopped:
            return
        random = self.world.client_random
        self._count += 1
        value = f"{self.name}{self._count}"
        if self._only_reads:
            kind = "get"
        elif not self._session:
            kind = "open"
        else:
            kind = ("get", "put", "add")[min(2, int(random.random() * 3))]
            self._sequence += kind != "get"
        key = KEYS[int(random.random() * len(KEYS))]
        self._current = (kind, key, value, self.world.now)
        self._try()

    def _try(self) -> None:
        """Send the operation to some member."""
        assert self._current is not None
        world = self.world
        self._attempt += 1
        random = world.client_random
        kind, key, value, _called = self._current
        if not self._target or (kind == "get" and random.random() < 0.5):
            self._target = world.random_member(random)
        if kind == "get" and (self._only_reads or random.random() < 0.5):
            # Whoever asks a leader that does not know yet that it was deposed must not be fooled,
            # least of all after having asked the new one.
            self._target = world.operator.any_leader(random.random() < 0.5) or self._target
        target, attempt = self._target, self._attempt
        name = f"{value}@{kind}"

        def answer(what: str, result: Any) -> None:
            if random.random() * 1000 >= world.network.loss:
                world.after(1 + int(random.random() * 4), self._answered, (attempt, what, result))

        def ask(_nothing: object) -> None:
            member = world.members.get(target)
            if member is None:
                return
            if kind == "get":
                member.read(key, answer)
            else:
                command = Command(kind, name, self._session, self._sequence, key, value)
                member.command(encode_command(command), answer)

        world.after(1 + int(random.random() * 4), ask, None)
        world.after(self._patience, self._timed_out, attempt)

    def _timed_out(self, attempt: int) -> None:
        if attempt == self._attempt and self._current is not None:
            self._target = ""
            self._retry()

    def _retry(self) -> None:
        assert self._current is not None
        if self._current[0] == "open":
            # A second session would do no harm, but the first operation's outcome stays open.
            self._current = None
            self._rest()
        elif self.stopped:
            self._record(None)
        else:
            self._try()

    def _answered(self, given: tuple[int, str, Any]) -> None:
        attempt, what, result = given
        # Only the attempt under way is listened to; the session covers what an older one did.
        if self._current is None or attempt != self._attempt:
            return
        if what == "read":
            self._record(result)
        elif what == "done":
            self._done(result)
        elif what == "not_leader":
            self._target = result
            self._again_soon()
        else:
            self._target = self._target if result == "busy" else ""
            self._again_soon()

    def _done(self, outcome: Outcome) -> None:
        assert self._current is not None
        if self._current[0] == "open":
            self._session, self._sequence = outcome.number, 0
            self._current = None
            self._rest()
        elif outcome.expired:
            self._session = 0
            self._record(None)
        else:
            self._record(outcome.number)

    def _again_soon(self) -> None:
        self._attempt += 1
        delay = 10 + int(self.world.client_random.random() * 40)
        self.world.after(delay, self._again, self._attempt)

    def _again(self, attempt: int) -> None:
        if self._current is not None and attempt == self._attempt:
            self._retry()

    def _record(self, result: Any) -> None:
        """The operation is over, with a result or without."""
        assert self._current is not None
        kind, key, value, called = self._current
        self._current = None
        self.completed += result is not None
        self.written += result is not None and kind != "get"
        if kind != "get" or result is not None:
            returned = NEVER if result is None else self.world.now
            self.history.append(Operation(self.name, kind, key, value, called, returned, result))
        self._rest()

    def _rest(self) -> None:
        if not self.stopped:
            self.world.after(1 + int(self.world.client_random.random() * 60), self.begin, None)

    def finish(self) -> list[Operation]:
        """Stop, and give everything that was seen."""
        self.stopped = True
        if self._current is not None and self._current[0] not in ("open", "get"):
            self._record(None)
        return self.history
