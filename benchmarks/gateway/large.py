"""Measures "up" and "down": one gigabyte through the proxy, beside nginx that buffers nothing to
files. The memory at its peak is told as growth over what the process had before."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Target
from benchmarks.gateway import peers
from benchmarks.gateway.far_end import GIGABYTE
from benchmarks.gateway.many import far_end
from benchmarks.gateway.options import Options
from benchmarks.gateway.ours import Ours
from benchmarks.gateway.processes import cpu_s, forget_peak, free_ports, memory_kb
from benchmarks.gateway.turns import child, take_turns, together, told_by
from benchmarks.measured import Measured

NEEDS = ("nginx", "taskset")
TARGETS = (
    Target("mb_s", "nginx", 0.8, at_most=False),
    # Flat: nothing of a gigabyte is kept.
    Target("growth_mb", "", 8.0),
)
WITHIN_S = 300.0
_NGINX = """
      proxy_request_buffering off; proxy_max_temp_file_size 0; client_max_body_size 2g;
"""


def measure_up(options: Options) -> Measured:
    return _measure(options, "up")


def measure_down(options: Options) -> Measured:
    return _measure(options, "down")


def _measure(options: Options, kind: str) -> Measured:
    with together() as to:
        upstream_port, port = free_ports(2)
        to.add(far_end(upstream_port, options.other))
        cores = {"gateway": options.core, "other": options.other}
        settings = {"max_body_bytes": 2 * GIGABYTE}
        systems = [
            to.add(Ours(each, upstream_port, cores, settings=settings))
            for each in options.checkouts
        ]
        systems.append(to.add(peers.nginx(port, upstream_port, options.core, _NGINX)))
        found = take_turns(systems, options.rounds, lambda s, _: _one(s, kind, options))
    return Measured(
        kind,
        f"One gigabyte {kind}",
        found,
        options.labels,
        TARGETS,
    )


def _one(system: Any, kind: str, options: Options) -> dict[str, float]:
    pids = system.pids()
    forget_peak(*pids)
    before, used = memory_kb(*pids), cpu_s(*pids)
    job = {"port": system.port, "host": peers.HOST, "kind": kind}
    seconds = float(told_by(child("moving", job, options.other), WITHIN_S))
    return {
        "mb_s": GIGABYTE / 1e6 / seconds,
        "growth_mb": max(0, memory_kb(*pids, name="VmHWM") - before) / 1024,
        "cpu_s_gb": cpu_s(*pids) - used,
    }
