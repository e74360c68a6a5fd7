"""Production's bounds at the scale of a run, and its loggers silent.

A run takes seconds and a few hundred commands; bounds meant for minutes and megabytes would never
be met. They are module constants, so they are set for the time of a run, like planted bugs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pbcluster.controlplane import (
    membership,
    outcomes,
    raft_driver,
    raft_intervals,
    raft_leader_waits,
    raft_leader_watch,
    raft_member,
    raft_proposals,
    raft_reads,
    raft_snapshots,
    raft_store,
    raft_subscribers,
)
from pbcluster.testing.raft_sim.schedule import Profile

#: Heartbeats after which a leader counts as silent, as in production.
SILENT_HEARTBEATS = 3


@contextmanager
def at_scale(profile: Profile, logged: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Within this context production code has the profile's bounds, and logs to ``logged``."""
    silent_s = SILENT_HEARTBEATS * profile.heartbeat_ticks * raft_intervals.TICK_S
    settings: list[tuple[Any, str, Any]] = [
        (outcomes, "MAX_OUTCOMES", profile.max_outcomes),
        (raft_proposals, "MAX_PENDING", profile.max_pending),
        (raft_leader_waits, "MAX_WAITS", profile.max_pending),
        (raft_proposals, "PROPOSAL_TIMEOUT_S", profile.proposal_timeout_s),
        (raft_reads, "READ_TIMEOUT_S", profile.read_timeout_s),
        (raft_member, "_LOOK_EVERY_S", 0.05),
        (raft_member, "HAND_OVER_S", 0.1),
        (raft_member, "REMOVED_GRACE_S", 0.1),
        (raft_member, "ASK_STANDING_S", 1.0),
        (membership, "LOOK_EVERY_S", 0.05),
        (raft_leader_watch, "LEADER_SILENT_S", silent_s),
        (raft_snapshots, "PIECES_AT_ONCE", profile.pieces_at_once),
        (raft_snapshots, "MAX_STAGING", profile.max_staging),
        (raft_store, "PIECE_BYTES", profile.snapshot_chunk_bytes),
        *(
            (module.log, "observer", logged)
            for module in (membership, raft_driver, raft_member, raft_snapshots, raft_subscribers)
        ),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in settings]
    for owner, name, value in settings:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
