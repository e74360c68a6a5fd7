"""Measure 1: a proxied keep-alive request with everything on, beside nginx, HAProxy and Caddy."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

import click

from benchmarks.gateway import peers, wrk
from benchmarks.gateway.figures import Load, Target
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Ours
from benchmarks.gateway.processes import cpu_s, free_ports, rss_kb, wait_until
from benchmarks.gateway.report import Measured

CONNECTIONS = 64
WARM_UP_S = 1.0
NEEDS = ("nginx", "haproxy", "caddy", "wrk", "taskset")
TARGETS = (
    Target("cpu_us", "nginx", 1.2, stretch=1.0),
    Target("cpu_us", "caddy", 0.35),
)
#: Fields that every proxy must have made for the upstream.
_MADE = (
    "forwarded-for",
    "forwarded-proto",
    "forwarded-host",
    "real-ip",
    "request-id",
    "traceparent",
)
Found = dict[str, list[dict[str, float]]]


class System(Protocol):
    """A proxy under load. Its log is read and emptied between loads."""

    name: str

    @property
    def pid(self) -> int: ...
    @property
    def port(self) -> int: ...
    def logs(self) -> list[Path]: ...
    def stop(self) -> None: ...


def url(system: Any, path: str = peers.PATH) -> str:
    return f"http://127.0.0.1:{system.port}{path}"


def weigh(system: Any, load: Callable[[], Load]) -> dict[str, float]:
    """The figures of one load: processor time of the system's processes for one request, …"""
    before = cpu_s(system.pid)
    found = load()
    used = cpu_s(system.pid) - before
    return {
        "cpu_us": used / found.requests * 1e6,
        "rate": found.requests / found.seconds,
        "p50_ms": found.p50_s * 1000,
        "p99_ms": found.p99_s * 1000,
        "core": used / found.seconds,
        "rss_mb": rss_kb(system.pid) / 1024,
    }


def check_features(system: Any, *, signs: bool) -> list[str]:
    """What is not as it should be in the request that an upstream gets from ``system``, and in the
    answer; empty: all is well."""
    request = urllib.request.Request(url(system, peers.SEEN_PATH), headers={"Host": peers.HOST})
    with urllib.request.urlopen(request, timeout=10) as answer:
        seen = json.loads(answer.read())
        wrong = [] if answer.headers.get("X-Request-ID") else ["no X-Request-ID in the answer"]
    wrong += [f"no {name} for the upstream" for name in _MADE if not seen[name]]
    if signs and not seen["signature"]:
        wrong.append("no signature for the upstream")
    if "close" in seen["connection"].lower():
        wrong.append("no keep-alive to the upstream")
    return wrong


def logged_lines(system: System) -> int:
    lines = 0
    for log in system.logs():
        with suppress(FileNotFoundError), log.open("rb") as stream:
            lines += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines


def empty_logs(system: System) -> None:
    for log in system.logs():
        with suppress(FileNotFoundError):
            os.truncate(log, 0)


def check_log(system: System, requests: int) -> None:
    """:raises RuntimeError: its access log lacks requests."""
    # nginx buffers its log for a second.
    try:
        wait_until(lambda: logged_lines(system) >= requests * 0.99, "the access log", 5.0)
    except TimeoutError:
        lines, files = logged_lines(system), ", ".join(map(str, system.logs()))
        raise RuntimeError(f"{files}: {lines} lines for {requests} requests") from None
    empty_logs(system)


class Bench:
    """All systems of the measure, running."""

    def __init__(self, options: Options) -> None:
        core, other = options.core, options.other
        self.systems: list[Any] = []
        with ExitStack() as stack:
            self._stack = stack
            first, *ports = free_ports(4)
            upstream = peers.upstream(first, other)
            self._stack.callback(upstream.stop)
            for checkout in options.checkouts:
                if options.wants(checkout.label):
                    self._add(Ours(checkout, first, core, other))
            for make, port in zip((peers.nginx, peers.haproxy, peers.caddy), ports, strict=True):
                if options.wants(make.__name__):
                    self._add(make(port, first, core))
            self._stack = stack.pop_all()

    def _add(self, system: Any) -> None:
        self._stack.callback(system.stop)
        self.systems.append(system)
        wrong = check_features(system, signs=isinstance(system, Ours))
        if wrong:
            # A checkout that makes less is told, and measured all the same.
            click.echo(f"{system.name}: {'; '.join(wrong)}", err=True)

    def close(self) -> None:
        self._stack.close()


def measure(options: Options) -> Measured:
    bench = Bench(options)
    found: Found = {}
    try:
        for number in range(options.rounds):
            # Nobody is always the first after a pause.
            turn = number % len(bench.systems)
            for system in bench.systems[turn:] + bench.systems[:turn]:
                figures = _one(system, options, warm=number == 0)
                found.setdefault(system.name, []).append(figures)
                click.echo(_line(number + 1, system.name, figures), err=True)
    finally:
        bench.close()
    return Measured(
        "proxied",
        f"A proxied request with everything on, {CONNECTIONS} connections",
        {system.name: found[system.name] for system in bench.systems},
        options.labels,
        TARGETS,
    )


def _one(system: Any, options: Options, *, warm: bool) -> dict[str, float]:
    def load(for_s: float) -> Load:
        headers = {"Host": peers.HOST, "Accept": "application/json"}
        return wrk.run(
            url(system), headers, connections=CONNECTIONS, seconds=for_s, core=options.other
        )

    if warm:
        load(WARM_UP_S)
        time.sleep(1.5)
    empty_logs(system)
    requests = 0

    def counted() -> Load:
        nonlocal requests
        told = load(options.seconds)
        requests = told.requests
        return told

    figures = weigh(system, counted)
    check_log(system, requests)
    return figures


def _line(number: int, name: str, figures: dict[str, float]) -> str:
    return (
        f"round {number}: {name}: {figures['cpu_us']:.1f} us CPU a request, "
        f"{figures['rate']:,.0f}/s, p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms"
    )
