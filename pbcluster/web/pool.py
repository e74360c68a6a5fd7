"""Idle upstream connections, a bounded number for each upstream, and new ones.

An idle connection is dropped sooner than upstreams drop theirs (PocketBase: five minutes; our own
front door: 60 s), and looked at before it is used again: between its end in the kernel and the
reactor telling us, a POST written to it would be lost without anyone knowing whether it was done.
What stays is the moment in which the request and the upstream's close cross on the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from pbcluster.web.client import ResponseHeads, UpstreamConnection
from pbcluster.web.streams import EndpointMaker, streams_of

#: (identity, host, port, timeout in seconds) → where to connect, and who must answer there.
SecureEndpointMaker = Callable[[str, str, int, float], IStreamClientEndpoint]

MAX_IDLE_PER_UPSTREAM = 64
#: All upstreams together: a node speaks to 200 tenants' processes.
MAX_IDLE = 1024
#: Upstreams remembered without an idle connection; above :data:`MAX_IDLE`, so that room is made.
MAX_UPSTREAMS = 2048
#: Shorter than any upstream's own limit.
IDLE_S = 30.0


def tcp_endpoints(reactor: Any) -> EndpointMaker:
    """Endpoints over the fastest streams that the reactor has."""
    return streams_of(reactor).endpoint


class _QuietFactory(Factory):
    noisy = False


class UpstreamPool:
    """Connections to all upstreams of a process.

    :param clock: for idle times and response deadlines.
    :param endpoints: makes the endpoint of an upstream, usually ``tcp_endpoints(reactor)``.
    :param secure: likewise, for upstreams that must prove who they are (``web.tls.client``).
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoints: EndpointMaker,
        *,
        secure: SecureEndpointMaker | None = None,
        max_idle_per_upstream: int = MAX_IDLE_PER_UPSTREAM,
        max_idle: int = MAX_IDLE,
        idle_s: float = IDLE_S,
    ) -> None:
        self._clock = clock
        self._endpoints = endpoints
        self._secure = secure
        self._max_idle_per_upstream = max_idle_per_upstream
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._idle: dict[tuple[str, int, str], list[UpstreamConnection]] = {}
        self._idle_count = 0
        self._closed = False
        self._heads = ResponseHeads()
        #: Connections made and requests that found an idle one, since the start.
        self.made = 0
        self.reused = 0

    @property
    def idle_count(self) -> int:
        """Idle connections of all upstreams."""
        return self._idle_count

    def take(
        self, host: str, port: int, identity: str = "", certain: bool = True
    ) -> UpstreamConnection | None:
        """An idle connection, the last used first, or None.

        :param identity: who was verified to be at its end; empty: it is without TLS.
        :param certain: look whether its end waits unread in the kernel. A system call that a
            request which can be repeated need not pay.
        """
        idle: list[UpstreamConnection] | None = self._idle.get((host, port, identity))
        while idle:
            connection: UpstreamConnection = idle.pop()
            self._idle_count -= 1
            if connection.usable(certain):
                self.reused += 1
                return connection
            connection.abort()
        return None

    def connect(
        self, host: str, port: int, timeout_s: float, identity: str = ""
    ) -> Deferred[UpstreamConnection]:
        """Make a new connection.

        :param identity: who must prove, by TLS, to be at its end; empty: without TLS.
        :return: fires with it, or fails as the endpoint's connect does; cancelling it stops.
        """
        self.made += 1
        factory = _QuietFactory.forProtocol(
            lambda: UpstreamConnection(
                self._clock, (host, port, identity), self._forget, self._heads
            )
        )
        if identity:
            assert self._secure is not None, "nobody asks for TLS who did not give the way to it"
            endpoint = self._secure(identity, host, port, timeout_s)
        else:
            endpoint = self._endpoints(host, port, timeout_s)
        return cast("Deferred[UpstreamConnection]", endpoint.connect(factory))

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose response is complete, if it can be used again and room is."""
        if self._closed or not connection.reusable() or self._idle_count >= self._max_idle:
            connection.abort()
            return
        idle: list[UpstreamConnection] | None = self._idle.get(connection.key)
        if idle is None:
            idle = self._new_upstream(connection.key)
        if len(idle) >= self._max_idle_per_upstream:
            connection.abort()
            return
        idle.append(connection)
        self._idle_count += 1
        connection.rest(self._idle_s)

    def _new_upstream(self, key: tuple[str, int, str]) -> list[UpstreamConnection]:
        if len(self._idle) >= MAX_UPSTREAMS:
            for unused in [key for key, idle in self._idle.items() if not idle]:
                del self._idle[unused]
        idle: list[UpstreamConnection] = []
        self._idle[key] = idle
        return idle

    def drop(self, host: str, port: int, identity: str = "") -> None:
        """Close the idle connections of an upstream that is about to end."""
        for connection in tuple(self._idle.get((host, port, identity), ())):
            self._forget(connection)
            connection.abort()

    def close(self) -> None:
        """Close all idle connections and keep none from now on."""
        self._closed = True
        for host, port, identity in tuple(self._idle):
            self.drop(host, port, identity)

    def _forget(self, connection: UpstreamConnection) -> None:
        idle = self._idle.get(connection.key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            self._idle_count -= 1
