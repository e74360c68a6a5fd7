"""A simulated member: the driver's duties of :mod:`pbcluster.raft`, on simulated time and disk.

It keeps the contract to the letter: messages at once, transactions in order with group commit,
what waits for durability afterwards, then apply, then answer. A crash may come at any point in
between; a failed fsync ends the member.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pbcluster.errors import PBClusterError
from pbcluster.raft import (
    ConfState,
    MemberId,
    RaftCore,
    RaftOptions,
    Ready,
    Role,
    SnapshotMeta,
)
from pbcluster.raft.messages import AnyMessage
from pbcluster.raft.ready import ChunkReceived, ChunkToSend
from pbcluster.testing.raft_sim.disk import SimDisk
from pbcluster.testing.raft_sim.machine import Machine, Outcome, checksum

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.world import World

#: What a caller gets: ("done", outcome), ("read", value), ("not_leader", hint) or ("again", why).
Answer = Callable[[str, Any], None]
#: A hanging fsync is looked after so often.
HANGING_RETRY = 20


class SimMember:
    """One member and its life: started, crashed, restarted, wiped."""

    def __init__(self, world: World, member: MemberId) -> None:
        self.world = world
        self.id = member
        self.disk = SimDisk()
        self.core: RaftCore | None = None
        #: Until when the process is stopped (SIGSTOP, a paused machine; 0: it runs), since when.
        self.paused_until = 0
        self.paused_since = 0
        self.inbox: list[AnyMessage] = []
        #: The disk is gone for good; this id never starts again.
        self.wiped = False
        self.removed = False
        #: Length of this member's tick: clocks run at different speeds.
        self.tick_length = world.profile.tick_length
        self._forget()

    def _forget(self) -> None:
        """What a crash takes away."""
        self.machine = Machine()
        self.applied = 0
        self.applied_conf = ConfState()
        self.waiting: list[Ready] = []
        self.writing: list[Ready] = []
        self.apply_queue: deque[Ready] = deque()
        self.applying = False
        self.staged: dict[SnapshotMeta, bytes] = {}
        self.pending: dict[int, tuple[int, Answer]] = {}
        self.reads: dict[int, tuple[str, Answer]] = {}
        self.ready_reads: list[tuple[int, str, Answer]] = []
        self.inbox = []
        self.paused_until = 0

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or restart, from the disk."""
        self._forget()
        self.disk.incarnation += 1
        stored, image = self.disk.read()
        if image:
            self.machine.load(image)
        self.applied, self.applied_conf = stored.applied, stored.conf
        profile = self.world.profile
        options = RaftOptions(
            member=self.id,
            incarnation=self.disk.incarnation,
            election_ticks=profile.election_ticks,
            heartbeat_ticks=profile.heartbeat_ticks,
            max_append_bytes=profile.max_append_bytes,
            max_inflight_appends=profile.max_inflight_appends,
            max_inflight_bytes=1000,
            max_uncommitted_bytes=profile.max_uncommitted_bytes,
            max_read_rounds=profile.max_read_rounds,
            snapshot_chunk_bytes=profile.snapshot_chunk_bytes,
            promotion_gap_entries=3,
        )
        self.core = RaftCore(options, stored, self.world.core_random)
        self.world.checker.started(self)
        life = self.disk.incarnation
        self.world.after(self.world.core_random.randrange(1, self.tick_length), self._tick, life)
        self.pump()

    def alive(self) -> bool:
        """Whether it runs (or is only paused)."""
        return self.core is not None

    def leads(self) -> bool:
        """Whether it believes to lead."""
        return self.core is not None and self.core.status().role is Role.LEADER

    def crash(self, luck: int) -> None:
        """Die now. ``luck``: what became of the transaction under way: 0 nothing of it, 1 durable
        and nobody told, 2 and more: durable, and so many of the messages after it are out."""
        if self.core is None:
            return
        if luck and self.writing:
            self.disk.write(self.writing, self.staged)
            after = [message for ready in self.writing for message in ready.after]
            for message in after[: luck - 1]:
                self.world.network.send(message)
        self.core = None
        self._forget()
        self.world.checker.stopped(self)

    def pause(self, duration: int) -> None:
        """Stop for a while; messages wait, and ticks are missed."""
        if self.core is not None and not self.paused_until:
            self.paused_since = self.world.now
            self.paused_until = self.world.now + duration
            self.world.after(duration, self.resume, self.disk.incarnation)

    def resume(self, life: int) -> None:
        """Go on after a pause; nothing happens if it goes on already."""
        if self.core is None or life != self.disk.incarnation or not self.paused_until:
            return
        self.paused_until = 0
        missed = (self.world.now - self.paused_since) // self.tick_length
        inbox, self.inbox = self.inbox, []
        # The gap comes first: what waited in the queues must not be believed to be fresh.
        if missed:
            self.core.tick_gap(missed)
            self.world.checker.gap_passed(self, missed)
        for message in inbox:
            self.core.step(message)
        self.pump()
        self.world.after(self.tick_length, self._tick, life)

    def is_paused(self) -> bool:
        """Whether it is stopped at this moment."""
        return self.paused_until != 0

    def _pause_left(self) -> int:
        return max(1, self.paused_until - self.world.now)

    # -- inputs -----------------------------------------------------------------------------------

    def _tick(self, life: int) -> None:
        if self.core is None or life != self.disk.incarnation or self.is_paused():
            return
        self.core.tick()
        self.pump()
        self.world.after(self.tick_length, self._tick, life)

    def receive(self, message: AnyMessage) -> None:
        """A message arrived."""
        if self.core is None:
            return
        if self.is_paused():
            if len(self.inbox) < 200:
                self.inbox.append(message)
            return
        self.core.step(message)
        self.pump()

    def command(self, data: bytes, answer: Answer) -> None:
        """A client wants a command in the log."""
        if self.core is None or self.is_paused():
            return
        try:
            proposed = self.core.propose(data)
        except PBClusterError as error:
            self._refuse(error, answer)
            return
        self.pending[proposed.index] = (proposed.term, answer)
        self.pump()

    def read(self, key: str, answer: Answer) -> None:
        """A client wants to read a key."""
        if self.core is None or self.is_paused():
            return
        try:
            context = self.core.read_index()
        except PBClusterError as error:
            self._refuse(error, answer)
            return
        self.world.checker.read_begun(self, context)
        self.reads[context] = (key, answer)
        self.pump()

    @staticmethod
    def _refuse(error: PBClusterError, answer: Answer) -> None:
        if error.code == "not_leader":
            answer("not_leader", error.data["leader"])
        else:
            answer("again", error.code)

    # -- the duties -------------------------------------------------------------------------------

    def pump(self) -> None:
        """Do everything the core wants done."""
        core = self.core
        while core is not None and core is self.core and core.has_ready():
            commit_before = core._raft.log.commit
            ready = core.ready()
            self.world.checker.ready(self, ready, commit_before)
            self._handle(ready)

    def _handle(self, ready: Ready) -> None:
        send = self.world.network.send
        for message in ready.messages:
            send(message)
        for chunk in ready.chunks_to_send:
            self._send_chunk(chunk)
        self.waiting.append(ready)
        if ready.committed:
            self.apply_queue.append(ready)
            self._schedule_apply()
        for state in ready.reads:
            found = self.reads.pop(state.context, None)
            if found is not None:
                self.ready_reads.append((state.index, *found))
                self.world.checker.read_allowed(self, state.context, state.index)
        for context in ready.cancelled_reads:
            found = self.reads.pop(context, None)
            if found is not None:
                found[1]("again", "cancelled")
        for part in ready.chunks_received:
            self._stage(part)
        self._answer_reads()
        self._write()

    def _send_chunk(self, chunk: ChunkToSend) -> None:
        assert self.core is not None
        data = self.disk.snapshot_bytes(chunk.meta)
        if data is None:
            self.core.snapshot_failed(chunk.to)
            return
        part = data[chunk.offset : chunk.offset + chunk.length_bytes]
        self.world.network.send(chunk.message(part))

    # -- persist ----------------------------------------------------------------------------------

    def _write(self) -> None:
        """Begin a transaction of all that waits, unless one is under way."""
        if self.writing or not self.waiting:
            return
        self.writing, self.waiting = self.waiting, []
        needed = any(r.must_sync for r in self.writing)
        if not needed and not any(r.hard_state or r.after for r in self.writing):
            self._written(self.disk.incarnation, False, None)
            return
        image = None
        if self.world.profile.stores_applied and self.applied > self.disk.applied:
            image = (self.applied, self.applied_conf, self.machine.dump())
        duration = self.world.fsync_duration(self) if needed else 0
        self.world.after(duration, self._synced, (self.disk.incarnation, image))

    def _synced(self, begun: tuple[int, Any]) -> None:
        life, image = begun
        if self.core is None or life != self.disk.incarnation:
            return
        if self.is_paused():
            # The disk was done, but the process learns it only when it goes on.
            self.world.after(self._pause_left(), self._synced, begun)
            return
        if self.world.hanging == self.id:
            self.world.after(HANGING_RETRY, self._synced, begun)
            return
        if self.world.fsync_fails(self):
            self.world.trace(f"{self.id} fsync failed: ends")
            self.crash(self.world.disk_random.randrange(2))
            return
        self._written(life, True, image)
        self.pump()

    def _written(self, life: int, durable: bool, image: Any) -> None:
        """A transaction is durable: say what waited for it, in order."""
        done, self.writing = self.writing, []
        if durable:
            self.disk.write(done, self.staged)
        if image is not None:
            self.disk.store_applied(*image)
        for ready in done:
            if ready.snapshot is not None:
                self._installed(ready.snapshot)
            for message in ready.after:
                self.world.network.send(message)
            assert self.core is not None
            self.core.persisted(ready.token)
        self._write()

    # -- apply ------------------------------------------------------------------------------------

    def _schedule_apply(self) -> None:
        if self.applying:
            return
        delay = self.world.apply_delay()
        if delay:
            self.applying = True
            self.world.after(delay, self._apply_later, self.disk.incarnation)
        else:
            self._apply()

    def _apply_later(self, life: int) -> None:
        if self.core is None or life != self.disk.incarnation:
            return
        self.applying = False
        if self.is_paused():
            self._schedule_apply()
            return
        self._apply()
        self.pump()

    def _apply(self) -> None:
        assert self.core is not None
        while self.apply_queue:
            ready = self.apply_queue.popleft()
            for entry in ready.committed:
                if entry.index <= self.applied:
                    # A snapshot that was installed meanwhile covers it.
                    continue
                outcome = self.machine.apply(entry)
                self.applied = entry.index
                self.world.checker.applied(self, entry)
                self._answer_command(entry.index, entry.term, outcome)
            if ready.committed[-1].index >= self.applied:
                self.applied_conf = ready.conf
            self.core.applied(ready.committed[-1].index)
        self._answer_reads()
        self._maybe_snapshot()

    def _answer_command(self, index: int, term: int, outcome: Outcome | None) -> None:
        found = self.pending.pop(index, None)
        if found is None:
            return
        if found[0] == term and outcome is not None:
            self.world.checker.acknowledged(index)
            found[1]("done", outcome)
        else:
            found[1]("again", "lost")

    def _answer_reads(self) -> None:
        if not self.ready_reads:
            return
        later = []
        for index, key, answer in self.ready_reads:
            if index <= self.applied:
                self.world.checker.acknowledged(self.applied)
                answer("read", self.machine.keys.get(key, ()))
            else:
                later.append((index, key, answer))
        self.ready_reads = later

    # -- snapshots --------------------------------------------------------------------------------

    def _maybe_snapshot(self) -> None:
        """Make a snapshot once enough entries were applied since the last."""
        profile = self.world.profile
        due = self.applied - self.disk.snapshot.index >= profile.snapshot_every
        # Not while a snapshot from the leader is being installed: that one is newer.
        coming = any(ready.snapshot for ready in (*self.writing, *self.waiting))
        if not due or coming or self.core is None:
            return
        term = self.world.checker.term_of(self.applied)
        data = self.machine.dump()
        meta = SnapshotMeta(self.applied, term, self.applied_conf, len(data), checksum(data))
        upto = self.core.compact(meta, max(0, self.applied - profile.keep_entries))
        self.disk.store_snapshot(meta, data, upto)
        self.disk.keep_snapshots(self.core.snapshots_in_use())
        self.world.checker.compacted(self, upto)
        self.world.trace(f"{self.id} snapshot {meta.index}, log from {upto}")

    def _stage(self, part: ChunkReceived) -> None:
        if part.offset == 0:
            self.staged[part.meta] = b""
        self.staged[part.meta] += part.data
        if part.last:
            delay = self.world.disk_random.randrange(0, 5)
            self.world.after(delay, self._verify, (self.disk.incarnation, part.meta))

    def _verify(self, what: tuple[int, SnapshotMeta]) -> None:
        life, meta = what
        if self.core is None or life != self.disk.incarnation:
            return
        if self.is_paused():
            self.world.after(self._pause_left(), self._verify, what)
            return
        data = self.staged[meta]
        if len(data) != meta.size_bytes or checksum(data) != meta.checksum:
            self.core.refuse_snapshot(meta)
        else:
            self.core.install_snapshot(meta)
        self.pump()

    def _installed(self, meta: SnapshotMeta) -> None:
        """The snapshot is durable: the state machine becomes what it says."""
        self.machine.load(self.staged[meta])
        for old in [one for one in self.staged if one.index <= meta.index]:
            del self.staged[old]
        self.applied, self.applied_conf = meta.index, meta.conf
        self.world.checker.installed(self, meta)
        self.world.trace(f"{self.id} installed snapshot {meta.index}")
