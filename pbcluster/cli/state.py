"""What the supervisor tells the others: ``run/state.json`` and ``run/supervisor.json``.

The supervisor writes, ``status``, ``down`` and a waiting ``up`` read. A file may be left from a
supervisor that was killed: what it says of processes counts only where the identity still lives.
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from pbcluster.cli import procfs
from pbcluster.cli.layout import ClusterDir, write_file

#: Phases of a whole cluster.
STARTING, SERVING, STOPPING, STOPPED, FAILED = (
    "starting",
    "serving",
    "stopping",
    "stopped",
    "failed",
)
#: States of one process; also STARTING, SERVING, STOPPING, STOPPED.
WAITING, RESTARTING, DEAD, LEAVING = "waiting", "restarting", "dead", "leaving"


@attrs.frozen(kw_only=True)
class ProcessState:
    """One process as the supervisor sees it.

    :ivar state: waiting (for those before it), starting, serving, restarting (it died and is due
        again after its backoff), dead (it died and is not restarted),
        leaving (it is in the plan no more), stopping, stopped.
    :ivar reason: how it ended last, empty if it never did.
    """

    kind: str
    id: str
    state: str
    address: str
    admin: str | None = None
    identity: procfs.Identity | None = None
    restarts: int = 0
    reason: str = ""


@attrs.frozen(kw_only=True)
class ClusterState:
    """The whole cluster as its supervisor sees it."""

    phase: str
    processes: tuple[ProcessState, ...]
    message: str = ""


def write_state(where: ClusterDir, state: ClusterState) -> None:
    """Replace ``run/state.json``."""
    rows = []
    for process in state.processes:
        row = attrs.asdict(process, filter=attrs.filters.exclude("identity"))
        who = process.identity
        rows.append(row | {"identity": who.as_json() if who else None})
    content = {"phase": state.phase, "message": state.message, "processes": rows}
    write_file(where.state_file, json.dumps(content, indent=1))


def read_state(where: ClusterDir) -> ClusterState | None:
    """What was written last; None if there is nothing, or nothing readable."""
    try:
        content: dict[str, Any] = json.loads(where.state_file.read_text(encoding="utf-8"))
        processes = tuple(
            ProcessState(**row | {"identity": procfs.from_json(row["identity"])})
            for row in content["processes"]
        )
        return ClusterState(phase=content["phase"], message=content["message"], processes=processes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def living(where: ClusterDir) -> list[procfs.Identity]:
    """Processes of the last noted state that live now."""
    state = read_state(where)
    if state is None:
        return []
    known = [process.identity for process in state.processes]
    return [who for who in known if who is not None and procfs.alive(who)]


def write_supervisor(where: ClusterDir, who: procfs.Identity) -> None:
    """Note who supervises."""
    write_file(where.supervisor_file, json.dumps(who.as_json()))


def supervisor(where: ClusterDir) -> procfs.Identity | None:
    """The living supervisor of this directory, if there is one."""
    try:
        who = procfs.from_json(json.loads(where.supervisor_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    return who if who is not None and procfs.alive(who) else None
