"""What this machine has left: read from /proc and the file system for the heartbeat."""

from __future__ import annotations

import os
from pathlib import Path

from pbcluster.records import NodeResources

#: More than this share of memory or disk in use makes a node degraded.
DEGRADED_SHARE = 0.9


class Resources:
    """Reads the figures; CPU use is that since the last reading."""

    def __init__(self, data_dir: Path, proc: Path = Path("/proc")) -> None:
        self._data_dir = data_dir
        self._proc = proc
        self._last = self._cpu_ticks()

    def read(self) -> NodeResources:
        """The figures of now. What cannot be read is 0."""
        busy, whole = self._cpu_ticks()
        spent, passed = busy - self._last[0], whole - self._last[1]
        self._last = (busy, whole)
        memory = self._memory()
        try:
            disk = os.statvfs(self._data_dir)
            disk_total = disk.f_blocks * disk.f_frsize
            disk_used = disk_total - disk.f_bavail * disk.f_frsize
        except OSError:
            disk_total = disk_used = 0
        total = memory.get("MemTotal", 0)
        return NodeResources(
            cpu_usage=round(spent / passed, 3) if passed > 0 else 0.0,
            memory_used_bytes=total - memory.get("MemAvailable", total),
            memory_total_bytes=total,
            disk_used_bytes=disk_used,
            disk_total_bytes=disk_total,
        )

    def _cpu_ticks(self) -> tuple[int, int]:
        """(busy, all) ticks since the machine's start."""
        try:
            first = (self._proc / "stat").read_text().partition("\n")[0].split()[1:]
        except OSError:
            return 0, 0
        ticks = [int(word) for word in first[:8]]
        idle = sum(ticks[3:5])  # idle and waiting for a disk
        return sum(ticks) - idle, sum(ticks)

    def _memory(self) -> dict[str, int]:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
        except OSError:
            return {}
        rows = (line.split() for line in lines[:3])
        return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def is_short(resources: NodeResources) -> bool:
    """Whether memory or disk is nearly full."""
    pairs = (
        (resources.memory_used_bytes, resources.memory_total_bytes),
        (resources.disk_used_bytes, resources.disk_total_bytes),
    )
    return any(total and used / total > DEGRADED_SHARE for used, total in pairs)
