"""Listening sockets whose connections are streams of libuv."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    CannotListenError,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from zope.interface import implementer

from pbcluster.web.libuv.transport import LibuvTransport, address_of
from pbcluster.web.listening import BACKLOG, bind_alone

log = Logger()


class _Refused(Protocol):
    """Stands where a factory wants no protocol."""

    def connectionMade(self) -> None:
        cast(LibuvTransport, self.transport).abortConnection()


@implementer(IListeningPort)
class LibuvPort:
    """A listening socket whose connections go to a factory.

    Twisted's ports stand on their reactor; this one on the event loop below it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: socket.socket, factory: Any) -> None:
        """
        :param bound: the socket, bound and listening; it is this port's from now on.
        :param factory: provides IProtocolFactory.
        """
        self._loop = loop
        self._socket = bound
        self._factory = factory
        self._host = address_of(bound.getsockname())
        self._server: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._stopped = False

    def startListening(self) -> None:
        """Take connections from the next turn of the loop on; until then they wait."""
        self._factory.doStart()
        self._starting = self._loop.create_task(self._start())

    async def _start(self) -> None:
        if self._stopped:
            return
        self._server = await self._loop.create_server(
            self._build, sock=self._socket, backlog=BACKLOG
        )
        if self._stopped:
            self._server.close()

    def _build(self) -> asyncio.Protocol:
        try:
            protocol = self._factory.buildProtocol(None)
        except Exception:
            log.failure("a factory failed")
            protocol = None
        made = LibuvTransport(protocol if protocol is not None else cast(IProtocol, _Refused()))
        return cast(asyncio.Protocol, made)

    def stopListening(self) -> Deferred[None]:
        """Take no more connections; those that are there stay.

        :return: fires when the socket is closed.
        """
        if self._stopped:
            return succeed(None)
        self._stopped = True
        self._factory.doStop()
        if self._server is None:
            self._socket.close()
            return succeed(None)
        self._server.close()
        # libuv closes the descriptor in its own next turn.
        closed: Deferred[None] = Deferred()
        self._loop.call_later(0, self._loop.call_soon, closed.callback, None)
        return closed

    def turn(self) -> Deferred[None]:
        """Fires after one turn of the loop, in which it took what waited to be accepted."""
        turned: Deferred[None] = Deferred()
        self._loop.call_soon(self._loop.call_soon, turned.callback, None)
        return turned

    def getHost(self) -> IPv4Address | IPv6Address:
        """Where it listens."""
        return self._host


@implementer(IStreamServerEndpoint)
class LibuvServerEndpoint:
    """Listens at an address; ``libuv:PORT:interface=HOST`` as an endpoint's description."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        self._loop = loop
        self._host = host
        self._port = port

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``."""
        try:
            port = LibuvPort(self._loop, bind_alone(self._host, self._port), protocolFactory)
        except CannotListenError:
            return fail()
        port.startListening()
        return succeed(cast(IListeningPort, port))
