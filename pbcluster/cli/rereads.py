"""Have running processes of a directory read their keys again, and know that they did.

A process counts how often it used what it read (``…_reloads`` on its metrics listener), and says
when it did not (``…_reload_failed``); SIGHUP is sent, and the count awaited. A process that does
not run needs nothing: it reads its files when it starts.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterable

from pbcluster.cli import procfs, state
from pbcluster.cli.http import ask
from pbcluster.cli.layout import ClusterDir
from pbcluster.errors import DeadlineExceeded, ProcessFailed, Unavailable

WITHIN_S = 20.0
_POLL_S = 0.05
_LINE = re.compile(r"^(pbcluster_\w+?_reloads(?:_total)?(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)
_FAILED = re.compile(r"^pbcluster_\w+?_reload_failed(?:\{[^}]*\})? 1(?:\.0)?$", re.MULTILINE)


def reread(where: ClusterDir, names: Iterable[str], within_s: float = WITHIN_S) -> None:
    """Have these processes read their files again, all at once; returns when all did.

    :raises ProcessFailed: one could not use what it read, and goes on with what it had.
    :raises DeadlineExceeded: one did not say within ``within_s`` seconds that it did.
    """
    running = {name: who for name in names if (who := _running(where, name)) is not None}
    before = {name: counted(_metrics(where, name)) for name in running}
    for who in running.values():
        procfs.send(who, signal.SIGHUP)
    until = time.monotonic() + within_s
    for name, counts in before.items():
        while True:
            page = _metrics(where, name)
            now = counted(page)
            if counts and all(now.get(line, value) > value for line, value in counts.items()):
                break
            if _FAILED.search(page) or time.monotonic() > until:
                _did_not(where, name, refused=bool(_FAILED.search(page)))
            time.sleep(_POLL_S)


def _did_not(where: ClusterDir, name: str, *, refused: bool) -> None:
    log = where.log(name)
    if refused:
        raise ProcessFailed(f"{name} cannot use its new keys and keeps the former; see {log}")
    raise DeadlineExceeded(f"{name} did not say that it read its keys again; see {log}")


def counted(page: str) -> dict[str, float]:
    """What a metrics page says of reloads: name and labels → count."""
    return {line: float(value) for line, value in _LINE.findall(page)}


def _running(where: ClusterDir, name: str) -> procfs.Identity | None:
    found = state.read_state(where)
    for process in found.processes if found is not None else ():
        if process.id == name and process.state != state.LEAVING and process.identity is not None:
            return process.identity if procfs.alive(process.identity) else None
    return None


def _metrics(where: ClusterDir, name: str) -> str:
    """Its metrics page. :raises Unavailable: it does not say where that is."""
    try:
        ready = json.loads((where.data(name) / "ready.json").read_text(encoding="utf-8"))
        url = str(ready["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(f"{name} does not serve: its ready.json names no metrics") from None
    return ask("GET", f"{url}/metrics").body.decode("utf-8", "replace")
