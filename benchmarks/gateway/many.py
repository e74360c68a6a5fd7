"""Measures "idle" and "streams": what 10,000 open client connections weigh.

Idle ones had one answer each and are kept alive; streams got the head and the first event of a
``text/event-stream``, so that each holds a connection to the node too. The figure is the growth of
the proxy's resident memory from before the first to all being open, divided by their number; it
knows nothing of the kernel's buffers. Where the descriptors of one process are too few, gateway and
nginx have as many worker processes as it takes, and their memory is added up.
"""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any

import click

from benchmarks.figures import Target
from benchmarks.gateway import peers
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import HERE, Ours
from benchmarks.gateway.processes import (
    descriptors,
    free_ports,
    memory_kb,
    raise_limit,
    wait_until,
)
from benchmarks.gateway.turns import child, take_turns, together
from benchmarks.measured import Measured

NEEDS = ("nginx", "taskset")
TARGETS = (Target("kb_each", "", 12.0),)
COUNT = 10_000
#: Descriptors of a proxy that are no connection of a client or to a node.
SPARE = 500
#: Beyond 0.8 of its descriptors the gateway turns new requests away (``shed_descriptors``).
IN_USE = 0.75
#: No worker gets more than so many times its even part.
UNEVEN = 1.2
#: More of them would hold few connections each, and be measured themselves.
MOST_WORKERS = 4
#: Memory of a system that was just started still grows for other reasons.
WARM_UP = 200
#: What is read of an answer ends so.
_UNTIL = {"/": "{}", "/stream": "data:{}\n\n\r\n"}


def far_end(port: int, core: int | None) -> peers.Peer:
    """The upstream of streams and large bodies."""
    peer = peers.Peer("far end", peers.make_root("far-end"), port, log=False)
    argv = [sys.executable, "-m", "benchmarks.gateway.far_end", str(port), str(peer.root)]
    return peer.run(argv, core, env={"PYTHONPATH": str(HERE)})


def measure_idle(options: Options) -> Measured:
    return _measure(options, "idle", "/", "idle keep-alive connections")


def measure_streams(options: Options) -> Measured:
    return _measure(options, "streams", "/stream", "event streams")


def workers_for(descriptors: int) -> int:
    """How many processes hold all connections. The gateway keeps two descriptors for each, also for
    an idle one, and the kernel does not deal them out evenly.

    :param descriptors: that one process may have.
    """
    fit = int(descriptors * IN_USE - SPARE) // 2
    return math.ceil(COUNT * UNEVEN / max(1, fit))


def _measure(options: Options, name: str, path: str, what: str) -> Measured:
    limit = raise_limit()
    workers = workers_for(limit)
    if workers > MOST_WORKERS:
        reason = f"a process may have {limit:,} descriptors here: raise its hard limit"
        return Measured(name, f"{COUNT:,} {what}", {}, (), skipped=reason)
    own = {"max_connections": 2 * COUNT} | ({"workers": workers} if workers > 1 else {})
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(options.rounds):
        # A process that had so many connections keeps memory for the next: each round a new one.
        with together() as to:
            upstream_port, port = free_ports(2)
            far = to.add(far_end(upstream_port, options.other))
            cores = {"gateway": options.core, "other": options.other}
            systems = [
                to.add(Ours(each, upstream_port, cores, settings=own)) for each in options.checkouts
            ]
            systems.append(
                to.add(peers.nginx(port, upstream_port, options.core, _UNBUFFERED, workers=workers))
            )
            click.echo(f"round {number + 1} of {options.rounds}", err=True)
            one = partial(_one, far=far, path=path, options=options)
            told = take_turns(systems, 1, one)
            for system, figures in told.items():
                found.setdefault(system, []).extend(figures)
    return Measured(
        name,
        f"{COUNT:,} {what}",
        found,
        options.labels,
        TARGETS,
        notes=()
        if workers == 1
        else (
            f"{workers} worker processes each: one may have {limit:,} descriptors here, and the "
            "gateway keeps two for a connection.",
        ),
    )


_UNBUFFERED = "proxy_buffering off;"


def _one(system: Any, _number: int, *, far: Any, path: str, options: Options) -> dict[str, float]:
    everybody = [*system.pids(), *far.pids()]
    before_all = descriptors(*everybody)

    def held(number: int, look: Any) -> int:
        found = _hold(system, path, number, options, look)
        # Else the far end would have those of one system while the next one's are opened.
        wait_until(
            lambda: descriptors(*everybody) <= before_all + SPARE // 2,
            f"the connections of {system.name} to be closed",
        )
        return found

    held(WARM_UP, lambda: 0)
    before = memory_kb(*system.pids())
    after = held(COUNT, lambda: memory_kb(*system.pids()))
    return {"kb_each": (after - before) / COUNT, "rss_mb": after / 1024}


def _hold(system: Any, path: str, count: int, options: Options, look: Any) -> int:
    """Open so many, look, close them."""
    job = {
        "port": system.port,
        "host": peers.HOST,
        "path": path,
        "count": count,
        "until": _UNTIL[path],
    }
    helper = child("holding", job, options.other)
    assert helper.stdout is not None
    assert helper.stdin is not None
    try:
        if helper.stdout.readline().strip() != str(count):
            raise RuntimeError(f"{system.name}: not all of {count} connections could be opened")
        seen = int(look())
        helper.stdin.close()
        if helper.stdout.readline().strip() != str(count):
            raise RuntimeError(f"{system.name}: some of {count} connections were closed meanwhile")
        return seen
    finally:
        helper.stdin.close()
        try:
            helper.wait(60)
        finally:
            helper.kill()
