"""What all measures share: systems that take turns, a child process with one job, weighing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import click

from benchmarks.figures import Load, number
from benchmarks.gateway import peers
from benchmarks.gateway.ours import HERE
from benchmarks.gateway.processes import cpu_s, memory_kb, on_core
from benchmarks.measured import UNITS

Found = dict[str, list[dict[str, float]]]


class System(Protocol):
    """What is measured."""

    name: str

    @property
    def port(self) -> int: ...
    def pids(self) -> list[int]: ...
    def stop(self) -> None: ...


def url(system: Any, path: str = peers.PATH) -> str:
    return f"http://127.0.0.1:{system.port}{path}"


def take_turns(
    systems: Sequence[Any], rounds: int, one: Callable[[Any, int], Mapping[str, float]]
) -> Found:
    """Call ``one`` with each system and the round's number, round after round.

    :returns: system's name → figures, in the order of ``systems``.
    """
    found: Found = {system.name: [] for system in systems}
    for system in systems:
        click.echo(f"{system.name}: processes {', '.join(map(str, system.pids()))}", err=True)
    for number_ in range(rounds):
        # Nobody is always the first after a pause.
        turn = number_ % len(systems)
        for system in (*systems[turn:], *systems[:turn]):
            figures = dict(one(system, number_))
            found[system.name].append(figures)
            click.echo(f"round {number_ + 1} of {rounds}: {system.name}: {line(figures)}", err=True)
    return found


def line(figures: Mapping[str, float]) -> str:
    """Figures of a system in a round, as they are told meanwhile."""
    return ", ".join(
        f"{UNITS[name]} {number(value)}" for name, value in figures.items() if name in UNITS
    )


def weigh(pids: Iterable[int], load: Callable[[], Load]) -> dict[str, float]:
    """The figures of one load: processor time of these processes for one request, …"""
    pids = list(pids)
    before = cpu_s(*pids)
    found = load()
    used = cpu_s(*pids) - before
    return {
        "cpu_us": used / found.requests * 1e6,
        "rate": found.requests / found.seconds,
        "p50_ms": found.p50_s * 1000,
        "p99_ms": found.p99_s * 1000,
        "requests": found.requests,
        "core": used / found.seconds,
        "rss_mb": memory_kb(*pids) / 1024,
    }


class Together:
    """Things that are ended in reverse order. :meth:`add` returns what it is given."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def add(self, started: Any) -> Any:
        self._stack.callback(started.stop)
        return started


@contextmanager
def together() -> Any:
    with ExitStack() as stack:
        yield Together(stack)


def child(module: str, job: Mapping[str, Any], core: int | None) -> subprocess.Popen[str]:
    """A helper process of these benchmarks; it gets its job as JSON."""
    command = [sys.executable, "-m", f"benchmarks.gateway.{module}", json.dumps(job)]
    return subprocess.Popen(
        on_core(core, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
    )


def told_by(process: subprocess.Popen[str], within_s: float = 300.0) -> Any:
    """The JSON that a helper prints at its end. :raises RuntimeError: it failed."""
    try:
        output, _ = process.communicate(timeout=within_s)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"a helper process ended with {process.returncode}")
    return json.loads(output.strip().splitlines()[-1])
