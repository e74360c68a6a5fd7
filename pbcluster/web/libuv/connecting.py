"""Connections made over streams of libuv."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    getConnectError,
)
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from pbcluster.web.libuv.transport import LibuvTransport, address_of


@implementer(IStreamClientEndpoint)
class LibuvClientEndpoint:
    """Connects to an address."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: IReactorTime,
        host: str,
        port: int,
        timeout_s: float,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._host = host
        self._port = port
        self._timeout_s = timeout_s

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``.

        :return: fails with ``ConnectError`` or one of its kinds, ``TimeoutError`` among them, or
            with CancelledError when it is cancelled.
        """
        address: IAddress = address_of((self._host, self._port))
        protocol = cast(Any, protocolFactory).buildProtocol(address)
        transport = cast(asyncio.Protocol, LibuvTransport(protocol))
        task = self._loop.create_task(
            self._loop.create_connection(lambda: transport, self._host, self._port)
        )

        def stop(_: object) -> None:
            task.cancel()

        connected: Deferred[IProtocol] = Deferred(stop)
        deadline = self._clock.callLater(self._timeout_s, task.cancel)

        def over(done: asyncio.Task[Any]) -> None:
            timed_out = not deadline.active()
            if not timed_out:
                deadline.cancel()
            if connected.called:  # it was cancelled
                if not done.cancelled() and done.exception() is None:
                    done.result()[0].abort()
            elif done.cancelled():
                connected.errback(ConnectTimeoutError() if timed_out else CancelledError())
            elif (error := done.exception()) is not None:
                connected.errback(_connect_error(error))
            else:
                connected.callback(protocol)

        task.add_done_callback(over)
        return connected


def _connect_error(error: BaseException) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        known: Exception = getConnectError((error.errno, error.strerror or str(error)))
        return known
    return ConnectError(string=str(error))
