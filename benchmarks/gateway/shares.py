"""A fixed share of a core for each process, so that cores are free whatever else runs beside it.

Where two processes of ours and their load share two cores, twice as many processes cannot do twice
as much. With a bound for each (a control group of its own) the machine has room for all, and what
is found is what they cost each other.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

#: Short, so that a process that has used its share waits for milliseconds only.
PERIOD_US = 10_000
_ROOT = Path("/sys/fs/cgroup")


class NoShares(Exception):
    """Why no shares can be given here."""


class Shares:
    """Gives processes a share of a core each.

    :param share: of one core. :raises NoShares: this process may make no such groups.
    """

    def __init__(self, share: float) -> None:
        self._quota_us = int(share * PERIOD_US)
        self._made: list[Path] = []
        self._parent, self._version = _parent()

    def give(self, pids: Iterable[int]) -> None:
        """Each of these, with all its threads, has a share of its own from now on."""
        for pid in pids:
            group = self._parent / f"bench-{uuid.uuid4().hex[:12]}"
            try:
                group.mkdir()
                self._made.append(group)
                for name, value in self._files():
                    (group / name).write_text(value)
                (group / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                raise NoShares(f"no control group for the processor's time: {error}") from None

    def stop(self) -> None:
        """Remove the groups; their processes ended, or go back where they came from."""
        for group in self._made:
            with contextlib.suppress(OSError):
                for pid in (group / "cgroup.procs").read_text().split():
                    (self._parent / "cgroup.procs").write_text(pid)
            with contextlib.suppress(OSError):
                group.rmdir()
        self._made.clear()

    def _files(self) -> list[tuple[str, str]]:
        if self._version == 2:
            return [("cpu.max", f"{self._quota_us} {PERIOD_US}")]
        return [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(self._quota_us))]


def _parent() -> tuple[Path, int]:
    """Where groups can be made, and the version of that hierarchy."""
    rows = [row.split(":", 2) for row in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, own in rows:
        if "cpu" in controllers.split(","):
            found = _ROOT / controllers / own.lstrip("/")
            if os.access(found, os.W_OK):
                return found, 1
    controllers = _ROOT / "cgroup.subtree_control"
    offered = controllers.read_text().split() if controllers.exists() else []
    if "cpu" in offered and os.access(_ROOT, os.W_OK):
        return _ROOT, 2
    raise NoShares("shares of a core take control groups that this process may make, as root may")
