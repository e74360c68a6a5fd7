"""What was read from header fields, remembered by the very bytes that it was read from.

Pure. A client sends the same field lines with nearly every request of a connection, and a server
the same head with many of its answers: the rules need not judge the same bytes twice. Only what
passed every check is remembered, so a memory changes nothing but the time it takes.
"""

from __future__ import annotations

from typing import Any

#: Entries; with :data:`MAX_BLOCK_BYTES` a bound of some 20 MiB for what was read from them.
MAX_BLOCKS = 2048
#: Longer blocks are read anew each time: they are rare, and cookies make each of them unique.
MAX_BLOCK_BYTES = 2048


class Remembered:
    """Block of bytes → what was read from it; the oldest goes first.

    :ivar known: for looking up, not for changing.
    """

    __slots__ = ("_max_blocks", "known")

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self.known: dict[bytes, Any] = {}
        self._max_blocks = max_blocks

    def put(self, block: bytes, value: Any) -> None:
        """Remember ``value``; a block that is too long is not."""
        if len(block) > MAX_BLOCK_BYTES:
            return
        known = self.known
        while len(known) >= self._max_blocks:
            del known[next(iter(known))]
        known[block] = value
