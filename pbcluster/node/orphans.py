"""Ends what an earlier node process of this data directory left running, before anything is opened.

Children normally die with their node. Should one survive (the node died within the millisecond
between fork and prctl, or a hook started something), it still writes to a directory that the next
node is about to open. Every child carries the data directory in its environment; by that, and never
by a name, it is found. A signal goes through a pidfd that was opened before the look, so it reaches
the process that was looked at. The caller holds the node's lock: no living node's child is meant.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from pbcluster.errors import ProcessFailed

#: Variable in every child's environment; its value is :func:`marker`'s.
MARKER = "PBCLUSTER_NODE_DIR"
#: A killed process only needs its memory to be given back; a hung disk takes longer than this.
GONE_WITHIN_S = 10.0
#: A hook may start processes as fast as we look; not for ever.
MAX_ROUNDS = 20


def marker(data_dir: Path) -> dict[str, str]:
    """What to put into a child's environment."""
    return {MARKER: str(data_dir.resolve())}


def end_orphans(data_dir: Path) -> int:
    """Kill all of them and wait until they are gone. Blocks for some milliseconds.

    :returns: how many there were.
    :raises ProcessFailed: one does not go, or new ones keep appearing.
    """
    wanted = f"{MARKER}={data_dir.resolve()}".encode()
    ended = 0
    for _ in range(MAX_ROUNDS):
        handles = _find(wanted)
        if not handles:
            return ended
        ended += len(handles)
        try:
            for handle in handles.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            _wait_gone(handles)
        finally:
            for handle in handles.values():
                os.close(handle)
    raise ProcessFailed(f"processes that use {data_dir} appear again and again")


def _find(wanted: bytes) -> dict[int, int]:
    """Process id → pidfd of every process with the marker."""
    found: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if not _marked(entry.name, wanted):
            continue
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(int(entry.name))
            if _marked(entry.name, wanted):  # still the same process as before the pidfd
                found[int(entry.name)] = handle
            else:
                os.close(handle)
    return found


def _marked(pid: str, wanted: bytes) -> bool:
    try:
        # Empty for a zombie and a kernel thread.
        return wanted in Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _wait_gone(handles: dict[int, int]) -> None:
    until = time.monotonic() + GONE_WITHIN_S
    for pid, handle in handles.items():
        left = max(0.0, until - time.monotonic())
        # A pidfd becomes readable when its process has ended (pidfd_open(2)).
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(left * 1000):
            raise ProcessFailed(f"process {pid}, left by an earlier node, cannot be killed")
