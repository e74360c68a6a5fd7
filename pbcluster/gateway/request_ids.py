"""Ids of requests: 128 random bits each, fetched from the kernel for many at a time. Pure."""

from __future__ import annotations

from collections.abc import Callable

_ID_BYTES = 16
#: Ids fetched at once; a process that forks must not share them.
AT_ONCE = 256


class RequestIds:
    """Makes ids."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        """
        :param random_bytes: gives so many random bytes, as ``os.urandom``.
        """
        self._random_bytes = random_bytes
        self._ready: list[str] = []

    def new(self) -> str:
        """A fresh id, 32 hexadecimal digits."""
        ready = self._ready
        if not ready:
            self._fetch(ready)
        return ready.pop()

    def _fetch(self, ready: list[str]) -> None:
        ready.extend(self._random_bytes(_ID_BYTES * AT_ONCE).hex(" ", _ID_BYTES).split(" "))
