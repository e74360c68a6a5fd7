"""The bounds and intervals of a member. Checked once, when made."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from pbcluster.errors import InvalidInput
from pbcluster.raft.messages import NOBODY, MemberId


def _at_least_one(_options: RaftOptions, attribute: Attribute[Any], value: int) -> None:
    if value < 1:
        raise InvalidInput(
            f"{attribute.name} is {value}", field=attribute.name, allowed="1 or more"
        )


@frozen(kw_only=True)
class RaftOptions:
    """How one member behaves. Intervals are ticks; the driver decides how long a tick is.

    :raises InvalidInput: a value is out of its range.
    """

    #: This member.
    member: MemberId
    #: Its start number, higher at each start and stored before the core is made: read contexts
    #: are built from it, so that no answer to an earlier life is taken for one of this.
    incarnation: int = field(default=1, validator=_at_least_one)
    #: A follower campaigns after so many ticks without a leader, plus a random part of it; a
    #: leader without a quorum steps down after as many.
    election_ticks: int = field(default=10, validator=_at_least_one)
    heartbeat_ticks: int = field(default=1, validator=_at_least_one)
    #: Bytes of entries in one append: bounds what one message costs a slow link.
    max_append_bytes: int = field(default=256 * 1024, validator=_at_least_one)
    #: Appends in flight to one member, in number and bytes: bounds what a dead one costs.
    max_inflight_appends: int = field(default=128, validator=_at_least_one)
    max_inflight_bytes: int = field(default=8 * 1024 * 1024, validator=_at_least_one)
    #: Bytes proposed and not committed; beyond it proposals are refused as busy.
    max_uncommitted_bytes: int = field(default=32 * 1024 * 1024, validator=_at_least_one)
    #: One command; it must fit an append and a frame.
    max_command_bytes: int = field(default=512 * 1024, validator=_at_least_one)
    #: Bytes handed out to be applied and not reported as applied.
    max_applying_bytes: int = field(default=8 * 1024 * 1024, validator=_at_least_one)
    #: Reads waiting for a quorum round, here or at the leader on our behalf.
    max_pending_reads: int = field(default=8192, validator=_at_least_one)
    #: Rounds of reads under way at once; more reads wait and share the next round.
    max_read_rounds: int = field(default=4, validator=_at_least_one)
    #: Bytes of one piece of a snapshot.
    snapshot_chunk_bytes: int = field(default=256 * 1024, validator=_at_least_one)
    #: The others hear of a commit with the next entries, or when the driver calls ``tell_commit``,
    #: instead of at once by an append of its own: half the messages where writes are few.
    commit_waits: bool = False
    #: A learner may be promoted when it lacks at most so many entries.
    promotion_gap_entries: int = field(default=1000, validator=_at_least_one)

    def __attrs_post_init__(self) -> None:
        if self.member == NOBODY:
            raise InvalidInput("member is empty", field="member", allowed="a member's id")
        if self.election_ticks < 2 * self.heartbeat_ticks + 1:
            raise InvalidInput(
                f"election_ticks is {self.election_ticks}",
                field="election_ticks",
                allowed="more than two heartbeats: one may be lost",
            )
        if self.incarnation >= 2**30:
            raise InvalidInput(
                f"incarnation is {self.incarnation}", field="incarnation", allowed="below 2**30"
            )
