"""Several members on one clock: real stores on disk, a network in memory, threads in line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pbcluster.config import FIRST_START
from pbcluster.controlplane import beginning
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.lmdb_store import Done
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.raft_store import RaftStore, Write
from pbcluster.controlplane.roster import Roster
from pbcluster.errors import PBClusterError
from pbcluster.raft import AnyMessage, ConfState
from pbcluster.raft.frames import Frame, Guard, decode, encode

T = TypeVar("T")
CLUSTER = "cluster_1"
STEP_S = 0.005
MAP_BYTES = 64 * 1024**2


def create(name: str) -> c.CreateTenant:
    return c.CreateTenant(utc_now(), f"tenant_{name}", name, f"{name}.localhost")


class TimedStore(RaftStore):
    """A store whose fsync takes a moment of the world's clock instead of a thread's."""

    clock: Clock
    fsync_s = 0.001
    broken: str = ""
    full = False
    writes = 0

    def start(self) -> None:
        self.pending: list[tuple[tuple[Write, ...], Done]] = []
        self.open = True

    def submit(self, batch: tuple[Write, ...], done: Done) -> None:
        self.pending.append((batch, done))
        self.clock.callLater(self.fsync_s, self.sync)

    def sync(self) -> None:
        if not self.open or not self.pending:
            return
        items, self.pending = self.pending, []
        if self.broken:
            self._failed = OSError(self.broken)
        self.writes += 1
        self._write(items)

    def nearly_full(self) -> bool:
        return self.full

    def close(self) -> None:
        if getattr(self, "open", False):
            self.sync()
            self.open = False
        super().close()

    def crash(self) -> None:
        """What was not synced is gone."""
        self.pending, self.open = [], False
        super().close()


class Thread:
    """``IReactorFromThreads`` for stores that have no thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self._clock.callLater(0, function, *args)


class Network:
    """One member's end of the world's network; frames are really encoded."""

    def __init__(self, world: RaftWorld, member: str) -> None:
        self.world = world
        self.member = member
        self.guard = Guard(CLUSTER, member)
        self.received: Callable[[AnyMessage], None] | None = None
        self.incarnation = 0
        self.sent: list[AnyMessage] = []
        self.endpoint = f"tcp://127.0.0.1:{7000 + len(world.networks)}"
        #: Members as the group told them last, and those that left.
        self.followed: tuple[str, ...] = ()
        self.roster = Roster()

    def start(
        self,
        incarnation: int,
        received: Callable[[AnyMessage], None],
        lost: Callable[[str], None],
    ) -> None:
        self.incarnation = incarnation
        self.received = received

    def send(self, message: AnyMessage) -> bool:
        self.sent.append(message)
        to = self.world.networks.get(message.to)
        if to is None or to.received is None:
            return False
        frame = encode(Frame(CLUSTER, self.incarnation, message))
        self.world.clock.callLater(self.world.delay_s, self.world.deliver, self.member, to, frame)
        return True

    def follow(self, members: Collection[str], roster: Roster) -> None:
        self.followed, self.roster = tuple(members), roster

    def ask_standing(self) -> None:
        for other in self.world.networks.values():
            pair = (self.member, other.member)
            asker = self.world.members.get(self.member)
            if asker and pair not in self.world.cut and other.roster.is_former(self.member):
                asker.was_removed()

    def stop(self) -> None:
        self.received = None

    def counts(self) -> dict[str, int]:
        return self.guard.dropped


class RaftWorld:
    """Members ``m1`` … and what happens to them."""

    def __init__(self, directory: Path, count: int = 3, **more: Any) -> None:
        self.clock = Clock()
        self.directory = directory
        self.ids = [f"m{n + 1}" for n in range(count)]
        self.conf = ConfState(tuple(self.ids))
        self.more = more
        self.random = Random(7)
        self.delay_s = 0.001
        #: What the members' thread pools do.
        self.in_thread: Callable[..., Any] = lambda function, *args: succeed(function(*args))
        self.cut: set[tuple[str, str]] = set()
        self.networks: dict[str, Network] = {}
        self.stores: dict[str, TimedStore] = {}
        self.members: dict[str, RaftMember] = {}
        self.failures: dict[str, str] = {}
        self.leaderships: list[tuple[str, bool]] = []
        #: Every frame on its way is seen (and may be kept back) by this.
        self.keep: Callable[[str, AnyMessage], bool] = lambda to, message: True
        for member in self.ids:
            (directory / member).mkdir(parents=True)
            (directory / member / FIRST_START).touch()

    def thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """As ``in_thread`` is now, not as it was when a member started."""
        return self.in_thread(function, *args)

    def store(self, member: str) -> TimedStore:
        home = self.directory / member
        store = TimedStore(home / "store", CLUSTER, member, map_bytes=MAP_BYTES)
        store.clock = self.clock
        beginning.prepare(store, home, CLUSTER, self.conf.voters, "localhost")
        return store

    def start(self, *members: str) -> None:
        for member in members or self.ids:
            store = self.stores[member] = self.store(member)
            network = self.networks[member] = Network(self, member)
            found = RaftMember(
                Thread(self.clock),  # type: ignore[arg-type]
                self.clock,
                store,
                network,
                member,
                "localhost",
                self.random,
                self.thread,
                lambda reason, member=member: self.failures.__setitem__(member, reason),  # type: ignore[misc]
                **self.more,
            )
            self.members[member] = found
            found.subscribe_leadership(
                lambda leads, member=member: self.leaderships.append((member, leads))  # type: ignore[misc]
            )
            self.result(found.start())

    def join(self, member: str) -> None:
        """A new member, which knows nothing, starts."""
        self.ids.append(member)
        (self.directory / member).mkdir(parents=True)
        (self.directory / member / FIRST_START).write_text("join\n")
        self.start(member)

    def deliver(self, sender: str, to: Network, frame: bytes) -> None:
        if (sender, to.member) in self.cut or to.received is None:
            return
        if not self.keep(to.member, decode(frame).message):
            return
        message = to.guard.admit(frame, sender)
        if message is None:
            return
        if to.roster.is_former(message.sender):
            if sender in self.members:
                self.members[sender].was_removed()
        else:
            to.received(message)

    def isolate(self, member: str) -> None:
        for other in self.ids:
            self.cut |= {(member, other), (other, member)}

    def heal(self) -> None:
        self.cut.clear()

    def kill(self, member: str) -> None:
        """As SIGKILL and a power failure do."""
        self.networks.pop(member).stop()
        found = self.members.pop(member)
        found._driver._core = None
        found._overdue.stop()
        self.stores.pop(member).crash()

    def close(self) -> None:
        for member in list(self.members):
            self.result(self.members.pop(member).stop())

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)

    def until(self, happened: Callable[[], bool], within_s: float = 5.0) -> None:
        for _ in range(round(within_s / STEP_S)):
            if happened():
                return
            self.clock.advance(STEP_S)
        raise AssertionError(f"it did not happen within {within_s} s")

    def leader(self) -> str:
        """The only leader, once there is one."""
        self.until(lambda: sum(m.is_leader for m in self.members.values()) == 1)
        return next(name for name, m in self.members.items() if m.is_leader)

    def followers(self) -> list[str]:
        leader = self.leader()
        return [name for name in self.members if name != leader]

    def propose(self, member: str, command: c.AnyCommand, key: str = "") -> Deferred[Outcome]:
        return Deferred.fromCoroutine(self.members[member].propose(command, key))

    def create(self, name: str, key: str = "") -> Outcome:
        """Create a tenant at the leader, and wait for it."""
        return self.wait(self.propose(self.leader(), create(name), key))

    def barrier(self, member: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.members[member].read_barrier())

    def wait(self, deferred: Deferred[T], within_s: float = 5.0) -> T:
        found: list[Any] = []
        deferred.addBoth(found.append)
        self.until(lambda: bool(found), within_s)
        value = getattr(found[0], "value", None)
        if isinstance(value, PBClusterError):
            raise value
        result: T = found[0]
        return result

    def result(self, work: Coroutine[Any, Any, T]) -> T:
        found: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(found.append)
        if found and hasattr(found[0], "raiseException"):
            found[0].raiseException()
        result: T = found[0]
        return result

    def names(self, member: str) -> set[str]:
        return {tenant.name for tenant in self.members[member].registry.tenants()}

    def agree(self) -> None:
        """Every living member has the same state, to the byte."""

        def same() -> bool:
            return len({m.registry.to_bytes() for m in self.members.values()}) == 1

        self.until(same)
