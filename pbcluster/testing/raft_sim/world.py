"""A whole group under one seed: time, chance, faults, and the end that must be good.

Everything that happens is an event in one queue ordered by time and number, and all chance comes
from generators seeded by the seed: the same seed gives the same run, to the last message, which the
trace hash proves. First there is chaos; then everything is healed, and within ten election timeouts
there must be a leader, progress, and equal state.
"""

from __future__ import annotations

import hashlib
import heapq
import traceback
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import frozen
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from pbcluster.raft import ConfState, MemberId, elections
from pbcluster.raft.messages import AnyMessage
from pbcluster.testing.raft_sim import faults
from pbcluster.testing.raft_sim.checker import Checker
from pbcluster.testing.raft_sim.clients import SimClient
from pbcluster.testing.raft_sim.linearizability import Operation, SearchGaveUp, first_bad_key
from pbcluster.testing.raft_sim.member import SimMember
from pbcluster.testing.raft_sim.network import LONGEST_DELAY_TIMEOUTS, SimNetwork
from pbcluster.testing.raft_sim.operations import AddsLeft, genesis
from pbcluster.testing.raft_sim.operator import SimOperator
from pbcluster.testing.raft_sim.process import SimProcess
from pbcluster.testing.raft_sim.properties import Broken
from pbcluster.testing.raft_sim.scale import at_scale
from pbcluster.testing.raft_sim.schedule import Fault, Profile, draw_profile, draw_schedule

#: Healing must lead to progress within so many (shortest) election timeouts.
LIVENESS_TIMEOUTS = 10
#: Events of one run; more means that it does not come to rest.
MAX_EVENTS = 200_000


@frozen
class Result:
    """What came of a seed. ``broken`` is the property's name, or empty."""

    seed: int
    trace_hash: str
    broken: str
    text: str
    events: int
    operations: int
    commits: int
    schedule: tuple[Fault, ...]
    lines: tuple[str, ...] = ()


def _described(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__} {error}{place}"


class World:
    """One run."""

    def __init__(
        self, seed: int, schedule: tuple[Fault, ...] | None = None, *, keep_trace: bool = False
    ) -> None:
        """
        :param schedule: faults instead of the seed's own; everything else stays the seed's.
        :param keep_trace: remember the trace's lines, not only their hash.
        """
        self.seed = seed
        self.profile: Profile = draw_profile(Random(f"{seed}/profile"))
        own = draw_schedule(Random(f"{seed}/schedule"), self.profile)
        self.schedule = own if schedule is None else schedule
        self.core_random = Random(f"{seed}/core")
        self.network_random = Random(f"{seed}/network")
        self.disk_random = Random(f"{seed}/disk")
        self.client_random = Random(f"{seed}/client")
        self.fault_random = Random(f"{seed}/fault")
        self.now = 0
        self.events = 0
        self._queue: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._number = 0
        self._hash = hashlib.blake2b(digest_size=8)
        self._lines: list[str] | None = [] if keep_trace else None
        self.members: dict[MemberId, SimMember] = {}
        self.checker = Checker(self)
        self.network = SimNetwork(self)
        self.operator = SimOperator(self)
        self.adds = AddsLeft()
        self.clients = [SimClient(self, f"k{i}.") for i in range(self.profile.clients)]
        self.clients.append(SimClient(self, "r.", only_reads=True))
        self.healed = False
        #: Members whose disk is slow, until when; and whose next fsync fails.
        self.slow_until: dict[MemberId, int] = {}
        self.failing: set[MemberId] = set()
        #: Whose fsyncs do not return for as long as progress is demanded.
        self.hanging: MemberId = ""
        #: Who takes no proposals, since its disk is nearly full.
        self.full: MemberId = ""
        #: The first property that was found broken while others' code was running.
        self.found: Broken | None = None
        self._last_error = ""

    # -- time and trace ---------------------------------------------------------------------------

    def after(self, delay: int, action: Callable[[Any], None], argument: Any) -> None:
        """``action(argument)`` happens ``delay`` from now."""
        self._number += 1
        heapq.heappush(self._queue, (self.now + delay, self._number, action, argument))

    def trace(self, line: str) -> None:
        """Something happened."""
        line = f"{self.now} {line}"
        self._hash.update(line.encode())
        if self._lines is not None:
            self._lines.append(line)

    def note_message(self, message: AnyMessage) -> None:
        """A message was sent: part of the trace, and written out only if someone will read it."""
        if self._lines is not None:
            self._lines.append(f"{self.now}   {message}")
        kind = type(message).__name__
        text = f"{self.now} {kind} {message.sender} {message.to} {message.term}"
        self._hash.update(text.encode())

    def logged(self, event: dict[str, Any]) -> None:
        """Production code logs something."""
        failure: Failure | None = event.get("log_failure")
        if failure is not None:
            self._last_error = _described(failure.value)
        if self._lines is not None:
            self._lines.append(f"{self.now}   {formatEvent(event)}")

    def ended(self, member: MemberId, reason: str) -> None:
        """A member ended though its disk is sound."""
        text = f"{member}: {reason} {self._last_error}"
        self.found = self.found or Broken("no_crash", text.strip())

    def caught(self, failure: Failure) -> None:
        """A coroutine ended by an error that nobody expects."""
        if failure.check(Broken) is None:
            self.found = self.found or Broken("no_crash", _described(failure.value))

    def _run_until(self, end: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until ``end``; with ``done``, only until that holds (True then)."""
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _number, action, argument = heapq.heappop(queue)
            self.events += 1
            if self.events > MAX_EVENTS:
                raise Broken("liveness", f"{MAX_EVENTS} events and no end")
            action(argument)
            if self.found is not None:
                raise self.found
            if done is not None and self.events % 16 == 0 and done():
                return True
        self.now = end
        return done is not None and done()

    # -- the world's own chance -------------------------------------------------------------------

    def random_member(self, random: Random) -> MemberId:
        """Any member that may answer."""
        names = [one.id for one in self.members.values() if not one.wiped and not one.removed]
        return names[int(random.random() * len(names))]

    def fsync_duration(self, member: MemberId) -> int:
        """How long a transaction takes."""
        slow = self.slow_until.get(member, 0) > self.now
        return self.disk_random.randrange(20, 200) if slow else 1 + self.disk_random.randrange(4)

    def fsync_fails(self, member: MemberId) -> bool:
        """Whether this fsync gives an error."""
        if member not in self.failing:
            return False
        self.failing.discard(member)
        return True

    def process(self, member: MemberId) -> SimProcess | None:
        """The life under way of a member, if there is one."""
        found = self.members.get(member)
        return None if found is None else found.process

    # -- members ----------------------------------------------------------------------------------

    def _first_members(self) -> None:
        names = tuple(f"m{i}" for i in range(1, self.profile.voters + 1))
        self.checker.states.founded(ConfState(names))
        for name in names:
            member = self.members[name] = SimMember(self, name)
            member.disk.format(ConfState(names), genesis().to_bytes())
            skew = self.profile.skew
            member.tick_length += self.core_random.randrange(-skew, skew + 1)
            delay = self.core_random.randrange(member.tick_length)
            self.after(delay, lambda one: one.start(), member)

    def join(self, name: MemberId) -> None:
        """A new member starts with an empty disk and waits to be added."""
        member = self.members[name] = SimMember(self, name)
        member.start()
        self.trace(f"{name} starts with an empty disk")

    # -- the run ----------------------------------------------------------------------------------

    def run(self) -> Result:
        """All of it; a broken property ends it."""
        broken = text = ""
        try:
            with at_scale(self.profile, self.logged):
                self._chaos()
                self._heal_and_check()
        except Broken as error:
            broken, text = error.name, str(error)
        except Exception as error:  # whatever a member ends by is a finding, not our failure
            broken, text = "no_crash", f"no_crash: {_described(error)}"
        if broken:
            self.trace(f"BROKEN {text}")
        return Result(
            seed=self.seed,
            trace_hash=self._hash.hexdigest(),
            broken=broken,
            text=text,
            events=self.events,
            operations=sum(client.completed for client in self.clients),
            commits=len(self.checker.committed),
            schedule=self.schedule,
            lines=tuple(self._lines or ()),
        )

    def _chaos(self) -> None:
        self._first_members()
        for client in self.clients:
            self.after(self.client_random.randrange(100), client.begin, None)
        for fault in self.schedule:
            self.after(fault.time, self._strike, fault)
        self._run_until(self.profile.chaos_time)

    def _strike(self, fault: Fault) -> None:
        if not self.healed:
            self.trace(f"FAULT {fault.kind} {fault.first} {fault.second}")
            faults.strike(self, fault)

    def _heal_and_check(self) -> None:
        self.trace("HEALED")
        self.healed = True
        faults.heal_everything(self)
        if self.profile.final_check == "one_way_minority":
            faults.cut_one_way_minority(self)
        elif self.profile.final_check == "hung_leader_disk":
            faults.hang_leader_disk(self)
        limit = LIVENESS_TIMEOUTS * self.profile.election_time
        patience = limit
        if self.profile.final_check == "one_way_minority":
            # What is still under way lets a leader that hears nobody believe for a while longer.
            patience += LONGEST_DELAY_TIMEOUTS * self.profile.election_time
        if self.hanging:
            # Found out only after a while, by the leader and then by its clients.
            found = elections.LEADER_DISK_TIMEOUTS * self.profile.election_time
            patience += found + self.profile.client_timeout
        if not self._run_until(self.now + patience, self._progress()):
            raise Broken("liveness", f"no progress within {patience} of healing: {self._states()}")
        faults.reconnect(self)
        # Who was away gets the log with as few bytes at once as the profile says.
        if not self._run_until(self.now + 2 * limit, self._agreed):
            raise Broken("liveness", f"members did not come to agree: {self._states()}")
        if not self._run_until(self.now + limit, self._leavers_ended):
            raise Broken("leavers_end", f"who left goes on: {self._states()}")
        if self.profile.final_check in ("returning_member", "lost_leader_link"):
            self._check_undisturbed()
        self._check_history()

    def _progress(self) -> Callable[[], bool]:
        """So many writes are answered from now on that one of them began after this moment."""
        before = self._written()
        return lambda: self._written() > before + self.profile.clients

    def _written(self) -> int:
        return sum(client.written for client in self.clients)

    def _leavers_ended(self) -> bool:
        """No process runs of a member that left the group, whenever it learnt so."""
        left = self.checker.states.has_left
        return not any(one.process is not None and left(one.id) for one in self.members.values())

    def _agreed(self) -> bool:
        """One leader, and every living member of its configuration knows what it knows."""
        leader = self.operator.leader()
        if leader is None or leader.core is None or leader.core.conf.joint:
            return False
        status = leader.core.status()
        for name in status.conf.members():
            member = self.members[name]
            if member.wiped:
                continue
            if member.core is None or member.core.status().term != status.term:
                return False
            if member.applied < leader.applied - 2:
                return False
        return status.applied > 1

    def _check_undisturbed(self) -> None:
        """A follower is cut off, wholly or from the leader alone, for some election timeouts and
        comes back: no term is raised. Clients are quiet, so that its log stays as good as any."""
        for client in self.clients:
            client.stopped = True
        self._run_until(self.now + 4 * self.profile.election_time)
        leader = self.operator.leader()
        if leader is None or leader.core is None or not self._agreed():
            return
        term = leader.core.status().term
        followers = [m for m in leader.core.conf.voters if m != leader.id]
        if len(followers) < 2 or self.operator.busy():
            return
        name = followers[self.fault_random.randrange(len(followers))]
        self.trace(f"{name} is cut off, to return")
        faults.isolate(self, name)
        if self.profile.final_check == "lost_leader_link":
            self.network.cut = {(leader.id, name), (name, leader.id)}
        process = self.members[name].process
        if process is not None:
            process.connection_lost(leader.id)
        self._run_until(self.now + 4 * self.profile.election_time)
        self.network.cut.clear()
        self._run_until(self.now + 3 * self.profile.election_time)
        highest = max(
            one.core.status().term for one in self.members.values() if one.core is not None
        )
        if highest != term and not self.operator.busy():
            raise Broken("no_disturbance", f"{name} returned: term {term} became {highest}")

    def _check_history(self) -> None:
        self.checker.states.at_the_end()
        history: list[Operation] = []
        for client in self.clients:
            history.extend(client.finish())
        try:
            key = first_bad_key(history)
        except SearchGaveUp as error:
            self.trace(f"history not judged: {error}")
            return
        if key is not None:
            raise Broken("linearizable", f"the operations on {key} fit no order")

    def _states(self) -> str:
        states = []
        for member in self.members.values():
            if member.core is None:
                states.append(f"{member.id} down")
                continue
            status = member.core.status()
            states.append(
                f"{member.id} {status.role.value} t{status.term} commit {status.commit} "
                f"applied {status.applied} last {status.last_index}"
            )
        return "; ".join(states)
