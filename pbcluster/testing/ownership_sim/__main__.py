"""``python -m pbcluster.testing.ownership_sim``: see ``--help``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import attrs
from twisted.logger import ILogObserver, globalLogBeginner

from pbcluster import compiled
from pbcluster.testing.ownership_sim.mutants import MUTANTS
from pbcluster.testing.ownership_sim.runner import hunt_all, run_seed, run_seeds
from pbcluster.testing.ownership_sim.world import Result

DEFAULT_SEEDS = 200
#: Lines of a failing trace that are shown.
SHOWN_LINES = 60
COMMAND = "python -m pbcluster.testing.ownership_sim"


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Simulate who owns a tenant under faults, one world a seed, and check after "
        "every step that one owner answers, nothing acknowledged is lost and no read is stale.",
    )
    parser.add_argument("--seeds", type=int, default=DEFAULT_SEEDS, help="run seeds 0 to N-1")
    parser.add_argument("--from", type=int, dest="first", help="run seeds from A")
    parser.add_argument("--to", type=int, dest="last", help="... up to but without B")
    parser.add_argument("--seed", type=int, help="run one seed and show its whole trace")
    parser.add_argument("--minutes", type=float, help="end after so long, whatever is left")
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
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    return parser.parse_args(argv)


def _seeds(options: argparse.Namespace) -> range:
    first = options.first or 0
    return range(first, options.last if options.last is not None else first + options.seeds)


def _say(text: str = "") -> None:
    print(text, flush=True)


def _progress(total: int, quiet: bool) -> Callable[[int, int], None]:
    started = last = time.monotonic()

    def show(done: int, failed: int) -> None:
        """Say how far it is, at most every ten seconds."""
        nonlocal last
        now = time.monotonic()
        if not quiet and now - last >= 10:
            last = now
            _say(f"  {done} of {total} seeds, {failed} failed, {now - started:.0f} s")

    return show


def _show_failure(failure: Result) -> None:
    shown = run_seed(failure.seed, keep_trace=True)
    _say(f"seed {failure.seed}: {failure.text}")
    _say("the end of its trace:")
    for line in shown.lines[-SHOWN_LINES:]:
        _say(f"  {line}")
    _say(f"again: {COMMAND} --seed {failure.seed}")


def _run(options: argparse.Namespace) -> int:
    seeds = _seeds(options)
    started = time.monotonic()
    until = started + 60 * options.minutes if options.minutes else float("inf")
    summary = run_seeds(
        seeds,
        progress=_progress(len(seeds), options.json),
        stop_after=len(seeds) if options.keep_going else 1,
        jobs=options.jobs,
        enough=lambda: time.monotonic() >= until,
    )
    if options.json:
        told: dict[str, Any] = attrs.asdict(summary)
        told["failures"] = [
            {"seed": each.seed, "broken": each.broken, "text": each.text}
            for each in summary.failures
        ]
        _say(json.dumps(told))
        return 1 if summary.failures else 0
    for failure in summary.failures[:5]:
        _show_failure(failure)
    _say(
        f"seeds {seeds.start} to {seeds.start + summary.seeds - 1}: "
        f"{len(summary.failures)} failed, {summary.takeovers} epochs, {summary.acked} writes "
        f"acknowledged ({summary.local_acks} more as local), {summary.reads} reads, "
        f"{time.monotonic() - started:.0f} s, trace hash {summary.trace_hash}"
    )
    return 1 if summary.failures else 0


def _run_mutants(options: argparse.Namespace) -> int:
    if compiled.in_use():
        _say("no bug can be planted in compiled modules: run this in a checkout")
        return 2
    names = set(options.mutants)
    unknown = names - {mutant.name for mutant in MUTANTS}
    if unknown:
        known = ", ".join(mutant.name for mutant in MUTANTS)
        _say(f"no such mutants: {', '.join(sorted(unknown))}; there are: {known}")
        return 2
    mutants = {one.name: one for one in MUTANTS if not names or one.name in names}
    found = []
    for caught in hunt_all(tuple(mutants), _seeds(options), options.jobs):
        found.append(caught)
        if options.json:
            continue
        if caught.is_caught:
            _say(f"caught by seed {caught.seed:<4} {caught.name}: {caught.text[:100]}")
        else:
            expected = mutants[caught.name].caught_by
            _say(f"NOT CAUGHT          {caught.name} by {expected}; {caught.others}")
    missed = [caught.name for caught in found if not caught.is_caught]
    if options.json:
        _say(json.dumps([attrs.asdict(caught) for caught in found]))
    else:
        _say(f"{len(missed)} of {len(found)} mutants not caught")
    return 1 if missed else 0


def _run_one(seed: int) -> int:
    result = run_seed(seed, keep_trace=True)
    for line in result.lines:
        _say(line)
    _say(f"seed {seed}: {result.text or 'all properties hold'}, trace hash {result.trace_hash}")
    return 1 if result.broken else 0


def main(argv: Sequence[str]) -> int:
    """Run what ``argv`` asks for.

    :returns: 0, or 1 if a property broke or a mutant was not caught, 2 for unknown mutants.
    """
    options = _arguments(argv)
    # What the simulated processes log is the weather; faults in it are a property of their own.
    globalLogBeginner.beginLoggingTo(
        [cast(ILogObserver, lambda event: None)], redirectStandardIO=False
    )
    if options.seed is not None:
        return _run_one(options.seed)
    if options.mutants is not None:
        return _run_mutants(options)
    return _run(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
