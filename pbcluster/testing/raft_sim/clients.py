"""Clients of the simulated group: repetitions, reads at any member, and what they saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from pbcluster.errors import NotLeader, PBClusterError, WrongEpoch
from pbcluster.raft import MemberId
from pbcluster.testing.raft_sim.linearizability import NEVER, REFUSED, Operation
from pbcluster.testing.raft_sim.operations import KEYS, command, look

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.member import SimMember
    from pbcluster.testing.raft_sim.world import World

READER_TIMEOUT = 30
#: An operation is not repeated any more after so long: what the registry keeps of repeated
#: commands is bounded.
REPEAT_TIME = 400
WRITES = ("put", "add", "assign")


class SimClient:
    """One operation at a time; an attempt without an answer is repeated elsewhere under the same
    idempotency key, and in the end given up with unknown outcome."""

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
        self._count = 0
        self._target: MemberId = ""
        self._attempt = 0
        #: The epoch of each key's tenant, as last seen.
        self._epochs = dict.fromkeys(KEYS, 0)
        #: The operation under way: kind, key, value, idempotency key, time of its call.
        self._current: tuple[str, str, str, str, int] | None = None

    def begin(self, _nothing: object = None) -> None:
        """Think of something to do."""
        if self.stopped:
            return
        random = self.world.client_random
        self._count += 1
        name = f"{self.name}{self._count}"
        kind = "get"
        if not self._only_reads and random.random() < 0.7:
            kind = WRITES[int(random.random() * len(WRITES))]
        key = KEYS[int(random.random() * len(KEYS))]
        if kind == "add" and not self.world.adds.take(key):
            kind = "put"
        value = str(self._epochs[key]) if kind == "assign" else name
        self._current = (kind, key, value, name, self.world.now)
        self._try()

    def _try(self) -> None:
        """Send the operation to some member."""
        assert self._current is not None
        world = self.world
        self._attempt += 1
        random = world.client_random
        kind = self._current[0]
        if not self._target or (kind == "get" and random.random() < 0.5):
            self._target = world.random_member(random)
        if kind == "get" and (self._only_reads or random.random() < 0.5):
            # Whoever asks a leader that does not know yet that it was deposed must not be fooled,
            # least of all after having asked the new one.
            self._target = world.operator.any_leader(random.random() < 0.5) or self._target
        asked = (self._target, self._attempt, self._current)
        world.after(1 + int(random.random() * 4), self._arrive, asked)
        world.after(self._patience, self._timed_out, self._attempt)

    def _arrive(self, asked: tuple[MemberId, int, tuple[str, str, str, str, int]]) -> None:
        """The question is at the socket of the member; if that is paused, it waits there."""
        target, attempt, current = asked
        member = self.world.members.get(target)
        if member is None or member.process is None:
            return

        def ask() -> None:
            # Its envelope holds a deadline.
            if self.world.now <= current[4] + REPEAT_TIME:
                Deferred.fromCoroutine(self._ask(member, attempt, current)).addErrback(
                    self.world.caught
                )

        member.process.ask(ask)

    async def _ask(
        self, member: SimMember, attempt: int, current: tuple[str, str, str, str, int]
    ) -> None:
        """What a member's front does with a question."""
        kind, key, value, name, _called = current
        states, raft = self.world.checker.states, member.raft
        try:
            if kind == "get":
                floor = states.answered_index
                await raft.read_barrier(patient=attempt % 2 == 0)
                states.read_answered(member, floor)
                answer: tuple[str, Any] = ("done", look(raft.registry, key))
            else:
                outcome = await raft.propose(command(kind, key, value, attempt), name)
                states.answered(member, name, outcome)
                number = outcome.incarnation if kind == "add" else outcome.epoch
                answer = ("done", True if kind == "put" else number)
        except NotLeader as error:
            answer = ("not_leader", error.data["leader"])
        except WrongEpoch:
            states.refused(member, name)
            answer = ("done", REFUSED)
        except PBClusterError as error:
            answer = ("again", error.code)
        random = self.world.client_random
        if random.random() * 1000 >= self.world.network.loss:
            self.world.after(1 + int(random.random() * 4), self._answered, (attempt, *answer))

    def _timed_out(self, attempt: int) -> None:
        if attempt == self._attempt and self._current is not None:
            self._target = ""
            self._retry()

    def _retry(self) -> None:
        assert self._current is not None
        if self.stopped or self.world.now > self._current[4] + REPEAT_TIME:
            self._record(None)
        else:
            self._try()

    def _answered(self, given: tuple[int, str, Any]) -> None:
        attempt, what, result = given
        # Only the attempt under way is listened to; the key covers what an older one did.
        if self._current is None or attempt != self._attempt:
            return
        if what == "done":
            self._record(result)
            return
        if what == "not_leader":
            self._target = result
        elif result != "busy":
            self._target = ""
        self._attempt += 1
        delay = 10 + int(self.world.client_random.random() * 40)
        self.world.after(delay, self._again, self._attempt)

    def _again(self, attempt: int) -> None:
        if self._current is not None and attempt == self._attempt:
            self._retry()

    def _record(self, result: Any) -> None:
        """The operation is over, with a result or without."""
        assert self._current is not None
        kind, key, value, name, called = self._current
        self._current = None
        self.completed += result is not None
        self.written += result is not None and kind != "get"
        if kind == "get" and result is not None:
            self._epochs[key] = result[2]
        elif kind == "assign" and isinstance(result, int):
            self._epochs[key] = result
        if kind != "get" or result is not None:
            returned = NEVER if result is None else self.world.now
            self.history.append(Operation(name, kind, key, value, called, returned, result))
        if not self.stopped:
            self.world.after(1 + int(self.world.client_random.random() * 60), self.begin, None)

    def finish(self) -> list[Operation]:
        """Stop, and give everything that was seen."""
        self.stopped = True
        if self._current is not None and self._current[0] != "get":
            self._record(None)
        return self.history
