"""The gateway beside nginx, HAProxy and Caddy, measured on this machine.

\b
    proxied     a request with everything on (log, metrics, signature, breakers), 64 connections
    node        the node's hop alone: proofs and all, before a fast stand-in for PocketBase
    record      client, gateway, node, PocketBase, all real: one record
    list        the same: a list of 20 records
    idle        memory of 10,000 idle keep-alive connections
    streams     memory of 10,000 event streams
    up, down    one gigabyte
    lookups     finding a remembered route among 10 and among 100,000
    workers     two workers beside one, if the gateway has --workers
    tls         a request over an open TLS connection, if the gateway has --tls-listen
    handshakes  a TLS connection for each request

Systems take turns under load, round after round, each proxy on one core and the load on another;
tables show medians (minimum, maximum) of the rounds, and ratios that are made within a round. The
figure to trust is the processor time of the proxy's own processes for one request: other work on
the machine moves rates and latencies far more. Progress, with the process ids to profile, goes to
stderr, the report to stdout.

This checkout is measured compiled, as ``pip install .`` installs it, if ``make compiled`` was run,
and in some measures beside it as it stands (``uncompiled``).

Needed are two cores, and the Debian packages nginx-light, haproxy, caddy, wrk and gcc, as far as
the chosen measures take them; what is missing is said at once.

\b
    python -m benchmarks.gateway --only proxied --rounds 3 --seconds 3 --system pbcluster,nginx
    python -m benchmarks.gateway --only proxied --checkout ../before --checkout .
    python -m benchmarks.gateway --json figures.json
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs
import click

from benchmarks import measured, report
from benchmarks.gateway import (
    front_hop,
    large,
    lookups,
    many,
    processes,
    proxied,
    tls,
    whole,
    workers,
)
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import checkouts
from benchmarks.measured import Measured

#: Name → (what it needs, how it is made).
MEASURES: dict[str, tuple[tuple[str, ...], Callable[[Options], Measured]]] = {
    "proxied": (proxied.NEEDS, proxied.measure),
    "node": (front_hop.NEEDS, front_hop.measure),
    "record": (whole.NEEDS, whole.measure_record),
    "list": (whole.NEEDS, whole.measure_list),
    "idle": (many.NEEDS, many.measure_idle),
    "streams": (many.NEEDS, many.measure_streams),
    "up": (large.NEEDS, large.measure_up),
    "down": (large.NEEDS, large.measure_down),
    "lookups": (lookups.NEEDS, lookups.measure),
    "workers": (workers.NEEDS, workers.measure),
    "tls": (tls.NEEDS, tls.measure_requests),
    "handshakes": (tls.NEEDS, tls.measure_handshakes),
}


#: Measures in which this checkout is also told as it stands, not compiled.
BOTH = ("proxied", "node")


def judged(options: Options) -> Options:
    """The same, without what is only told beside."""
    checkouts = [each for each in options.checkouts if each.judged]
    return attrs.evolve(options, checkouts=checkouts)


def needed(names: tuple[str, ...]) -> None:
    """:raises SystemExit: programs are missing; names their packages."""
    lacking = processes.missing({need for name in names for need in MEASURES[name][0]})
    if lacking:
        raise SystemExit(f"not installed, but needed: apt-get install {' '.join(lacking)}")


@click.command(help=__doc__)
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(MEASURES)), help="Measures; default: all."
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=5.0, show_default=True, help="Of each load in each round.")
@click.option(
    "--checkout",
    "directories",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Measure this checkout's processes (with its own .venv, if it has one) instead of ours. "
    "Several are measured side by side in the same rounds.",
)
@click.option(
    "--system",
    default="",
    help="Of proxied: only systems whose name holds one of these, by commas.",
)
@click.option(
    "--reactor",
    default="",
    help="Of our processes, as twistd names it: with epoll, Twisted's own transports are measured.",
)
@click.option("--proxy-core", default=0, show_default=True, help="Core of the proxies.")
@click.option("--load-core", default=1, show_default=True, help="Core of everything else.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures.")
def main(
    only: tuple[str, ...],
    rounds: int,
    seconds: float,
    directories: tuple[Path, ...],
    system: str,
    reactor: str,
    proxy_core: int,
    load_core: int,
    json_file: Path | None,
) -> None:
    names = only or tuple(MEASURES)
    needed(names)
    if not {proxy_core, load_core} <= os.sched_getaffinity(0) or proxy_core == load_core:
        raise SystemExit("two cores are needed, one for the proxies and one for the load")
    chosen = [attrs.evolve(each, reactor=reactor) for each in checkouts(directories)]
    options = Options(chosen, rounds, seconds, proxy_core, load_core, system)
    everything = []
    for name in names:
        click.echo(f"== {name}", err=True)
        everything.append(MEASURES[name][1](options if name in BOTH else judged(options)))
        click.echo(report.text(everything[-1]) + "\n")
    measured.write(json_file, everything)


if __name__ == "__main__":
    main()
