"""Runs seeds, and checks that planted bugs are caught."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import attrs

from pbcluster.testing.ownership_sim.mutants import MUTANTS
from pbcluster.testing.ownership_sim.planting import Mutant
from pbcluster.testing.ownership_sim.world import Result, World

#: Worlds of which the rest is in memory: each is one heap of cycles.
SEEDS_BETWEEN_COLLECTIONS = 5
SEEDS_AT_ONCE = 2
A = TypeVar("A")
B = TypeVar("B")


@attrs.frozen
class Summary:
    """Of many seeds. ``trace_hash`` is the hash of all their trace hashes, in order."""

    seeds: int
    steps: int
    acked: int
    reads: int
    takeovers: int
    local_acks: int
    trace_hash: str
    failures: tuple[Result, ...]


def run_seed(seed: int, *, keep_trace: bool = False) -> Result:
    """One run."""
    result = World(seed, keep_trace=keep_trace).run()
    if seed % SEEDS_BETWEEN_COLLECTIONS == 0:
        gc.collect()
    return result


@contextmanager
def _each(function: Callable[[A], B], arguments: Iterable[A], jobs: int) -> Iterator[Iterator[B]]:
    """The results in order, computed in ``jobs`` processes; those end with the context."""
    if jobs <= 1:
        yield map(function, arguments)
        return
    # Forked: a bug that is planted here is planted there.
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield pool.imap(function, arguments, SEEDS_AT_ONCE)


def run_seeds(
    seeds: Iterable[int],
    *,
    progress: Callable[[int, int], None] | None = None,
    stop_after: int = 1,
    jobs: int = 1,
    enough: Callable[[], bool] = lambda: False,
) -> Summary:
    """Run seeds in order.

    :param jobs: processes; the summary does not depend on it.
    :param progress: told after each seed how many are done and how many failed.
    :param stop_after: end after so many failures. :param enough: end when it says so.
    """
    done = 0
    sums = dict.fromkeys(("steps", "acked", "reads", "takeovers", "local_acks"), 0)
    digest = hashlib.blake2b(digest_size=8)
    failures: list[Result] = []
    with _each(run_seed, seeds, jobs) as results:
        for result in results:
            done += 1
            for name in sums:
                sums[name] += getattr(result, name)
            digest.update(result.trace_hash.encode())
            if result.broken:
                failures.append(result)
            if progress is not None:
                progress(done, len(failures))
            if len(failures) >= stop_after or enough():
                break
    return Summary(done, **sums, trace_hash=digest.hexdigest(), failures=tuple(failures))


@attrs.frozen
class Caught:
    """What became of a mutant: the seed and text that caught it, or nothing.

    :ivar others: other properties that broke before, with the first seed of each.
    """

    name: str
    seed: int
    text: str
    others: dict[str, int]

    @property
    def is_caught(self) -> bool:
        """Whether one of the named properties broke."""
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
    with _each(partial(_hunt_named, seeds), names, jobs) as results:
        yield from results
