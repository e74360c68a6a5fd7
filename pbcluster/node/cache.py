"""Which tenants are loaded on this node, and which must go when room is needed.

Least recently used first, of those that may go: one with open requests never does; one with only
event streams may after they have been open for :data:`STREAM_PIN_S` (their clients reconnect).
Pure: it decides, ``tenants`` acts; times are seconds of the injected clock.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

#: An event stream keeps its tenant loaded for so long; its client reconnects when it is closed.
STREAM_PIN_S = 1800.0


class Use:
    """How one loaded tenant is used.

    :ivar last_access: when its last request began or ended. :ivar requests: open now, streams left
        out. :ivar streams: event streams open now. :ivar streams_since: when the first began.
    """

    def __init__(self, last_access: float) -> None:
        self.last_access = last_access
        self.requests = 0
        self.streams = 0
        self.streams_since = 0.0

    def may_go(self, now: float) -> bool:
        """Whether stopping it now harms nobody who cannot simply reconnect."""
        pinned = self.streams > 0 and now - self.streams_since < STREAM_PIN_S
        return self.requests == 0 and not pinned


class Cache:
    """The loaded tenants of a node, in the order of their last use.

    :ivar capacity: how many may be loaded. :ivar hits: requests for tenants that were loaded.
    :ivar misses: requests for others. :ivar evictions: tenants stopped for room.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._uses: dict[str, Use] = {}
        #: The last of them, so that a burst of requests moves it once.
        self._newest: Use | None = None

    def __len__(self) -> int:
        return len(self._uses)

    def __contains__(self, tenant_id: str) -> bool:
        return tenant_id in self._uses

    def add(self, tenant_id: str, now: float) -> None:
        """It begins to load: it takes a place."""
        if tenant_id not in self._uses:
            self._newest = self._uses[tenant_id] = Use(now)

    def remove(self, tenant_id: str) -> None:
        """It is gone from memory; its place is free."""
        self._uses.pop(tenant_id, None)

    def asked(self, tenant_id: str) -> None:
        """A request came for it: count whether it was loaded."""
        if tenant_id in self._uses:
            self.hits += 1
        else:
            self.misses += 1

    def opened(self, tenant_id: str, now: float) -> None:
        """A request of it was handed on."""
        if tenant_id in self._uses:
            use = self._touch(tenant_id, now)
            use.requests += 1

    def became_stream(self, tenant_id: str, now: float) -> None:
        """An open request turned out to be an event stream."""
        use = self._uses.get(tenant_id)
        if use is not None and use.requests > 0:
            use.requests -= 1
            use.streams += 1
            if use.streams == 1:
                use.streams_since = now

    def closed(self, tenant_id: str, now: float, stream: bool) -> None:
        """A request (or stream) of it ended."""
        if tenant_id not in self._uses:
            return
        use = self._touch(tenant_id, now)
        if stream:
            use.streams = max(0, use.streams - 1)
        else:
            use.requests = max(0, use.requests - 1)

    def open_requests(self, tenant_id: str) -> int:
        """Its open requests, streams left out."""
        use = self._uses.get(tenant_id)
        return use.requests if use is not None else 0

    def victim(self, now: float, busy: AbstractSet[str] = frozenset()) -> str | None:
        """The tenant that must go so that another one fits; None: nothing may go, or there is room.

        The caller evicts it and counts it by :meth:`evicted`.

        :param busy: these are being loaded or stopped: not now.
        """
        if self.has_room():
            return None
        names = (name for name, use in self._uses.items() if use.may_go(now))
        return next((name for name in names if name not in busy), None)

    def has_room(self) -> bool:
        """Whether one more fits now."""
        return len(self._uses) < self.capacity

    def evicted(self) -> None:
        """A victim was stopped."""
        self.evictions += 1

    def idle(self, now: float, idle_stop_s: float) -> list[str]:
        """Tenants without a request for ``idle_stop_s``, least recently used first."""
        found = []
        for name, use in self._uses.items():
            if now - use.last_access >= idle_stop_s and use.may_go(now):
                found.append(name)
        return found

    def _touch(self, tenant_id: str, now: float) -> Use:
        use: Use = self._uses[tenant_id]
        use.last_access = now
        if use is not self._newest:
            self._newest = use
            del self._uses[tenant_id]
            self._uses[tenant_id] = use
        return use
