"""A worker as its master sees it: a process that is ordered about, tells, and ends.

What holds: a line that it tells is bounded. It decides nothing: which workers run is for ``crew``
to say, and what a worker does stands in ``worker``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import pbcluster
from pbcluster import processes, sd_notify
from pbcluster.gateway import worker

#: Longest line that a worker tells.
MAX_TOLD_BYTES = 4096


class WorkerProcess(ProcessProtocol):
    """A running worker.

    :ivar metrics: base URL of its own pages; empty before it serves.
    """

    transport: Any

    def __init__(
        self, told: Callable[[dict[str, Any]], None], ended: Callable[[str], None]
    ) -> None:
        self.metrics = ""
        self._told = told
        self._ended = ended
        self._line = b""

    def order(self, text: str) -> None:
        """Send an order."""
        if self.transport is not None:
            self.transport.writeToChild(worker.ORDERS_FD, text.encode() + b"\n")

    def signal(self, name: str) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It tells something."""
        self._line = (self._line + data)[:MAX_TOLD_BYTES]
        if b"\n" in self._line:
            line, _, self._line = self._line.partition(b"\n")
            self._told(json.loads(line))

    def childConnectionLost(self, childFD: int) -> None:
        """A pipe is closed; its end is told by ``processExited``."""

    def processExited(self, reason: Failure) -> None:
        """It is gone."""
        self._ended(processes.how_ended(reason))


def environment() -> dict[str, str]:
    """Ours, and where the workers find this very package."""
    found = dict(os.environ)
    found.pop(sd_notify.VARIABLE, None)  # who serves, the master alone tells
    root = Path(pbcluster.__file__).parent.parent
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    if root not in installed:
        more = found.get("PYTHONPATH")
        found["PYTHONPATH"] = f"{root}{os.pathsep}{more}" if more else str(root)
    return found
