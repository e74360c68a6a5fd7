"""One connection over a stream of libuv."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import classImplements

from pbcluster.web.limits import HIGH_WATER_BYTES

#: A paused producer goes on when no more than so many bytes wait to be sent.
LOW_WATER_BYTES = HIGH_WATER_BYTES // 4
_DONE = Failure(ConnectionDone())


def address_of(name: Any) -> IPv4Address | IPv6Address:
    """Twisted's form of what ``getsockname`` and ``getpeername`` give."""
    if name is None:  # the peer is gone already
        return IPv4Address("TCP", "0.0.0.0", 0)
    kind = IPv6Address if ":" in name[0] else IPv4Address
    return kind("TCP", name[0], name[1])


class LibuvTransport:
    """One connection: the loop's protocol (an ``asyncio.Protocol`` by its methods) on one side, the
    protocol's transport on the other."""

    __slots__ = ("_aborted", "_ended", "_producer", "_protocol", "_stream", "_write")

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol: Any = protocol
        self._stream: Any = None
        #: The stream's ``write``, looked up once.
        self._write: Any = None
        self._producer: Any = None
        #: The connection is to end; nothing more is written.
        self._ended = False
        self._aborted = False

    # -- from the loop ----------------------------------------------------------------------------

    @property
    def data_received(self) -> Callable[[bytes], None]:
        """The protocol's own method: the loop asks once and then calls it directly."""
        received: Callable[[bytes], None] = self._protocol.dataReceived
        return received

    def connection_made(self, transport: Any) -> None:
        """The connection stands."""
        self._stream = transport
        self._write = transport.write
        transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self._protocol.makeConnection(self)

    def eof_received(self) -> bool:
        """The peer closed its sending side: it is gone."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is over."""
        self._ended = True
        self._producer = None
        reason = _DONE
        if self._aborted:
            reason = Failure(ConnectionAborted())
        elif error is not None:
            reason = Failure(ConnectionLost(str(error)))
        self._protocol.connectionLost(reason)

    def pause_writing(self) -> None:
        """Too much waits to be sent."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        """Little waits to be sent."""
        if self._producer is not None:
            self._producer.resumeProducing()

    # -- from the protocol ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        """Whether the connection is to end."""
        return self._ended

    def write(self, data: bytes) -> None:
        """Send bytes; what is written within one turn of the loop is sent together."""
        if not self._ended:
            self._write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """End when all is sent."""
        self._ended = True
        self._stream.close()

    def loseWriteConnection(self) -> None:
        """Send no more; go on receiving."""
        if not self._ended:
            self._ended = True
            self._stream.write_eof()

    def abortConnection(self) -> None:
        """End now."""
        self._ended = True
        if not self._aborted and self._stream is not None:
            self._aborted = True
            _reset_on_close(self._stream)
            self._stream.abort()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer`` while the peer is slow.

        :raises NotImplementedError: it has to be asked for each piece.
        """
        if not streaming:
            raise NotImplementedError("only producers that go on by themselves")
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Tell it nothing more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Receive nothing for now."""
        if self._stream is not None and not self._stream.is_closing():
            self._stream.pause_reading()

    def resumeProducing(self) -> None:
        """Receive again."""
        if self._stream is not None and not self._stream.is_closing():
            self._stream.resume_reading()

    def stopProducing(self) -> None:
        """The same as an end."""
        self.loseConnection()

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The other side's address."""
        return address_of(self._stream.get_extra_info("peername"))

    def getHost(self) -> IPv4Address | IPv6Address:
        """This side's address."""
        return address_of(self._stream.get_extra_info("sockname"))

    def getHandle(self) -> Handle:
        """The socket, for options and for asking whether something waits in it."""
        return Handle(self._stream.get_extra_info("socket"))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing: the loop has switched Nagle's algorithm off already."""

    def getTcpNoDelay(self) -> bool:
        """Always."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Let the kernel ask an idle peer whether it is there."""
        self.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(enabled))

    def getTcpKeepAlive(self) -> bool:
        """Whether the kernel does."""
        option = self.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return bool(option)


# A decorator would keep it from becoming an extension type (pbcluster.compiled).
classImplements(LibuvTransport, ITCPTransport, IPushProducer, IConsumer)


class Handle:
    """The part of a socket that a connection's owner may use beside the loop."""

    def __init__(self, loops: Any) -> None:
        """
        :param loops: the loop's own stand-in for the socket.
        """
        self._loops = loops

    def fileno(self) -> int:
        """Its descriptor."""
        number: int = self._loops.fileno()
        return number

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """See ``socket.socket.setsockopt``."""
        self._loops.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        """See ``socket.socket.getsockopt``."""
        value: int = self._loops.getsockopt(level, option)
        return value


def _reset_on_close(stream: Any) -> None:
    try:
        handle = stream.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, RuntimeError, AttributeError):
        pass  # it is closed already
