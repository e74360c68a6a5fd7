"""Twisted's TCP transports over :mod:`pbcluster.web.epoll.waiting`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from twisted.internet import tcp
from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.python.failure import Failure

from pbcluster.web.epoll.shortcut import Shortcut
from pbcluster.web.epoll.waiting import EpollSet


class _ShortCut(tcp.Connection):
    """A connection with a short way, as long as nothing else is to be done first.

    :ivar shortcut: see there; None until the connection stands, and when it is lost.
    """

    shortcut: Shortcut | None = None

    def startReading(self) -> None:
        """See Twisted's, which calls it when the connection has its protocol, before all else."""
        if self.shortcut is None and self.protocol is not None:
            self.shortcut = Shortcut(self, super().write)
            self.shortcut.open(self.socket, self.protocol.dataReceived)
            # Whoever writes much asks for it once.
            self.write = self.shortcut.write  # type: ignore[method-assign]
        super().startReading()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """See ``ITransport``."""
        self.write(b"".join(iovec))

    def doWrite(self) -> Any:
        """See ``IWriteDescriptor``. When all is sent, the short way is open again."""
        shortcut = self.shortcut
        if shortcut is not None:
            shortcut.flush()
        why = super().doWrite()
        waits = self.dataBuffer or self._tempDataLen or self._pulls()
        if shortcut is not None and self.connected and not waits:
            shortcut.send_at_once(self.socket)
        return why

    def _pulls(self) -> bool:
        """Its producer is asked for each piece, when the one before is sent."""
        return self.producer is not None and not self.streamingProducer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See ``IConsumer``."""
        if not streaming and self.shortcut is not None:
            self.shortcut.send_later()
        super().registerProducer(producer, streaming)

    def startTLS(self, *args: Any, **kwargs: Any) -> Any:
        """See ``ITLSTransport``: from now on another protocol receives and sends."""
        if self.shortcut is not None:
            self.shortcut.flush()
        self._close()
        return super().startTLS(*args, **kwargs)

    def abortConnection(self) -> None:
        """See ``ITCPTransport``."""
        self._close()
        super().abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``. Protocol and transport let go of each other."""
        self._close()
        super().connectionLost(reason)
        self.shortcut = None
        with suppress(AttributeError):
            del self.write

    def _close(self) -> None:
        if self.shortcut is not None:
            self.shortcut.close()


class _Server(_ShortCut, tcp.Server):
    """A connection that was accepted."""


class _Client(_ShortCut, tcp.Client):
    """A connection that is made."""


class _Port(tcp.Port):
    """A listening socket."""

    transport = _Server


class _Connector(tcp.Connector):
    """Who connects."""

    def _makeTransport(self) -> _Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)


class EpollTCP(EpollSet):
    """Makes connections and ports; for Twisted's TCP client endpoints it is a reactor.

    Only connections of one such are served together, so a reactor has one (:meth:`of`).
    """

    _known: ClassVar[WeakValueDictionary[int, EpollTCP]] = WeakValueDictionary()

    @classmethod
    def of(cls, reactor: Any) -> EpollTCP:
        """The one of a reactor, as long as anybody uses it."""
        # It holds the reactor: as long as it lives, no other object has the same id.
        found = cls._known.get(id(reactor))
        if found is None:
            found = cls._known[id(reactor)] = cls(reactor)
        return found

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> IConnector:
        """See ``IReactorTCP``."""
        self.watch_on()
        made = _Connector(host, port, factory, timeout, bindAddress, self)
        made.connect()
        return made

    def adoptStreamPort(self, fileDescriptor: int, family: int, factory: Any) -> IListeningPort:
        """See ``IReactorSocket``."""
        self.watch_on()
        port: _Port = _Port._fromListeningDescriptor(self, fileDescriptor, family, factory)
        port.startListening()
        return port
