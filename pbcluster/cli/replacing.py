"""``restart``: another process in the place of a gateway, without a refused connection.

The command leaves a note for the supervisor (``run/replace-ID``) and wakes it. The supervisor
starts a successor that takes the listening sockets over (``--take-over``); when that serves, the
former process drains and ends by itself. If it does not come to serve, the former one goes on.
"""

from __future__ import annotations

import signal
import time

import attrs

from pbcluster.cli import initialise, procfs, state
from pbcluster.cli.child import Child, ProcessSpec
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.errors import ConfigError, DeadlineExceeded, InvalidInput, ProcessFailed

TAKE_OVER = "--take-over=true"
#: A gateway serves about two seconds after its start, ten while the control plane is away.
WITHIN_S = 60.0
_POLL_S = 0.1


def successor_of(spec: ProcessSpec) -> Child:
    """A process that takes over from the one that ``spec`` is of."""
    argv = spec.argv if TAKE_OVER in spec.argv else (*spec.argv, TAKE_OVER)
    return Child(attrs.evolve(spec, argv=argv))


def asked_for(where: ClusterDir, name: str) -> bool:
    """Whether a note says that ``name`` is to be replaced; the note is gone then."""
    try:
        where.replace_file(name).unlink()
    except OSError:
        return False
    return True


def restart(where: ClusterDir, plan: Plan, name: str) -> int:
    """Have a gateway replaced, with the settings that the plan has now.

    :returns: the process id of the new one.
    :raises ConfigError: the cluster does not run, or it is no gateway.
    :raises ProcessFailed: the new one ended; the former one goes on.
    :raises DeadlineExceeded: nothing was heard of it.
    """
    gateways = [process.id for process in plan.of("gateway")]
    if name not in gateways:
        allowed = ", ".join(gateways)
        raise InvalidInput(f"{name!r} is no gateway; allowed: {allowed}", allowed=allowed)
    who = state.supervisor(where)
    before = _process(where, name)
    if who is None or before is None or before.state != state.SERVING:
        raise ConfigError(f"{name} does not serve: see `pbcluster status --dir {where.root}`")
    initialise.write_all(where, plan)
    where.replace_file(name).touch(mode=0o600)
    procfs.send(who, signal.SIGUSR1)
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        now = _process(where, name)
        if now is not None and now.identity != before.identity and now.identity is not None:
            return now.identity.pid
        found = state.read_state(where)
        if found is not None and not where.replace_file(name).exists():
            _check(found.message, name)
        time.sleep(_POLL_S)
    raise DeadlineExceeded(f"{name} was not replaced within {WITHIN_S:.0f} s: see its log")


def failed(name: str, reason: str) -> str:
    """What the supervisor says when a successor ended."""
    return f"{name} was not replaced, its successor ended ({reason}); the former one goes on"


def _check(message: str, name: str) -> None:
    if message.startswith(f"{name} was not replaced"):
        raise ProcessFailed(message)


def _process(where: ClusterDir, name: str) -> state.ProcessState | None:
    """The one that counts: not a former one that drains."""
    found = state.read_state(where)
    rows = found.processes if found is not None else ()
    return next((row for row in rows if row.id == name and row.state != state.LEAVING), None)
