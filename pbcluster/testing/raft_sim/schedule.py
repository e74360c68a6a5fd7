"""What goes wrong, and when: drawn from the seed before the run, so that it can be shortened.

A fault names members by number (taken modulo those there are at that moment), so that a schedule
stays meaningful when other faults are left out of it.
"""

from __future__ import annotations

from random import Random

from attrs import frozen

#: Kinds of faults and how often each is drawn.
KINDS = {
    "crash": 5,
    "stop": 2,
    "restart_all": 1,
    "isolate": 4,
    "isolate_leader": 4,
    "one_way": 3,
    "split": 3,
    "minority_leader": 4,
    "cut_link": 3,
    "flap": 3,
    "lag": 4,
    "heal": 4,
    "pause": 2,
    "pause_leader": 2,
    "slow_disk": 3,
    "hang_disk": 2,
    "disk_error": 1,
    "full_disk": 1,
    "lossy": 3,
    "delays": 4,
    "late_answers": 4,
    "transfer": 3,
    "member_change": 4,
    "replace_two": 2,
    "burst": 3,
    "wipe": 1,
}

#: What is still wrong, or goes wrong again, while progress is demanded at the end.
FINAL_CHECKS = (
    "none",
    "one_way_minority",
    "returning_member",
    "lost_leader_link",
    "hung_leader_disk",
)


@frozen
class Fault:
    """At ``time`` this happens; the numbers are the kind's own."""

    time: int
    kind: str
    first: int = 0
    second: int = 0

    def __str__(self) -> str:
        return f"t={self.time:<6} {self.kind} {self.first} {self.second}"


@frozen
class Profile:
    """The constants of one run."""

    voters: int
    tick_length: int
    election_ticks: int
    heartbeat_ticks: int
    max_append_bytes: int
    max_inflight_appends: int
    max_uncommitted_bytes: int
    max_read_rounds: int
    snapshot_chunk_bytes: int
    snapshot_every: int
    keep_entries: int
    #: What production bounds by seconds and megabytes, at the scale of a run.
    max_outcomes: int
    max_pending: int
    pieces_at_once: int
    max_staging: int
    proposal_timeout_s: float
    read_timeout_s: float
    #: Ticks differ between members by at most so much either way.
    skew: int
    clients: int
    client_timeout: int
    chaos_time: int
    final_check: str

    @property
    def election_time(self) -> int:
        """Shortest election timeout in units of simulated time."""
        return self.election_ticks * self.tick_length


def draw_profile(random: Random) -> Profile:
    """The constants of one seed."""
    pick = random.choice
    return Profile(
        voters=pick((3, 3, 3, 3, 3, 5, 5, 4, 1)),
        tick_length=10,
        election_ticks=10,
        heartbeat_ticks=pick((2, 3)),
        max_append_bytes=pick((1, 500, 4000)),
        max_inflight_appends=pick((1, 3, 16)),
        max_uncommitted_bytes=pick((600, 6000)),
        max_read_rounds=pick((1, 4)),
        snapshot_chunk_bytes=pick((600, 10_000)),
        snapshot_every=pick((8, 20, 60)),
        keep_entries=pick((0, 3, 8)),
        max_outcomes=pick((48, 20_000)),
        max_pending=pick((4, 4096)),
        pieces_at_once=pick((1, 8)),
        max_staging=pick((2, 32)),
        proposal_timeout_s=pick((0.3, 10.0)),
        read_timeout_s=pick((0.1, 5.0)),
        skew=pick((0, 2, 4)),
        clients=pick((2, 3, 4)),
        client_timeout=pick((100, 250)),
        chaos_time=pick((1200, 1800, 2400)),
        final_check=pick(FINAL_CHECKS),
    )


def draw_schedule(random: Random, profile: Profile) -> tuple[Fault, ...]:
    """The faults of one seed, in order of time."""
    kinds, weights = list(KINDS), list(KINDS.values())
    count = random.choice((4, 8, 14))
    faults = [
        Fault(
            random.randrange(100, profile.chaos_time),
            random.choices(kinds, weights)[0],
            random.randrange(60),
            random.randrange(60),
        )
        for _ in range(count)
    ]
    return tuple(sorted(faults, key=lambda fault: fault.time))
