"""Does what the Raft core wants done: the contract of :mod:`pbcluster.raft`, with clock and disk.

Inputs (ticks, messages, proposals, reads) go into the core as they come; the effects are taken out
once a turn of the reactor, so that what arrives together shares messages and one fsync. At most one
transaction of entries is under way; what becomes ready meanwhile goes into the next.

It knows the state machine by ``raft_machine`` alone and gives nobody an answer: that is
``raft_member``'s. Any failure of the disk or of the core's invariants ends the member: ``failed``
is called once, and from then on nothing is sent, written or applied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from pbcluster.controlplane.raft_intervals import NewCore, new_core
from pbcluster.controlplane.raft_leader_watch import LeaderWatch
from pbcluster.controlplane.raft_machine import StateMachine
from pbcluster.controlplane.raft_snapshots import KEEP_ENTRIES, SNAPSHOT_EVERY, Snapshots
from pbcluster.controlplane.raft_store import MemberStore, Write
from pbcluster.controlplane.raft_ticks import Ticks
from pbcluster.controlplane.raft_transport import RaftNetwork
from pbcluster.errors import Busy, StorageCorrupt, Unavailable
from pbcluster.raft import (
    AnyMessage,
    ChunkToSend,
    ConfigChange,
    ConfState,
    EntryKind,
    HardState,
    InvariantViolated,
    MemberId,
    Proposed,
    RaftCore,
    Ready,
    Role,
    Status,
)
from pbcluster.raft.messages import SnapshotChunk
from pbcluster.raft.state import RandomSource

#: So long a commit waits for entries with which the others are told of it: longer than from one
#: write of a single client to its next, much shorter than any look-up cares about.
TELL_COMMIT_S = 0.003
log = Logger()
T = TypeVar("T")


def _may_wait(ready: Ready) -> bool:
    """Whether nothing is lost if it is written with what comes next. That a membership change is
    committed is not forgotten: whoever left does not stay for long to tell it again, and its vote
    could be needed by who forgot."""
    return not (ready.must_sync or any(e.kind is EntryKind.CONFIG for e in ready.committed))


class RaftDriver:
    """One member's driver.

    :ivar role: as the core said last, like ``term`` and ``leader`` ("": unknown; ``leader_watch``).
    :ivar applied: index of the last entry applied; ``applied_conf``: the members as of it.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        clock: IReactorTime,
        store: MemberStore,
        network: RaftNetwork,
        machine: StateMachine,
        member: MemberId,
        random: RandomSource,
        in_thread: Callable[..., Awaitable[Any]],
        failed: Callable[[str], None],
        *,
        snapshot_every: int = SNAPSHOT_EVERY,
        keep_entries: int = KEEP_ENTRIES,
        new_core: NewCore = new_core,
    ) -> None:
        """
        :param clock: must not jump, and must go on while the machine sleeps.
        :param in_thread: calls a slow function in a thread, like ``deferToThreadPool``.
        :param failed: called with the reason when this member can no longer be trusted.
        :param new_core: other intervals and bounds, for the simulator.
        """
        self.role = Role.FOLLOWER
        self.term = 0
        self.leader: MemberId = ""
        self.applied = 0
        self.applied_conf = ConfState()
        self._applied_term = 0
        self._reactor = reactor
        self._clock = clock
        self._store = store
        self._network = network
        self._machine = machine
        self._member = member
        self._random = random
        self._failed = failed
        self._new_core = new_core
        self._core: RaftCore | None = None
        self._ticks = Ticks(clock, self._tick)
        self._turn: IDelayedCall | None = None
        self._telling: IDelayedCall | None = None
        self.leader_watch = LeaderWatch(clock)
        self._waiting: list[Ready] = []
        self._writing: list[Ready] = []
        #: A commit index that was not worth a write of its own.
        self._lazy: HardState | None = None
        self._snapshots = Snapshots(
            self, store, machine, in_thread, snapshot_every=snapshot_every, keep=keep_entries
        )

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the disk and take part.

        :raises StorageCorrupt: what is stored fails its check.
        :raises ConfigError: the network's address cannot be had.
        """
        stored = self._store.recover()
        if stored.snapshot.index:
            self._snapshots.recover(stored.snapshot)
        self.applied, self.applied_conf = stored.applied, stored.conf
        self._applied_term = stored.snapshot.term
        incarnation = self._store.begin_life()
        try:
            self._core = self._new_core(self._member, incarnation, stored, self._random)
        except InvariantViolated as error:
            raise StorageCorrupt(f"the store contradicts itself: {error.message}") from None
        self._store.start()
        if stored.conf.voters == (self._member,) and not stored.conf.joint:
            # Nobody else is to be heard first.
            self._core.campaign()
        self.pump()
        if self._core is not None:
            self._network.start(incarnation, self._received, self._lost)
            self.leader_watch.heard()
            self._ticks.start()
            self._sleep()

    def stop(self) -> None:
        """Write what is under way and close. Who waits for an answer waits in vain."""
        running, self._core = self._core is not None, None
        self._ticks.stop()
        for timer in (self._turn, self._telling):
            if timer is not None and timer.active():
                timer.cancel()
        self._network.stop()
        if running and self._lazy is not None:
            self._store.submit((Write(hard_state=self._lazy),), lambda error: None)
        self._store.close()

    def end(self, reason: str) -> None:
        """Nothing more is done; the process must end."""
        if self._core is None:
            return
        self._core = None
        self.role, self.leader = Role.FOLLOWER, ""
        self._network.stop()
        self._failed(reason)

    # -- inputs -----------------------------------------------------------------------------------

    @property
    def core(self) -> RaftCore | None:
        """The core, while :attr:`running`."""
        return self._core

    @property
    def running(self) -> bool:
        """Between start and stop, while nothing failed."""
        return self._core is not None

    def status(self) -> Status | None:
        """Everything worth showing, while it runs."""
        return None if self._core is None else self._core.status()

    def propose(self, data: bytes) -> Proposed:
        """As the core's; only while :attr:`running`."""
        return self._asked(lambda core: core.propose(data))

    def read_index(self) -> int:
        """As the core's; only while :attr:`running`."""
        return self._asked(lambda core: core.read_index())

    def transfer_leadership(self, target: MemberId) -> None:
        """As the core's; only while :attr:`running`."""
        self._asked(lambda core: core.transfer_leadership(target))

    def propose_config(self, change: ConfigChange) -> Proposed:
        """As the core's; only while :attr:`running`."""
        return self._asked(lambda core: core.propose_config(change))

    def _asked(self, what: Callable[[RaftCore], T]) -> T:
        self._advance()
        if self._core is None:
            raise Unavailable("this member has ended")
        self._pump_soon()
        try:
            answer = what(self._core)
        except InvariantViolated as error:
            self.end(f"Raft: {error.message}")
            raise
        return answer

    def _tick(self) -> None:
        self._advance()
        self.pump()

    def _advance(self) -> None:
        """Tell the core how much time passed, before it sees anything that waited meanwhile."""
        if self._core is None or (ticks := self._ticks.passed()) <= 0:
            return
        try:
            if ticks == 1:
                self._core.tick()
            else:
                self._core.tick_gap(ticks)
        except Exception as error:
            self._broken(error)

    def _received(self, message: AnyMessage) -> None:
        self._advance()
        if self._core is None:
            return
        if isinstance(message, SnapshotChunk) and self._snapshots.is_behind():
            return
        try:
            self._core.step(message)
        except Exception as error:
            self._broken(error)
        if message.sender == self.leader:
            back = self.leader_watch.silent()
            self.leader_watch.heard()
            if back:
                self._machine.leader_heard()
        self._pump_soon()

    def _lost(self, member: MemberId) -> None:
        """The connection to ``member`` ended: if it leads, it is probably dead, and nobody is sent
        there any more."""
        if member == self.leader:
            self.leader_watch.lost = True
        self._advance()
        if self._core is not None:
            self._core.connection_lost(member)
        self._sleep()

    def _broken(self, error: Exception) -> None:
        log.failure("the Raft core failed")
        self.end(f"Raft: {error}")

    # -- effects ----------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        if self._turn is None and self._core is not None:
            self._turn = self._clock.callLater(0, self.pump)

    def pump(self) -> None:
        """Do everything the core wants done."""
        turn, self._turn = self._turn, None
        if turn is not None and turn.active():
            turn.cancel()
        try:
            while (core := self._core) is not None:
                if core.has_ready():
                    self._handle(core.ready())
                elif not self._write():
                    break
            self._snapshots.make_if_due(self.applied, self._applied_term, self.applied_conf)
            self._tell_commit_later()
            self._sleep()
        except Exception as error:
            self._broken(error)

    def _sleep(self) -> None:
        if self._core is not None:
            self._ticks.sleep(self._core.quiet_ticks())

    def _tell_commit_later(self) -> None:
        core = self._core
        if self._telling is None and core is not None and (index := core.untold_commit()):
            self._telling = self._clock.callLater(TELL_COMMIT_S, self._tell_commit, index)

    def _tell_commit(self, index: int) -> None:
        self._telling = None
        if self._core is not None:
            self._core.tell_commit(index)
            self.pump()

    def _handle(self, ready: Ready) -> None:
        changed = (ready.role, ready.term, ready.leader) != (self.role, self.term, self.leader)
        if ready.leader not in ("", self._member, self.leader):
            self.leader_watch.heard()
        self.role, self.term, self.leader = ready.role, ready.term, ready.leader
        # Entries first go to the others; but where there are none, whoever waits for an answer
        # comes before the news of the commit.
        answers_first = not ready.entries and ready.snapshot is None
        if answers_first:
            self._apply(ready)
        self._send(ready.messages)
        for chunk in ready.chunks_to_send:
            self._send_chunk(chunk)
        self._waiting.append(ready)
        self._snapshots.to_install(ready.snapshot)
        if not answers_first:
            self._apply(ready)
        for state in ready.reads:
            self._machine.read_allowed(state.context, state.index)
        for context in ready.cancelled_reads:
            self._machine.read_cancelled(context)
        for part in ready.chunks_received:
            self._snapshots.stage(part)
        if changed:
            self._machine.role_changed(ready.role, ready.term, ready.leader)

    def _send(self, messages: tuple[AnyMessage, ...]) -> None:
        gone = {message.to for message in messages if not self._network.send(message)}
        for member in sorted(gone):
            if self._core is not None:
                self._core.report_unreachable(member)

    def _send_chunk(self, chunk: ChunkToSend) -> None:
        assert self._core is not None
        message = self._snapshots.message(chunk)
        if message is None or not self._network.send(message):
            self._core.snapshot_failed(chunk.to)

    def _apply(self, ready: Ready) -> None:
        for entry in ready.committed:
            if self._core is None:
                return
            self._machine.apply(entry)
            self.applied, self._applied_term = entry.index, entry.term
            self._snapshots.applied(entry)
        if ready.committed and self._core is not None:
            self.applied_conf = ready.conf
            self._core.applied(ready.committed[-1].index)

    # -- the disk ---------------------------------------------------------------------------------

    def _write(self) -> bool:
        """Begin the next transaction, unless one is under way. :returns: whether any Ready became
        durable at once, so that the core may have more to do."""
        if self._writing:
            return False
        at_once: list[Ready] = []
        while self._waiting and _may_wait(self._waiting[0]):
            ready = self._waiting.pop(0)
            self._lazy = ready.hard_state or self._lazy
            at_once.append(ready)
        if at_once:
            self._are_durable(at_once)
            return True
        if self._waiting:
            self._writing, self._waiting = self._waiting, []
            keep = self._snapshots.coming()
            writes = [
                Write(r.snapshot, r.entries, r.hard_state, keep=keep if r.snapshot else ())
                for r in self._writing
            ]
            if self._lazy is not None:
                writes.insert(0, Write(hard_state=self._lazy))
                self._lazy = None
            self.submit(tuple(writes), self._written)
        return False

    def submit(self, writes: tuple[Write, ...], then: Callable[[], None]) -> None:
        """Write; ``then`` is called in the reactor's thread once it is durable."""

        def done(error: BaseException | None) -> None:
            self._reactor.callFromThread(self._done, error, then)

        try:
            self._store.submit(writes, done)
        except Busy as error:
            self.end(f"the log cannot be written: {error.message}")

    def _done(self, error: BaseException | None, then: Callable[[], None]) -> None:
        if self._core is None:
            return
        if error is not None:
            self.end(f"the log cannot be written: {error}")
            return
        then()
        self.pump()

    def _written(self) -> None:
        done, self._writing = self._writing, []
        self._are_durable(done)

    def _are_durable(self, done: list[Ready]) -> None:
        for ready in done:
            if ready.snapshot is not None:
                meta = ready.snapshot
                self._snapshots.installed(meta)
                self.applied, self._applied_term = meta.index, meta.term
                self.applied_conf = meta.conf
            self._send(ready.after)
            if self._core is not None:
                self._core.persisted(ready.token)
