"""A load generator with a rate: requests begin by the clock, whatever became of earlier ones.
Systems that are compared take turns, half a second each.

``python -m benchmarks.gateway.paced JOB`` prints one line of JSON. A request's latency counts from
the moment at which it was due, so that a server that stands still is not spared the requests that
would have come meanwhile, until the kernel had the end of its answer (``SO_TIMESTAMPNS``, see
socket(7)). So answers need nobody to wake up for them: this process shares a core with what it
measures, and sleeps until the next request is due. The clock is a timer of the kernel with one tick
a request.

The loop itself is in C (``paced.c``, compiled when it changed): in Python it took the core, and the
caches, from those that it measures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile
from benchmarks.gateway import processes
from benchmarks.gateway.ours import HERE

_NANOSECONDS = 1_000_000_000
#: Answers of the load's last requests are waited for so long.
LINGER_S = 5
#: Systems take turns after so long: what else happens on the machine meets them all.
SLICE_S = 0.5
#: The loop names a system by one digit.
MAX_TARGETS = 10
_SOURCE = Path(__file__).with_suffix(".c")


def compiled(directory: Path = HERE / "build") -> Path:
    """The loop's program, made below ``directory`` unless it is there.

    :raises SystemExit: there is no compiler, or it does not compile.
    """
    program = directory / f"paced-{zlib.crc32(_SOURCE.read_bytes()):08x}"
    if not program.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_name(f"{program.name}-{os.getpid()}")
        flags = ["-O2", "-Wall", "-Wextra", "-o", str(unfinished)]
        made = subprocess.run([processes.program("gcc"), *flags, str(_SOURCE)], check=False)
        if made.returncode:
            raise SystemExit("the load cannot be compiled")
        unfinished.replace(program)  # another process may do the same
    return program


def slices(names: Sequence[str], seconds: float) -> list[str]:
    """Whose turn it is, slice after slice; nobody always follows the same one."""
    return [
        names[(first + turn) % len(names)]
        for turn in range(max(1, round(seconds / SLICE_S)))
        for first in range(len(names))
    ]


def command(job: dict[str, Any]) -> list[str]:
    """The loop's command line; this process is to start it.

    :param job: ``targets`` (name → ``port`` of the loopback and ``path``), ``host``, ``rate`` a
        second, ``seconds`` and ``connections`` for each target.
    """
    targets = list(job["targets"])
    if len(targets) > MAX_TARGETS:
        raise SystemExit(f"{len(targets)} systems, at most {MAX_TARGETS} can take turns")
    order = "".join(str(targets.index(name)) for name in slices(targets, job["seconds"]))
    numbers = (
        round(_NANOSECONDS / job["rate"]),
        round(SLICE_S * job["rate"]),
        round(SLICE_S * _NANOSECONDS),
        LINGER_S * _NANOSECONDS,
        job["connections"],
    )
    where = [text for each in job["targets"].values() for text in (str(each["port"]), each["path"])]
    return [str(compiled()), *map(str, numbers), order, job["host"], str(os.getpid()), *where]


def run(job: dict[str, Any]) -> dict[str, dict[str, float]]:
    """All of a job.

    :returns: name → ``requests``, ``failed`` (their answer was not 200), ``p50_s``, ``p99_s``.
    :raises SystemExit: an answer is missing, or a connection was closed.
    """
    load = subprocess.run(command(job), check=False, stdout=subprocess.PIPE, text=True)
    if load.returncode:
        raise SystemExit(load.returncode)  # it said why
    latencies: list[list[float]] = [[] for _ in job["targets"]]
    failed = [0] * len(latencies)
    for line in load.stdout.splitlines():
        target, latency_ns, good = map(int, line.split())
        latencies[target].append(latency_ns / _NANOSECONDS)
        failed[target] += not good
    return {
        name: {
            "requests": len(latencies[number]),
            "failed": failed[number],
            "p50_s": percentile(latencies[number], 0.5),
            "p99_s": percentile(latencies[number], 0.99),
        }
        for number, name in enumerate(job["targets"])
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
