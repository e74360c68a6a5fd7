"""The proxy core as a process of its own, on transports of one's choice, for tests over sockets.

    python -m pbcluster.testing.http_server --transport tcp --upstream 127.0.0.1:8000

It forwards every request to one upstream (502 if that fails) and prints its port in one line once
it listens. ``GET /connections`` it answers itself: how many clients' connections are open. A new
kind of transport is one more entry of :data:`TRANSPORTS`. It ends when its standard input does.
Errors, and nothing else, are logged to standard error.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any, cast

import attrs
import click
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from pbcluster.testing.http_memory import forward_to
from pbcluster.web.interfaces import Exchange
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.streams import EndpointMaker, listen_alone, streams_of

HOST = "127.0.0.1"
BACKLOG = 4096


@attrs.frozen
class Transport:
    """How to listen and connect.

    :ivar install: installs its reactor. :ivar listen: (reactor, factory) → the port listened at.
    :ivar endpoints: reactor → endpoints of upstreams.
    """

    install: Callable[[], None]
    listen: Callable[[Any, Any], int]
    endpoints: Callable[[Any], EndpointMaker]


def _epoll() -> None:
    from twisted.internet import epollreactor

    epollreactor.install()


def _uvloop() -> None:
    from pbcluster import reactor

    reactor.install()


def _listen_tcp(reactor: Any, factory: Any) -> int:
    port: int = reactor.listenTCP(0, factory, backlog=BACKLOG, interface=HOST).getHost().port
    return port


def _listen_own(reactor: Any, factory: Any) -> int:
    port: Any = listen_alone(streams_of(reactor), HOST, 0, factory)
    number: int = port.getHost().port
    return number


#: Name → transports: those of Twisted's own loop, Twisted's as they are on uvloop's, and libuv's.
TRANSPORTS = {
    "tcp": Transport(_epoll, _listen_own, tcp_endpoints),
    "tcp-uvloop": Transport(_uvloop, _listen_tcp, tcp_endpoints),
    "libuv": Transport(_uvloop, _listen_own, tcp_endpoints),
}


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as the system lets it; gives their number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--transport", type=click.Choice(sorted(TRANSPORTS)), default="tcp")
@click.option("--upstream", required=True, help="HOST:PORT")
@click.option("--header-timeout-s", type=float, default=Limits().header_timeout_s)
@click.option("--body-idle-s", type=float, default=Limits().body_idle_s)
def main(transport: str, upstream: str, header_timeout_s: float, body_idle_s: float) -> None:
    """The command."""
    raise_descriptor_limit()
    chosen = TRANSPORTS[transport]
    chosen.install()
    from twisted.internet import reactor
    from twisted.internet.stdio import StandardIO

    _log_errors()
    host, _, port = upstream.rpartition(":")
    forward = forward_to(host, int(port), lambda attempt: None)

    def handle(exchange: Exchange) -> None:
        if exchange.head.target == b"/connections":
            exchange.respond(200, b"%d" % factory.connection_count)
        else:
            forward(exchange)

    limits = Limits(header_timeout_s=header_timeout_s, body_idle_s=body_idle_s)
    pool = UpstreamPool(reactor, chosen.endpoints(reactor))
    factory = HTTPServerFactory(handle, limits, reactor, pool=pool)
    print(chosen.listen(reactor, factory), flush=True)
    StandardIO(_ends_with_input(reactor))
    cast(Any, reactor).run()


def _log_errors() -> None:
    errors = LogLevelFilterPredicate(LogLevel.error)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [errors])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _ends_with_input(reactor: Any) -> Any:
    """A protocol that stops ``reactor`` when its input ends."""
    from twisted.internet.protocol import Protocol

    class EndsWithInput(Protocol):
        def connectionLost(self, reason: object = None) -> None:
            if reactor.running:
                reactor.stop()

    return EndsWithInput()


if __name__ == "__main__":
    sys.exit(main())
