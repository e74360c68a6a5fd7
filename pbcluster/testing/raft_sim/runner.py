"""Runs seeds, shortens what fails, and checks that planted bugs are caught."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from attrs import frozen

from pbcluster.testing.raft_sim.mutants import Mutant
from pbcluster.testing.raft_sim.schedule import Fault
from pbcluster.testing.raft_sim.world import Result, World

#: Runs that shortening one schedule may cost.
MAX_SHORTENING_RUNS = 120


@frozen
class Summary:
    """Of many seeds. ``trace_hash`` is the hash of all their trace hashes, in order."""

    seeds: int
    events: int
    operations: int
    commits: int
    trace_hash: str
    failures: tuple[Result, ...]


def run_seed(
    seed: int, schedule: tuple[Fault, ...] | None = None, *, keep_trace: bool = False
) -> Result:
    """One run; with ``schedule``, with those faults instead of the seed's own."""
    return World(seed, schedule, keep_trace=keep_trace).run()


def run_seeds(
    seeds: Iterable[int], *, progress: Callable[[int, int], None] | None = None, stop_after: int = 1
) -> Summary:
    """Run seeds in order.

    :param progress: told after each seed how many are done and how many failed.
    :param stop_after: end after so many failures.
    """
    done = events = operations = commits = 0
    digest = hashlib.blake2b(digest_size=8)
    failures: list[Result] = []
    for seed in seeds:
        result = run_seed(seed)
        done += 1
        events += result.events
        operations += result.operations
        commits += result.commits
        digest.update(result.trace_hash.encode())
        if result.broken:
            failures.append(result)
        if progress is not None:
            progress(done, len(failures))
        if len(failures) >= stop_after:
            break
    return Summary(done, events, operations, commits, digest.hexdigest(), tuple(failures))


def shorten(failure: Result) -> Result:
    """Leave faults out as long as the same property breaks; the trace of the shortest found.

    Everything else stays the seed's, but since chance is drawn in the order of events, a fault left
    out changes what follows: this finds a short schedule, not the shortest.
    """
    schedule = failure.schedule
    runs = 0
    size = max(1, len(schedule) // 2)
    while size and runs < MAX_SHORTENING_RUNS:
        start, shorter = 0, False
        while start < len(schedule) and runs < MAX_SHORTENING_RUNS:
            candidate = schedule[:start] + schedule[start + size :]
            runs += 1
            if run_seed(failure.seed, candidate).broken == failure.broken:
                schedule, shorter = candidate, True
            else:
                start += size
        if not shorter:
            size //= 2
    return run_seed(failure.seed, schedule, keep_trace=True)


@frozen
class Caught:
    """What became of a mutant: the seed and text that caught it, or nothing."""

    mutant: Mutant
    seed: int
    text: str
    #: Other properties that broke before, with the first seed of each.
    others: dict[str, int]

    @property
    def is_caught(self) -> bool:
        """Whether one of the named properties fired."""
        return self.seed >= 0


def hunt(mutant: Mutant, seeds: Iterable[int]) -> Caught:
    """Run ``seeds`` with the bug planted, until one of the properties it names breaks."""
    others: dict[str, int] = {}
    with mutant.planted():
        for seed in seeds:
            result = run_seed(seed)
            if result.broken in mutant.caught_by:
                return Caught(mutant, seed, result.text, others)
            if result.broken:
                others.setdefault(result.broken, seed)
    return Caught(mutant, -1, "", others)
