"""Runs seeds, shortens what fails, and checks that planted bugs are caught."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from attrs import frozen

from pbcluster.testing.raft_sim.mutants import MUTANTS
from pbcluster.testing.raft_sim.planting import Mutant
from pbcluster.testing.raft_sim.schedule import Fault
from pbcluster.testing.raft_sim.world import Result, World

#: Runs that shortening one schedule may cost.
MAX_SHORTENING_RUNS = 120
#: Seeds that a process takes at once.
SEEDS_AT_ONCE = 4
A = TypeVar("A")
B = TypeVar("B")


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


def _begin_worker() -> None:
    """SIGTERM ends it, as the pool means it: a reactor of the parent's may have left its handler.
    A world is one heap of cycles that goes at once; to look for them earlier costs a tenth."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    gc.set_threshold(200_000)


@contextmanager
def _each(
    function: Callable[[A], B], arguments: Iterable[A], jobs: int, at_once: int
) -> Iterator[Iterator[B]]:
    """The results in order, computed in ``jobs`` processes; those end with the context."""
    if jobs <= 1:
        yield map(function, arguments)
        return
    # Forked: a bug that is planted here is planted there.
    with multiprocessing.get_context("fork").Pool(jobs, _begin_worker) as pool:
        yield pool.imap(function, arguments, at_once)


def run_seeds(
    seeds: Iterable[int],
    *,
    progress: Callable[[int, int], None] | None = None,
    stop_after: int = 1,
    jobs: int = 1,
) -> Summary:
    """Run seeds in order.

    :param jobs: processes; the summary does not depend on it.
    :param progress: told after each seed how many are done and how many failed.
    :param stop_after: end after so many failures.
    """
    done = events = operations = commits = 0
    digest = hashlib.blake2b(digest_size=8)
    failures: list[Result] = []
    with _each(run_seed, seeds, jobs, SEEDS_AT_ONCE) as results:
        for result in results:
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

    name: str
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
                return Caught(mutant.name, seed, result.text, others)
            if result.broken:
                others.setdefault(result.broken, seed)
    return Caught(mutant.name, -1, "", others)


def _hunt_named(seeds: range, name: str) -> Caught:
    return hunt(next(one for one in MUTANTS if one.name == name), seeds)


def hunt_all(names: Sequence[str], seeds: range, jobs: int) -> Iterator[Caught]:
    """Hunt the mutants of these names, several at once; results in order."""
    with _each(partial(_hunt_named, seeds), names, jobs, 1) as results:
        yield from results
