"""The ports at which a node listens, and the connections that come in and go out by them.

What holds: a port is the node's alone, and what cannot be had is said with the option that names it
(``ConfigError``). All ports share one pool of connections to PocketBases and one bound on what may
come in. It knows no request: each port has its handler.
"""

from __future__ import annotations

from typing import Any, cast

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from pbcluster import descriptors, signing
from pbcluster.errors import ConfigError
from pbcluster.node.front_tls import FrontTLS
from pbcluster.web.interfaces import RequestHandler
from pbcluster.web.limits import HeadLimits, Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.streams import listen_alone, streams_of

#: The gateway bounds heads and bodies; what it lets through, with what it adds, is let in here. It
#: closes idle connections before the node does, so that no request meets a closing one.
LIMITS = Limits(
    head=HeadLimits(fields_bytes=24 * 1024, fields=128), max_body_bytes=2**40, keep_alive_s=90.0
)
#: What is under way at the very end may finish within this time.
LAST_DRAIN_S = 1.0


class Ports:
    """See the module."""

    def __init__(self, reactor: Any) -> None:
        """
        :param reactor: TCP and time.
        """
        self._reactor = reactor
        self._pool = UpstreamPool(reactor, tcp_endpoints(reactor))
        fit = descriptors.fit_connections(LIMITS.max_connections)
        self._limits = attrs.evolve(LIMITS, max_connections=fit)
        self._listening: list[IListeningPort] = []
        self._factories: list[HTTPServerFactory] = []

    def listen(
        self,
        handler: RequestHandler,
        where: tuple[str, int],
        option: str,
        tls: FrontTLS | None = None,
    ) -> str:
        """Serve ``handler``.

        :param option: the setting that says where, for whom it may concern.
        :returns: its URL. :raises ConfigError: the port cannot be had.
        """
        host, port = where
        factory = HTTPServerFactory(
            handler, self._limits, self._reactor, pool=self._pool, apart=signing.SIGNED
        )
        outer = factory if tls is None else tls.before(factory)
        try:
            listening = listen_alone(streams_of(self._reactor), host, port, outer)
        except CannotListenError as error:
            raise ConfigError(
                f"cannot listen at {host}:{port} (--{option}): {error.socketError.strerror}"
            ) from None
        self._listening.append(listening)
        self._factories.append(factory)
        real = cast(IPv4Address | IPv6Address, listening.getHost()).port
        scheme = "http" if tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{real}"

    def abort_all(self) -> None:
        """Cut every connection that came in, now."""
        for factory in self._factories:
            factory.abort_all()

    async def close(self) -> None:
        """Listen no more, let what is under way finish within ``LAST_DRAIN_S``, close all."""
        for port in self._listening:
            await maybeDeferred(port.stopListening)
        for factory in self._factories:
            await factory.drain(LAST_DRAIN_S)
        self._pool.close()
