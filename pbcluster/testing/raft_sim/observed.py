"""The production core, watched: everything that passes between it and its driver is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pbcluster.controlplane.raft_intervals import TICK_S
from pbcluster.raft import (
    Entry,
    PersistToken,
    RaftCore,
    RaftOptions,
    Ready,
    SnapshotMeta,
    StoredState,
)
from pbcluster.raft.messages import AnyMessage
from pbcluster.raft.state import RandomSource

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.member import SimMember


class ObservedCore(RaftCore):
    """Does what :class:`RaftCore` does, and tells the checker."""

    def __init__(
        self, member: SimMember, options: RaftOptions, stored: StoredState, random: RandomSource
    ) -> None:
        super().__init__(options, stored, random)
        self._member = member
        self._checker = member.world.checker
        self._applying: list[Entry] = []
        self._installing: SnapshotMeta | None = None
        #: Until when, by its driver's clock, the core knows that time passed.
        self._known_s = member.clock_s()
        # In force before the driver says anything, and seen before it does.
        member.core = self
        self._checker.started(member)

    # -- duty 10 ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """As the core."""
        self._known_s += TICK_S
        super().tick()

    def tick_gap(self, ticks: int) -> None:
        """As the core."""
        known_s = self._known_s + ticks * TICK_S
        super().tick_gap(ticks)
        # A short gap goes through tick(), which has counted it already.
        self._known_s = known_s
        self._checker.gap_passed(self._member, ticks)

    def step(self, message: AnyMessage) -> None:
        """As the core."""
        unknown_ticks = (self._member.clock_s() - self._known_s) / TICK_S
        if unknown_ticks > 1.5:
            self._checker.stepped_late(self._member, unknown_ticks)
        super().step(message)

    # -- duties 3 to 9 ----------------------------------------------------------------------------

    def ready(self) -> Ready:
        """As the core."""
        commit_before = self._raft.log.commit
        ready = super().ready()
        if ready.snapshot is not None:
            self._installing = ready.snapshot
        self._checker.ready(self._member, ready, commit_before)
        self._applying.extend(ready.committed)
        for state in ready.reads:
            self._checker.states.read_allowed(self._member, state.context, state.index)
        return ready

    def persisted(self, token: PersistToken) -> None:
        """As the core."""
        super().persisted(token)
        if token.snapshot_index and self._installing is not None:
            self._checker.states.installed(self._member, self._installing)
            self._applying = [one for one in self._applying if one.index > token.snapshot_index]
            self._installing = None

    def applied(self, index: int) -> None:
        """As the core."""
        super().applied(index)
        done = [entry for entry in self._applying if entry.index <= index]
        del self._applying[: len(done)]
        self._checker.states.applied(self._member, done)

    def read_index(self) -> int:
        """As the core."""
        context = super().read_index()
        self._checker.states.read_begun(self._member, context)
        return context

    def compact(self, meta: SnapshotMeta, index: int) -> int:
        """As the core."""
        upto = super().compact(meta, index)
        self._checker.compacted(self._member, meta, upto)
        return upto
