"""Who a process is: its id *and* its start time, so that a reused id is never mistaken for it.

Reads Linux's ``/proc`` (see proc(5), ``/proc/pid/stat`` fields 3 and 22). Signals go through a
pidfd that was opened before the start time was compared, so the process that gets the signal is
the process that was checked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs

_POLL_S = 0.02


@attrs.frozen
class Identity:
    """A process that was seen alive.

    :ivar pid: its process id.
    :ivar started: clock ticks from the machine's boot to its start, with the boot's own id.
    """

    pid: int
    started: str

    def as_json(self) -> dict[str, Any]:
        """The form that is stored in ``run/``."""
        return {"pid": self.pid, "started": self.started}


def from_json(stored: Any) -> Identity | None:
    """What :meth:`Identity.as_json` gave; None for anything else."""
    if not isinstance(stored, dict):
        return None
    pid, started = stored.get("pid"), stored.get("started")
    return Identity(pid, started) if isinstance(pid, int) and isinstance(started, str) else None


def identify(pid: int) -> Identity | None:
    """The identity of the living process ``pid``; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The second field, the command's name in parentheses, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else Identity(pid, f"{boot}:{ticks}")


def alive(who: Identity) -> bool:
    """Whether exactly this process still lives."""
    return identify(who.pid) == who


def send(who: Identity, number: signal.Signals) -> bool:
    """Send a signal to exactly this process. :returns: whether it still lived."""
    try:
        handle = os.pidfd_open(who.pid)
    except OSError:
        return False
    try:
        if not alive(who):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        return True
    finally:
        os.close(handle)


def wait_gone(processes: list[Identity], timeout_s: float) -> list[Identity]:
    """Wait until all have ended.

    :param timeout_s: seconds at most.
    :returns: those that still live.
    """
    until = time.monotonic() + timeout_s
    left = [who for who in processes if alive(who)]
    while left and time.monotonic() < until:
        time.sleep(_POLL_S)
        left = [who for who in left if alive(who)]
    return left


def end_all(processes: list[Identity], grace_s: float) -> int:
    """SIGTERM to each, SIGKILL to those that live after ``grace_s`` seconds.

    :returns: how many had to be killed.
    """
    for who in processes:
        send(who, signal.SIGTERM)
    left = wait_gone(processes, grace_s)
    for who in left:
        send(who, signal.SIGKILL)
    wait_gone(left, grace_s)
    return len(left)


def descendants(pid: int) -> list[Identity]:
    """All living children of ``pid`` and theirs, parents before children."""
    return below([pid])[pid]


def below(pids: Collection[int]) -> dict[int, list[Identity]]:
    """The :func:`descendants` of several processes, by one look at the table of processes."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                parent = int(stat.rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found: dict[int, list[Identity]] = {}
    for pid in pids:
        found[pid] = []
        queue = list(parents.get(pid, ()))
        while queue:
            child = queue.pop(0)
            who = identify(child)
            if who is not None:
                found[pid].append(who)
            queue.extend(parents.get(child, ()))
    return found
