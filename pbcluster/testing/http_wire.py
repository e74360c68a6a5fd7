"""Connections in memory between the proxy core and the ends of a test.

A :class:`Far` end is a client or an upstream, :class:`Near` the transport that the core has of it.
What they and the core write is delivered in order by :meth:`Wire.run`, never within the write, as
on real transports. Nothing here knows HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

#: Rounds of delivery in one :meth:`Wire.run`; more means that two ends answer each other for ever.
MAX_DELIVERIES = 200_000


class Wire:
    """Delivers what ends of connections wrote, in order."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()

    def later(self, what: Callable[[], None]) -> None:
        """Do ``what`` when everything before it is done."""
        self._queue.append(what)

    def run(self) -> None:
        """Deliver until nothing is left. :raises RuntimeError: it never ends."""
        for _ in range(MAX_DELIVERIES):
            if not self._queue:
                return
            self._queue.popleft()()
        raise RuntimeError("ends of connections answer each other for ever")


class Far:
    """The far end of a connection of the core: a client, or an upstream.

    :ivar received: all bytes from the core. :ivar ended: how the core ended it: "closed" (at least
        its sending side), "aborted", or "".
    """

    def __init__(self, wire: Wire, protocol: Any) -> None:
        self.received = b""
        self.ended = ""
        self.near = Near(wire, self, protocol)
        self._wire = wire

    def send(self, data: bytes) -> None:
        """Send bytes to the core."""
        self._wire.later(lambda: self.near.arrive(data))

    def close(self) -> None:
        """Close the connection."""
        self._wire.later(lambda: self.near.lose(ConnectionDone()))

    def reset(self) -> None:
        """Reset it."""
        self._wire.later(lambda: self.near.lose(ConnectionLost()))

    def heard(self, data: bytes) -> None:
        """Bytes came from the core."""
        self.received += data

    def over(self, how: str) -> None:
        """The core ended the connection."""
        self.ended = self.ended or how


@implementer(ITransport)
class Near:
    """The core's transport."""

    def __init__(self, wire: Wire, far: Far, protocol: Any) -> None:
        self.protocol = protocol
        self.connected = True
        self.disconnecting = False
        self._wire = wire
        self._far = far
        self._reading = True
        self._waiting: list[bytes] = []
        self._lost: Exception | None = None
        self._shut = False

    # -- for the core -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if self.connected and not self.disconnecting and not self._shut and data:
            self._wire.later(lambda: self._far.heard(data))

    def writeSequence(self, data: Any) -> None:
        """See ITransport."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """See ITransport."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._wire.later(lambda: self._far.over("closed"))
            self._wire.later(lambda: self.lose(ConnectionDone()))

    def loseWriteConnection(self) -> None:
        """See IHalfCloseableDescriptor."""
        if not self._shut:
            self._shut = True
            self._wire.later(lambda: self._far.over("closed"))

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        if self.connected:
            self.disconnecting = True
            self._wire.later(lambda: self._far.over("aborted"))
            self._wire.later(lambda: self.lose(ConnectionAborted()))

    def getPeer(self) -> IPv4Address:
        """See ITransport."""
        return IPv4Address("TCP", "192.0.2.1", 50000)

    def getHost(self) -> IPv4Address:
        """See ITransport."""
        return IPv4Address("TCP", "192.0.2.2", 80)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See IConsumer: the far ends here take everything at once."""

    def unregisterProducer(self) -> None:
        """See IConsumer."""

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self._reading = False

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._reading = True
        self._wire.later(self._deliver)

    def stopProducing(self) -> None:
        """See IPushProducer."""
        self.loseConnection()

    # -- for the far end --------------------------------------------------------------------------

    def arrive(self, data: bytes) -> None:
        """Bytes of the far end are there."""
        self._waiting.append(data)
        self._deliver()

    def lose(self, error: Exception) -> None:
        """The connection is over."""
        self._lost = self._lost or error
        self._deliver()

    def _deliver(self) -> None:
        while self._reading and self._waiting and self.connected:
            if self.disconnecting:
                self._waiting.clear()
                break
            self.protocol.dataReceived(self._waiting.pop(0))
        ours = self.disconnecting or not self._waiting
        if self._lost is not None and self.connected and ours:
            self.connected = False
            self.protocol.connectionLost(Failure(self._lost))
