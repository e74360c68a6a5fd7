"""The intervals and bounds of a member's Raft core, in ticks, and how long a tick is.

They are of one design: a member is suspected after several heartbeats that did not come, and two
members seldom campaign at once. The simulator has its own.
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.raft import MemberId, RaftCore, RaftOptions, StoredState
from pbcluster.raft.state import RandomSource

#: Ticks much shorter than any interval, so that two members seldom campaign in the same one.
TICK_S = 0.01
#: 50 ms: a quarter of what a follower's patience is at least.
HEARTBEAT_TICKS = 5
#: A follower campaigns after 250 to 500 ms without a leader; a leader steps down after 250 ms
#: without a quorum.
ELECTION_TICKS = 25
#: Appends in flight to one member: fewer than its socket takes, so that heartbeats find room.
MAX_INFLIGHT_APPENDS = 64

#: Makes a core of the member, its start number, what is on its disk, and chance.
NewCore = Callable[[MemberId, int, StoredState, RandomSource], RaftCore]


def new_core(
    member: MemberId, incarnation: int, stored: StoredState, random: RandomSource
) -> RaftCore:
    """A core with the intervals and bounds above.

    :raises InvariantViolated: the stored pieces do not fit together.
    """
    options = RaftOptions(
        member=member,
        incarnation=incarnation,
        election_ticks=ELECTION_TICKS,
        heartbeat_ticks=HEARTBEAT_TICKS,
        max_inflight_appends=MAX_INFLIGHT_APPENDS,
        commit_waits=True,
    )
    return RaftCore(options, stored, random)
