"""Listening sockets that outlive whoever accepts from them.

A socket is bound here and given, as it is, to a :data:`Listener`, which accepts from a duplicate;
so the same socket can be handed to another process, or held while a worker is started again, and
no connection in its queue is lost. Every socket has ``SO_REUSEPORT``: several of one address share
what comes (measured: evenly, where workers on one common socket got 61, 3, 1 and 0 of 64
connections). That would also let a second gateway bind beside the first by mistake, so an address
is first asked for alone.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from pbcluster.errors import ConfigError

#: Connections that the kernel keeps for us while the loop is busy, or nobody accepts.
BACKLOG = 4096
#: Rounds of accepting before a socket is closed; each takes at least one connection, often many.
LAST_ROUNDS = 256

#: Accepts for a factory from a bound socket that is left open.
Listener = Callable[[socket.socket, Any], IListeningPort]


def bind(address: tuple[str, int], count: int, option: str) -> list[socket.socket]:
    """Bind ``count`` sockets to one address and let them listen.

    :param address: IP address and port; port 0: any free one, the same for all.
    :param option: names the setting in the error.
    :raises ConfigError: the address cannot be had.
    """
    bound: list[socket.socket] = []
    try:
        if address[1]:
            _bound(address, shared=False).close()
        while len(bound) < count:
            bound.append(_bound((address[0], bound[0].getsockname()[1]) if bound else address))
            bound[-1].listen(BACKLOG)
    except OSError as error:
        for each in bound:
            each.close()
        host, port = address
        raise ConfigError(
            f"cannot listen at {host}:{port} (--{option.replace('_', '-')}): {error.strerror}"
        ) from None
    return bound


def bind_alone(host: str, port: int, backlog: int = BACKLOG) -> socket.socket:
    """A listening socket that shares its address with no other.

    :param host: an IP address. :param port: 0: any free one.
    :raises CannotListenError: the address cannot be had.
    """
    try:
        bound = _bound((host, port), shared=False)
    except OSError as error:
        raise CannotListenError(host, port, error) from None
    bound.listen(backlog)
    return bound


def further(bound: socket.socket, count: int) -> list[socket.socket]:
    """At most ``count`` more sockets of the address of one that is bound already.

    Fewer if the one that bound it did not share it, as a service manager may.
    """
    more: list[socket.socket] = []
    for _ in range(count):
        try:
            one = _bound(bound.getsockname()[:2])
            one.listen(BACKLOG)
        except OSError:
            break
        more.append(one)
    return more


def _bound(address: tuple[str, int], *, shared: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(address)
    except BaseException:
        one.close()
        raise
    return one


async def stop_accepting(port: IListeningPort, bound: socket.socket) -> None:
    """Take what waits in the queue, then accept no more.

    Closing the last descriptor of a socket resets what nobody accepted yet.
    """
    ports: Any = port
    waiting = select.poll()
    waiting.register(bound, select.POLLIN)
    for _ in range(LAST_ROUNDS):
        if not waiting.poll(0):
            break
        if hasattr(ports, "turn"):  # libuv accepts by itself, in each turn of the loop
            await ports.turn()
        else:
            ports.doRead()
    await maybeDeferred(port.stopListening)
