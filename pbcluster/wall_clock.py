"""The wall clock, as signatures of requests have it."""

from __future__ import annotations

from time import time_ns


def unix_ms() -> int:
    """Unix milliseconds."""
    return time_ns() // 1_000_000
