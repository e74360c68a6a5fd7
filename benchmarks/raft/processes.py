"""Processes of a system under measurement: started, frozen, killed and weighed by their ids."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WITHIN_S = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def disk_bytes(directory: Path) -> int:
    """What a directory takes on the disk (sparse files by their blocks)."""
    return sum(each.stat().st_blocks * 512 for each in directory.rglob("*") if each.is_file())


def freeze(pids: Mapping[str, int]) -> None:
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)


def thaw(pids: Mapping[str, int]) -> None:
    for pid in pids.values():
        os.kill(pid, signal.SIGCONT)


def wait_until(happened: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """:raises TimeoutError: it did not."""
    until = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {within_s:.0f} s for {what}")
        time.sleep(0.02)


class Client:
    """A client process: gets one job as JSON, prints one line of JSON when it is done.

    :param module: of ``benchmarks.raft``, or with its own package before a dot.
    """

    def __init__(self, module: str, job: Mapping[str, Any]) -> None:
        path = f"benchmarks.{module}" if "." in module else f"benchmarks.raft.{module}"
        command = [sys.executable, "-m", path, json.dumps(job)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill9(self) -> None:
        """SIGKILL, as a machine dies. It gives no result."""
        self._process.kill()
        self._process.communicate()

    def ready(self, within_s: float = WITHIN_S) -> None:
        """Wait for its word that it has begun.

        :raises RuntimeError: it ended instead, or did not say so within ``within_s`` seconds.
        """
        output = self._process.stdout
        assert output is not None
        told, _, _ = select.select([output], [], [], within_s)
        if not told or not output.readline():
            how = "it ended" if told else f"not within {within_s:.0f} s"
            raise RuntimeError(f"a client has not begun: {how}")

    def result(self) -> dict[str, Any]:
        """Tell it to stop (a load ends by itself) and wait for its figures."""
        output, _ = self._process.communicate(timeout=WITHIN_S * 2)
        if self._process.returncode:
            raise RuntimeError(f"a client ended with {self._process.returncode}")
        return dict(json.loads(output.strip().splitlines()[-1]))
