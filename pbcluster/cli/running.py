"""``up`` and ``down`` without click: run a cluster here, start it detached, wait for it, end it."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import attrs

from pbcluster.cli import initialise, procfs, state
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.cli.ports import check_free
from pbcluster.cli.spec import (
    STOP_GRACE_S,
    check_binaries,
    cluster_serves,
    service_environment,
    specs,
)
from pbcluster.cli.state import ClusterState
from pbcluster.cli.supervisor import LEFTOVER_GRACE_S, SERVE_WITHIN_S, Supervisor
from pbcluster.errors import ConfigError, DeadlineExceeded, ProcessFailed

Show = Callable[[ClusterState], None]

#: Longest way of a supervisor from its start to serving or failed.
_DETACH_WITHIN_S = SERVE_WITHIN_S + 2 * LEFTOVER_GRACE_S + 2 * sum(STOP_GRACE_S.values())
#: Longest way of a supervisor from SIGTERM to its end: every kind to its grace, then killed.
_STOP_WITHIN_S = sum(STOP_GRACE_S.values()) + 15.0
_POLL_S = 0.1


def prepare(where: ClusterDir, wish: Wish) -> Plan:
    """The plan to run, made or changed as wished; only where nothing runs.

    :raises ConfigError: the cluster runs already and the wish differs from it.
    """
    initialise.check_wish(wish)
    with alone(where):
        if state.supervisor(where) is None:
            return initialise.ensure(where, wish)
    plan = where.load_plan()
    if 0 not in (wish.gateway_port, wish.admin_port):
        same = attrs.evolve(wish, internal_port=None)
        if initialise.changed_plan(plan, same) == plan:
            return plan
    raise ConfigError(
        f"the cluster in {where.root} is running with other options: stop it first with "
        f"`pbcluster down --dir {where.root}`"
    )


@contextlib.contextmanager
def alone(where: ClusterDir) -> Iterator[None]:
    """Two commands at the same moment write one directory after the other, not into each other."""
    try:
        where.run.mkdir(parents=True, exist_ok=True)
        stream = (where.run / "writing.lock").open("a")
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from None
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def run_here(where: ClusterDir, plan: Plan, *, restart: bool, show: Show) -> None:
    """Supervise in this process until it is told to stop. Main thread only.

    :raises PBClusterError: see :meth:`Supervisor.run`.
    """
    Supervisor(
        where,
        specs(where, plan),
        restart=restart,
        on_change=show,
        check_before_start=lambda: _check(where, plan),
        also_serves=lambda: cluster_serves(where, plan),
        read_again=lambda: specs(where, where.load_plan()),
    ).run()


def _check(where: ClusterDir, plan: Plan) -> None:
    check_free(plan)
    check_binaries(where, plan)


def start_detached(where: ClusterDir, *, restart: bool, show: Show) -> None:
    """Start a supervisor in a session of its own and wait until the cluster serves.

    :raises ProcessFailed: it ended before; says what it said.
    """
    where.run.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "pbcluster.cli.main", "supervise", "--dir", str(where.root)]
    with where.supervisor_log.open("ab") as log:
        began = log.tell()
        process = subprocess.Popen(
            argv + ([] if restart else ["--no-restart"]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=service_environment(),
            cwd=where.root,
            start_new_session=True,
        )
    until = time.monotonic() + _DETACH_WITHIN_S
    while process.poll() is None:
        who = state.supervisor(where)
        if who is not None and who.pid == process.pid and _serves(where, show):
            return
        if time.monotonic() > until:
            process.terminate()
            raise ProcessFailed(f"the supervisor says nothing; its log is {where.supervisor_log}")
        time.sleep(_POLL_S)
    with where.supervisor_log.open("rb") as log:
        log.seek(began)
        said = log.read().decode("utf-8", "replace")
    raise ProcessFailed(said.rpartition("pbcluster: ")[2].strip() or "the supervisor ended")


def wait_serving(where: ClusterDir, show: Show) -> None:
    """Wait until a cluster that somebody else starts serves.

    :raises ProcessFailed: it stopped instead. :raises DeadlineExceeded: it takes too long.
    """
    until = time.monotonic() + _DETACH_WITHIN_S
    while not _serves(where, show):
        if state.supervisor(where) is None:
            raise ProcessFailed(f"the cluster in {where.root} stopped while it was starting")
        if time.monotonic() > until:
            raise DeadlineExceeded(f"the cluster in {where.root} does not come to serve")
        time.sleep(_POLL_S)


def _serves(where: ClusterDir, show: Show) -> bool:
    now = state.read_state(where)
    if now is None:
        return False
    show(now)
    return now.phase == state.SERVING


def stop(where: ClusterDir, show: Show) -> bool:
    """End the supervisor and its processes, and nobody else.

    :returns: whether anything ran.
    """
    who = state.supervisor(where)
    if who is None:
        left = state.living(where)
        procfs.end_all(left, LEFTOVER_GRACE_S)
        return bool(left)
    procfs.send(who, signal.SIGTERM)
    until = time.monotonic() + _STOP_WITHIN_S
    while procfs.alive(who) and time.monotonic() < until:
        _serves(where, show)
        time.sleep(_POLL_S)
    _serves(where, show)
    if procfs.alive(who):
        procfs.send(who, signal.SIGKILL)
        procfs.end_all(state.living(where), LEFTOVER_GRACE_S)
    return True
