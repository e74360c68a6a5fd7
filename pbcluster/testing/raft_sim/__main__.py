"""``python -m pbcluster.testing.raft_sim``: see ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from pbcluster.testing.raft_sim.mutants import MUTANTS
from pbcluster.testing.raft_sim.runner import hunt_all, run_seed, run_seeds, shorten
from pbcluster.testing.raft_sim.world import Result

DEFAULT_SEEDS = 2000
#: Lines of a failing trace that are shown.
SHOWN_LINES = 80


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pbcluster.testing.raft_sim",
        description="Simulate Raft groups under faults, one a seed, and check every property.",
    )
    parser.add_argument("--seeds", type=int, default=DEFAULT_SEEDS, help="run seeds 0 to N-1")
    parser.add_argument("--from", type=int, dest="first", help="run seeds from A")
    parser.add_argument("--to", type=int, dest="last", help="... up to but without B")
    parser.add_argument("--seed", type=int, help="run one seed and show its whole trace")
    parser.add_argument(
        "--mutants",
        nargs="*",
        metavar="NAME",
        help="plant known bugs, all or those named, each to be caught within the seeds",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes; as many as processors"
    )
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    return parser.parse_args(argv)


def _seeds(options: argparse.Namespace) -> range:
    if options.first is None and options.last is None:
        return range(options.seeds)
    first = options.first or 0
    return range(first, options.last if options.last is not None else first + options.seeds)


def _say(text: str = "") -> None:
    print(text, flush=True)


def _progress(total: int) -> Callable[[int, int], None]:
    started = last = time.monotonic()

    def show(done: int, failed: int) -> None:
        """Say how far it is, at most every ten seconds."""
        nonlocal last
        now = time.monotonic()
        if now - last >= 10:
            last = now
            _say(f"  {done} of {total} seeds, {failed} failed, {now - started:.0f} s")

    return show


def _show_failure(failure: Result) -> None:
    _say(f"seed {failure.seed}: {failure.text}")
    shorter = shorten(failure)
    _say(f"shortest schedule found ({len(shorter.schedule)} of {len(failure.schedule)} faults):")
    for fault in shorter.schedule:
        _say(f"  {fault}")
    _say(f"the end of its trace: {shorter.text}")
    for line in shorter.lines[-SHOWN_LINES:]:
        _say(f"  {line}")


def _run(options: argparse.Namespace) -> int:
    seeds = _seeds(options)
    started = time.monotonic()
    stop_after = len(seeds) if options.keep_going else 1
    progress = _progress(len(seeds))
    summary = run_seeds(seeds, progress=progress, stop_after=stop_after, jobs=options.jobs)
    for failure in summary.failures[:5]:
        _show_failure(failure)
    took_s = time.monotonic() - started
    _say(
        f"seeds {seeds.start} to {seeds.start + summary.seeds - 1}: "
        f"{len(summary.failures)} failed, {summary.events} events, {summary.commits} commits, "
        f"{summary.operations} operations, {took_s:.0f} s, trace hash {summary.trace_hash}"
    )
    return 1 if summary.failures else 0


def _run_mutants(options: argparse.Namespace) -> int:
    names = set(options.mutants)
    unknown = names - {mutant.name for mutant in MUTANTS}
    if unknown:
        _say(f"no such mutants: {', '.join(sorted(unknown))}")
        return 2
    mutants = {one.name: one for one in MUTANTS if not names or one.name in names}
    missed = highest = 0
    for caught in hunt_all(tuple(mutants), _seeds(options), options.jobs):
        if caught.is_caught:
            highest = max(highest, caught.seed)
            _say(f"caught by seed {caught.seed:<5} {caught.name}: {caught.text[:90]}")
        else:
            missed += 1
            expected = mutants[caught.name].caught_by
            _say(f"NOT CAUGHT           {caught.name} by {expected}; {caught.others}")
    _say(f"{missed} of {len(mutants)} mutants not caught; the highest seed needed was {highest}")
    return 1 if missed else 0


def _run_one(seed: int) -> int:
    result = run_seed(seed, keep_trace=True)
    for line in result.lines:
        _say(line)
    _say(f"seed {seed}: {result.text or 'all properties hold'}, trace hash {result.trace_hash}")
    return 1 if result.broken else 0


def main(argv: Sequence[str]) -> int:
    """Run what ``argv`` asks for.

    :returns: 0, or 1 if a property broke or a mutant was not caught.
    """
    options = _arguments(argv)
    if options.seed is not None:
        return _run_one(options.seed)
    if options.mutants is not None:
        return _run_mutants(options)
    return _run(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
