"""Which streams the services use: libuv's where the event loop is uvloop's, else Twisted's own,
with less work for each read and write where the reactor watches descriptors (``epoll``).

All stand behind the same interfaces; tests run on all.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.posixbase import PosixReactorBase

from pbcluster.web.epoll.transports import EpollTCP
from pbcluster.web.libuv.connecting import LibuvClientEndpoint
from pbcluster.web.libuv.listening import LibuvPort
from pbcluster.web.listening import bind_alone

#: (host, port, connect timeout in seconds) → where to connect.
EndpointMaker = Callable[[str, int, float], IStreamClientEndpoint]


class Streams(Protocol):
    """Makes listening ports and connections."""

    name: str

    def endpoint(self, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
        """Where to connect. :param host: an IP address or a name."""

    def listen(self, bound: socket.socket, factory: Any) -> IListeningPort:
        """Accept for a factory from a socket that listens; it is left open (``listening``)."""


class TwistedStreams:
    """Twisted's own transports."""

    name = "twisted"

    def __init__(self, reactor: Any) -> None:
        """
        :param reactor: provides ``connectTCP``, ``adoptStreamPort`` and IReactorTime.
        """
        self._reactor = reactor

    def endpoint(self, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
        """See :class:`Streams`."""
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        return cast(IStreamClientEndpoint, kind(self._reactor, host, port, timeout=timeout_s))

    def listen(self, bound: socket.socket, factory: Any) -> IListeningPort:
        """See :class:`Streams`."""
        port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        return cast(IListeningPort, port)


class LibuvStreams:
    """Streams of libuv."""

    name = "libuv"

    def __init__(self, reactor: Any, loop: Any) -> None:
        """
        :param reactor: provides IReactorTime. :param loop: uvloop's event loop below it.
        """
        self._reactor = reactor
        self._loop = loop

    def endpoint(self, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
        """See :class:`Streams`."""
        return LibuvClientEndpoint(self._loop, self._reactor, host, port, timeout_s)

    def listen(self, bound: socket.socket, factory: Any) -> IListeningPort:
        """See :class:`Streams`."""
        port = LibuvPort(self._loop, bound.dup(), factory)
        port.startListening()
        return cast(IListeningPort, port)


def listen_alone(streams: Streams, host: str, port: int, factory: Any) -> IListeningPort:
    """Listen at an address that nobody else has, and let it go with the port.

    :param host: an IP address. :param port: 0: any free one.
    :raises CannotListenError: the address cannot be had.
    """
    with bind_alone(host, port) as bound:
        return streams.listen(bound, factory)


def streams_of(reactor: Any) -> Streams:
    """The fastest that the reactor has."""
    loop = getattr(reactor, "loop", None)
    if loop is not None and type(loop).__module__.partition(".")[0] == "uvloop":
        return LibuvStreams(reactor, loop)
    real = isinstance(reactor, PosixReactorBase)
    return TwistedStreams(EpollTCP.of(reactor) if real else reactor)


__all__ = [
    "EndpointMaker",
    "LibuvStreams",
    "Streams",
    "TwistedStreams",
    "listen_alone",
    "streams_of",
]
