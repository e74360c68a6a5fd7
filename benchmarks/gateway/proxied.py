"""Measure "proxied": a keep-alive request with everything on, beside nginx, HAProxy and Caddy,
and beside what copies bytes and is no gateway."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from contextlib import suppress
from typing import Any

import click

from benchmarks.figures import Load, Target
from benchmarks.gateway import peers, wrk
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Ours
from benchmarks.gateway.processes import free_ports, wait_until
from benchmarks.gateway.turns import take_turns, together, url, weigh
from benchmarks.measured import Measured

CONNECTIONS = 64
WARM_UP_S = 1.0
#: Buffered lines of a warm-up reach the logs within this time.
SETTLE_S = 1.5
NEEDS = ("nginx", "haproxy", "caddy", "wrk", "taskset")
#: Why the targets of processor time are missed where they are.
PYTHON = (
    "what only copies bytes on the same streams, told beside as copier, takes three quarters of "
    "nginx's time; most of the rest is Python's objects, also where the calls between them are "
    "compiled (decision 0085)"
)
TARGETS = (
    Target("cpu_us", "nginx", 1.2, stretch=1.0, cause=PYTHON),
    Target("cpu_us", "caddy", 0.35, cause=PYTHON),
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


def check_features(system: Any, *, signs: bool) -> list[str]:
    """What is not as it should be in the request that an upstream gets from ``system``, and in the
    answer; empty: all is well."""
    request = urllib.request.Request(url(system, peers.SEEN_PATH), headers={"Host": peers.HOST})
    with urllib.request.urlopen(request, timeout=10) as answer:
        seen = json.loads(answer.read())
        wrong = [] if answer.headers.get("X-Request-ID") else ["no X-Request-ID in the answer"]
    if signs and not seen["signature"]:
        wrong.append("no signature for the upstream")
    made = [name for name in _MADE if name not in ("request-id",) or not signs]
    wrong += [f"no {name} for the upstream" for name in made if not seen[name]]
    if "close" in seen["connection"].lower():
        wrong.append("no keep-alive to the upstream")
    return wrong


def logged_lines(system: Any) -> int:
    lines = 0
    for log in system.logs():
        with suppress(FileNotFoundError), log.open("rb") as stream:
            lines += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines


def empty_logs(system: Any) -> None:
    for log in system.logs():
        with suppress(FileNotFoundError):
            os.truncate(log, 0)


def check_log(system: Any, requests: int) -> None:
    """:raises RuntimeError: its access log lacks requests."""
    # nginx buffers its log for a second.
    try:
        wait_until(lambda: logged_lines(system) >= requests * 0.99, "the access log", 5.0)
    except TimeoutError:
        lines, files = logged_lines(system), ", ".join(map(str, system.logs()))
        raise RuntimeError(f"{files}: {lines} lines for {requests} requests") from None
    empty_logs(system)


def started(options: Options, to: Any) -> list[Any]:
    """All systems of the measure, running before one upstream."""
    core, other = options.core, options.other
    first, *ports = free_ports(5)
    to.add(peers.upstream(first, other))
    systems = [
        to.add(Ours(checkout, first, {"gateway": core, "other": other}))
        for checkout in options.checkouts
        if options.wants(checkout.label)
    ]
    others = (peers.nginx, peers.haproxy, peers.caddy, peers.copier)
    for make, port in zip(others, ports, strict=True):
        if options.wants(make.__name__):
            systems.append(to.add(make(port, first, core)))
    return systems


def measure(options: Options) -> Measured:
    notes = []
    with together() as to:
        systems = started(options, to)
        for system in systems:
            if is_copier(system):
                continue
            wrong = check_features(system, signs=isinstance(system, Ours))
            if wrong:
                # A checkout that makes less is measured all the same, and told.
                notes.append(f"{system.name}: {'; '.join(wrong)}")
                click.echo(notes[-1], err=True)
        found = take_turns(systems, options.rounds, lambda s, number: _one(s, options, number))
    return Measured(
        "proxied",
        f"A proxied request with everything on, {CONNECTIONS} connections",
        found,
        options.labels,
        TARGETS,
        notes=tuple(notes),
    )


def _one(system: Any, options: Options, number: int) -> dict[str, float]:
    def load(for_s: float) -> Load:
        headers = {"Host": peers.HOST, "Accept": "application/json"}
        return wrk.run(
            url(system), headers, connections=CONNECTIONS, seconds=for_s, core=options.other
        )

    if number == 0:
        load(WARM_UP_S)
        time.sleep(SETTLE_S)
    empty_logs(system)
    requests = 0

    def counted() -> Load:
        nonlocal requests
        told = load(options.seconds)
        requests = told.requests
        return told

    figures = weigh(system.pids(), counted)
    if not is_copier(system):
        check_log(system, requests)
    return figures


def is_copier(system: Any) -> bool:
    """It makes no fields and writes no log."""
    return isinstance(system, peers.Peer) and system.name == "copier"
