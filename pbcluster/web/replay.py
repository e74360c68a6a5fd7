"""A request's body between the client and the attempts to forward it.

Pure. Until an attempt reads it, the body waits here, and its sender is paused at 64 KiB. What
an attempt was given is kept as long as it is small, so that another attempt can start again from
the first byte. The memory of all kept bodies together is bounded by :class:`ReplayBudget`; a body
that finds no room is still forwarded, but once.
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.web.limits import HIGH_WATER_BYTES, REPLAY_BYTES, REPLAY_TOTAL_BYTES

#: Takes body bytes (perhaps none) and whether they are the last.
Sink = Callable[[bytes, bool], None]


class ReplayBudget:
    """Counts the bytes that all requests of a process keep."""

    def __init__(self, limit_bytes: int = REPLAY_TOTAL_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Reserve room; False if there is not enough."""
        if self.used_bytes + size_bytes > self.limit_bytes:
            return False
        self.used_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Return reserved room."""
        self.used_bytes -= size_bytes


class Body:
    """What a body can do. Itself it is that of all requests without one: nothing of it can come, be
    kept or be lost. One that comes is a :class:`RequestBody`.

    :ivar complete: its last byte came from the client.
    :ivar whole: everything that came is still here, so an attempt can begin (again).
    :ivar received_bytes: how much came from the client.
    """

    __slots__ = ("complete", "received_bytes", "whole")

    def __init__(self) -> None:
        self.complete = True
        self.whole = True
        self.received_bytes = 0

    def crowded(self) -> bool:
        """Whether the client has to be paused: nobody reads, and enough is waiting."""
        return False

    def received(self, data: bytes, complete: bool) -> None:
        """Bytes from the client; ``complete`` with the last ones."""

    def open(self, sink: Sink) -> bytes:
        """Begin an attempt.

        :param sink: gets all bytes that come later.
        :return: the bytes from the body's first one to now; only if ``whole``.
        """
        return b""

    def close(self) -> None:
        """The attempt is over; what comes now waits for the next one."""

    def stop_keeping(self) -> None:
        """No further attempt will be made; the one under way still gets what comes."""

    def forget(self) -> None:
        """Nothing is kept any more, so no attempt can begin."""


NO_BODY = Body()


class RequestBody(Body):
    """One request's body."""

    __slots__ = ("_budget", "_charged", "_kept", "_kept_bytes", "_sink")

    def __init__(self, budget: ReplayBudget, complete: bool) -> None:
        super().__init__()
        self._budget = budget
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._charged = 0
        self._sink: Sink | None = None
        self.complete = complete

    def crowded(self) -> bool:
        """See :class:`Body`."""
        if self._sink is not None or self.complete:
            return False
        return self._kept_bytes >= HIGH_WATER_BYTES or self._charged < self._kept_bytes

    def received(self, data: bytes, complete: bool) -> None:
        """See :class:`Body`."""
        self.received_bytes += len(data)
        self.complete = complete
        if self.whole and data:
            self._keep(data)
        if self._sink is not None:
            self._sink(data, complete)

    def open(self, sink: Sink) -> bytes:
        """See :class:`Body`."""
        kept = b"".join(self._kept)
        self._sink = sink
        if self._kept_bytes > REPLAY_BYTES or self._charged < self._kept_bytes:
            self.forget()
        return kept

    def close(self) -> None:
        """See :class:`Body`."""
        self._sink = None

    def stop_keeping(self) -> None:
        """See :class:`Body`."""
        if self.whole:
            self.forget()

    def forget(self) -> None:
        """See :class:`Body`."""
        self.whole = False
        self._budget.give_back(self._charged)
        self._kept = []
        self._kept_bytes = self._charged = 0

    def _keep(self, data: bytes) -> None:
        size = len(data)
        fits = self._kept_bytes + size <= REPLAY_BYTES and self._budget.take(size)
        if not fits and self._sink is not None:
            self.forget()
            return
        # Without a reader the bytes have no other place, charged or not; the sender is paused.
        self._kept.append(data)
        self._kept_bytes += size
        if fits:
            self._charged += size
