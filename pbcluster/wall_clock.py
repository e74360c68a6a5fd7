"""The wall clock, as signatures of requests have it."""

from __future__ import annotations

import time


def unix_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
