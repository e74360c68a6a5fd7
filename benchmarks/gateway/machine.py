"""The machine on which figures were taken, in words."""

from __future__ import annotations

import os
from pathlib import Path


def machine() -> str:
    """Its cores and its processor's name."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return f"{os.cpu_count()} cores of {model}"
