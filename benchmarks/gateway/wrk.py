"""wrk as the load generator: closed loops, one thread, pinned to the core of the load."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.figures import Load, parse_wrk
from benchmarks.gateway.processes import on_core, program


def run(
    url: str,
    headers: Mapping[str, str],
    *,
    connections: int,
    seconds: float,
    core: int | None,
    script: Path | None = None,
) -> Load:
    """One load.

    :param script: for wrk's Lua.

    :raises RuntimeError: more than one request in a thousand failed; such figures mean nothing.
    """
    command = [program("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--latency", "--timeout", "10s"]
    if script is not None:
        command += ["-s", str(script)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        on_core(core, [*command, url]),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise RuntimeError(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
    load = parse_wrk(done.stdout)
    if load.failed > load.requests / 1000:
        raise RuntimeError(f"{url}: {load.failed} requests failed:\n{done.stdout}")
    return load
