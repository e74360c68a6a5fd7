"""For how many ticks nothing would happen by itself: so long the driver may sleep, and then tell
the core of all of them at once.

It only looks. Each thing that a tick counts has its line here; where one is missing, it happens
late, by a heartbeat at most.
"""

from __future__ import annotations

from pbcluster.raft.state import Raft


def quiet_ticks(raft: Raft) -> int:
    """Ticks until the next one that does something, as long as nothing is stepped or asked.

    :returns: at least 1, at most a heartbeat: whoever sleeps so long has not missed anything that
        the others would notice.
    """
    options = raft.options
    if _counts(raft):
        return 1
    if raft.is_leader():
        until = min(
            options.heartbeat_ticks - raft.heartbeat_elapsed,
            options.election_ticks - raft.election_elapsed,
        )
    else:
        until = raft.election_timeout - raft.election_elapsed
    return max(1, min(until, options.heartbeat_ticks))


def _counts(raft: Raft) -> bool:
    """Whether something waits whose patience is counted in ticks, other than a leader's for its
    quorum and anybody's for a leader."""
    return bool(
        raft.unsynced_token
        or raft.forwarded_reads
        or any(progress.pending for progress in raft.tracker.progress.values())
    )
