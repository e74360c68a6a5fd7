"""Another process in the place of one that runs, by the supervisor.

A command leaves a note (``run/replace-ID``) and wakes the supervisor. For a gateway that starts a
successor, which takes the listening sockets over (``--take-over``); when it serves, the former
process drains and ends by itself. If it does not come to serve, the former one goes on. Anything
else is ended in order, then started anew at once. Either way with the settings that the plan has
now. What should be done before and after stands in ``restarting``.
"""

from __future__ import annotations

import signal
import time

import attrs

from pbcluster.cli import initialise, procfs, state
from pbcluster.cli.child import Child, ProcessSpec, tail
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.errors import ConfigError, DeadlineExceeded, ProcessFailed

TAKE_OVER = "--take-over=true"
#: A process serves some seconds after its start, and ends within a node's grace.
WITHIN_S = 120.0
_POLL_S = 0.05
#: States in which a process may be replaced.
_REPLACEABLE = (state.SERVING, state.RESTARTING, state.DEAD)


def hands_over(spec: ProcessSpec) -> bool:
    """Whether its successor takes over while it runs."""
    return spec.kind == "gateway"


def successor_of(spec: ProcessSpec) -> Child:
    """A process that follows the one of this id."""
    if not hands_over(spec) or TAKE_OVER in spec.argv:
        return Child(spec)
    return Child(attrs.evolve(spec, argv=(*spec.argv, TAKE_OVER)))


def asked_for(where: ClusterDir, name: str) -> bool:
    """Whether a note says that ``name`` is to be replaced; the note is gone then."""
    try:
        where.replace_file(name).unlink()
    except OSError:
        return False
    return True


def replace(where: ClusterDir, plan: Plan, name: str, within_s: float = WITHIN_S) -> int:
    """Have a process replaced, with the settings that the plan has now, and wait until the new one
    serves.

    :returns: the process id of the new one.
    :raises InvalidInput: there is none of this name.
    :raises ConfigError: the cluster does not run, or that process neither serves nor is dead.
    :raises ProcessFailed: the new one ended; a gateway's former one goes on.
    :raises DeadlineExceeded: nothing was heard of it within ``within_s`` seconds.
    """
    plan.process(name)
    who = state.supervisor(where)
    before = _process(where, name)
    if who is None or before is None or before.state not in _REPLACEABLE:
        raise ConfigError(f"{name} does not serve: see `pbcluster status --dir {where.root}`")
    initialise.write_all(where, plan)
    where.replace_file(name).touch(mode=0o600)
    procfs.send(who, signal.SIGUSR1)
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        found = state.read_state(where)
        now = _process(where, name)
        if found is not None and now is not None and not where.replace_file(name).exists():
            _check(where, found.message, before, now)
            fresh = now.identity not in (None, before.identity)
            if fresh and now.identity is not None and now.state == state.SERVING:
                return now.identity.pid
        time.sleep(_POLL_S)
    raise DeadlineExceeded(f"{name} was not replaced within {within_s:.0f} s: see its log")


def failed(name: str, reason: str) -> str:
    """What the supervisor says when a successor ended."""
    return f"{name} was not replaced, its successor ended ({reason}); the former one goes on"


def _check(
    where: ClusterDir, message: str, before: state.ProcessState, now: state.ProcessState
) -> None:
    """:raises ProcessFailed: the new process ended before it served."""
    if message.startswith(f"{now.id} was not replaced"):
        raise ProcessFailed(message)
    died = now.state in (state.RESTARTING, state.DEAD) and now.restarts > before.restarts
    if died:
        log = where.log(now.id)
        raise ProcessFailed(
            f"{now.id} ended after its restart ({now.reason}); its log is {log}, which ends:\n"
            f"{tail(log)}"
        )


def _process(where: ClusterDir, name: str) -> state.ProcessState | None:
    """The one that counts: not a former one that drains."""
    found = state.read_state(where)
    rows = found.processes if found is not None else ()
    return next((row for row in rows if row.id == name and row.state != state.LEAVING), None)
