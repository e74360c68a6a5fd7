"""A member of the simulated group: its disk, and one life of the production member after another.

What lives is :class:`~pbcluster.controlplane.raft_member.RaftMember` with its driver, snapshots and
registry, as in production; what it stands on (clock, reactor, threads, store, network) is
simulated. This class is the machine around it: it starts, stops, pauses, crashes, loses its disk.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pbcluster.controlplane.membership import Membership
from pbcluster.controlplane.raft_driver import RaftDriver
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import ConfigError, PBClusterError
from pbcluster.raft import MemberId, RaftCore, RaftOptions, Role, StoredState
from pbcluster.raft.state import RandomSource
from pbcluster.testing.raft_sim.disk import SimDisk, SimStore
from pbcluster.testing.raft_sim.network import SimLinks
from pbcluster.testing.raft_sim.observed import ObservedCore
from pbcluster.testing.raft_sim.operations import AT, BASE_DOMAIN
from pbcluster.testing.raft_sim.process import Killed, SimProcess

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.world import World


class SimMember:
    """One member and its lives."""

    def __init__(self, world: World, member: MemberId) -> None:
        self.world = world
        self.id = member
        self.disk = SimDisk()
        #: The life under way; None between two.
        self.process: SimProcess | None = None
        #: The core of this life, until it ends.
        self.core: ObservedCore | None = None
        #: The disk is gone for good; this id never starts again.
        self.wiped = False
        self.removed = False
        #: Length of this member's tick: clocks run at different speeds.
        self.tick_length = world.profile.tick_length
        self._raft: RaftMember | None = None
        self._store: SimStore | None = None
        self._links: SimLinks | None = None

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or restart, from the disk."""
        profile = self.world.profile
        process = self.process = SimProcess(self.world, self.id, self.tick_length)
        store = self._store = SimStore(process, self.disk)
        links = self._links = SimLinks(process)
        raft = self._raft = RaftMember(
            process,
            process,
            store,
            links,
            self.id,
            BASE_DOMAIN,
            self.world.core_random,
            process.in_thread,
            self._failed,
            snapshot_every=profile.snapshot_every,
            keep_entries=profile.keep_entries,
            new_core=self._new_core,
        )
        raft.subscribe(lambda applied: self.world.checker.states.effects(self, applied))
        started = Deferred.fromCoroutine(raft.start())
        started.addErrback(self._did_not_start)
        self.group = Membership(process, raft, lambda: AT)
        self.group.start({})

    def _new_core(
        self, _member: MemberId, incarnation: int, stored: StoredState, random: RandomSource
    ) -> RaftCore:
        profile = self.world.profile
        options = RaftOptions(
            member=self.id,
            incarnation=incarnation,
            election_ticks=profile.election_ticks,
            heartbeat_ticks=profile.heartbeat_ticks,
            max_append_bytes=profile.max_append_bytes,
            max_inflight_appends=profile.max_inflight_appends,
            max_inflight_bytes=4000,
            max_uncommitted_bytes=profile.max_uncommitted_bytes,
            max_read_rounds=profile.max_read_rounds,
            snapshot_chunk_bytes=profile.snapshot_chunk_bytes,
            commit_waits=True,
            promotion_gap_entries=3,
        )
        return ObservedCore(self, options, stored, random)

    def ask_group(self, work: Coroutine[Any, Any, None]) -> None:
        """An operator asks for a change of the members here; what is refused is asked again."""
        done = Deferred.fromCoroutine(work)
        done.addErrback(
            lambda failure: None if failure.check(PBClusterError) else self.world.caught(failure)
        )

    def _did_not_start(self, failure: Failure) -> None:
        if failure.check(ConfigError) and self.world.checker.states.has_left(self.id):
            self._is_gone(str(failure.value))
        else:
            self.world.caught(failure)

    def _failed(self, reason: str) -> None:
        """The member says that its process must end: a broken disk is a reason, and that it left
        the group."""
        assert self._store is not None
        left = self.world.checker.states.has_left(self.id)
        if self._store.failed is None and not left:
            self.world.ended(self.id, reason)
        if left and self._store.failed is None:
            self._is_gone(reason)
            return
        self.world.trace(f"{self.id} ends: {reason}")
        self._end()

    def _is_gone(self, reason: str) -> None:
        """It ends, and nobody starts it any more."""
        self.world.trace(f"{self.id} ends for good: {reason}")
        self.removed = True
        self._end()

    def knows_left(self, member: MemberId) -> bool:
        """Whether this one knows that ``member`` left the group."""
        return self._links is not None and self._links.is_former(member)

    def told_gone(self) -> None:
        """Another member says that this one left."""
        process, raft = self.process, self._raft
        if process is not None and raft is not None:
            process.in_turn(("socket", raft.was_removed, ()))

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = self.core = None
            self.world.checker.stopped(self)
            self.world.network.process_died(self.id)

    def crash(self, luck: int) -> None:
        """Die now. ``luck``: what became of the transaction under way: 0 nothing of it, 1 durable
        and nobody told, 2 and more: durable, and so many acts after it were done."""
        process, store = self.process, self._store
        if process is None or store is None:
            return
        if luck:
            told = store.crash()
            if luck > 1 and not process.paused:
                process.last_words = luck - 1
                try:
                    for done in told:
                        done(store.failed)
                except Killed:
                    pass
        self._end()

    def stop(self) -> None:
        """End in order: hand leadership over, write what is under way, close."""
        process, raft = self.process, self._raft
        if process is None or raft is None or process.paused:
            return

        async def ending() -> None:
            self.group.stop()
            await raft.hand_over()
            await raft.stop()
            if process is self.process:
                self._end()

        Deferred.fromCoroutine(ending()).addErrback(self.world.caught)

    def pause(self, duration: int) -> None:
        """Stop for a while; messages wait, and ticks are missed."""
        if self.process is not None and not self.process.paused:
            self.process.paused = True
            self.world.after(duration, self.resume, self.process)

    def resume(self, process: SimProcess | None) -> None:
        """``process`` goes on after a pause; nothing happens if it is gone, or goes on already."""
        if process is not None and process.alive and process.paused:
            process.go_on()

    # -- questions --------------------------------------------------------------------------------

    def is_paused(self) -> bool:
        """Whether it is stopped at this moment."""
        return self.process is not None and self.process.paused

    def leads(self) -> bool:
        """Whether it believes to lead."""
        return self.core is not None and self.core._raft.role is Role.LEADER

    def clock_s(self) -> float:
        """Its own clock."""
        assert self.process is not None
        return self.process.seconds()

    @property
    def raft(self) -> RaftMember:
        """The production member of the last life."""
        assert self._raft is not None
        return self._raft

    @property
    def driver(self) -> RaftDriver:
        """Its driver."""
        return self.raft._driver

    @property
    def registry(self) -> Registry:
        """Its applied state."""
        return self.raft.registry

    @property
    def applied(self) -> int:
        """The last applied index."""
        return self.raft.registry.applied_index
