"""What makes a gateway process a worker of a master: sockets it inherits, orders it takes.

The master (``master``) tells it by the variable ``PBCLUSTER_WORKER`` which of how many it is and
under which descriptors it finds the listening sockets. Orders come as lines on standard input:
``adopt N``, ``release N`` (another worker's share of the sockets), ``drain`` (a successor serves).
What the worker says goes to descriptor 3, one line of JSON: where it serves, once it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import attrs
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.errors import ConfigError
from pbcluster.gateway.doors import Door

VARIABLE = "PBCLUSTER_WORKER"
ORDERS_FD = 0
#: Where a worker tells; its sockets follow.
TELLS_FD = 3
FIRST_SOCKET_FD = 4
MAX_LINE_BYTES = 4096

log = Logger()


@attrs.frozen
class Place:
    """One process of a gateway.

    :ivar number: which, from 1. :ivar of: how many there are.
    :ivar doors: the listening sockets that it inherited; none: it opens them itself.
    :ivar is_worker: whether a master started it.
    """

    number: int = 1
    of: int = 1
    doors: Sequence[Door] = ()
    is_worker: bool = False

    def share(self, total: int) -> int:
        """This process's part of a bound that is for the whole gateway, at least 1."""
        return max(1, -(-total // self.of))


def described(number: int, of: int, doors: Sequence[Door]) -> tuple[str, list[int]]:
    """The variable's value for a worker, and the descriptors that it must get from
    ``FIRST_SOCKET_FD`` on."""
    rows = [
        {"option": d.option, "host": d.address[0], "port": d.address[1], "count": len(d.sockets)}
        for d in doors
    ]
    fds = [one.fileno() for door in doors for one in door.sockets]
    return json.dumps({"number": number, "of": of, "doors": rows}), fds


def place(environment: MutableMapping[str, str]) -> Place:
    """Which process of a gateway this is.

    :param environment: loses the variable, so that no child believes to be meant.
    :raises ConfigError: the variable makes no sense.
    """
    text = environment.pop(VARIABLE, "")
    if not text:
        return Place()
    try:
        content = json.loads(text)
        fd, doors = FIRST_SOCKET_FD, []
        for row in content["doors"]:
            sockets = [socket.socket(fileno=fd + n) for n in range(row["count"])]
            fd += len(sockets)
            doors.append(Door(row["option"], (row["host"], row["port"]), sockets))
    except (ValueError, KeyError, TypeError, OSError):
        raise ConfigError(f"{VARIABLE} is for a gateway's own workers; unset it") from None
    for door in doors:
        for one in door.sockets:
            one.setblocking(False)
            one.set_inheritable(False)
    return Place(content["number"], content["of"], doors, is_worker=True)


def tell_master(**content: Any) -> None:
    """Say where we serve."""
    with contextlib.suppress(OSError):
        os.write(TELLS_FD, json.dumps({**content, "pid": os.getpid()}).encode() + b"\n")


class Orders(FileDescriptor):
    """Takes the master's orders. The end of the pipe means that the master is gone; the kernel
    ends us then."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        *,
        adopt: Callable[[int], None],
        release: Callable[[int], None],
        drain: Callable[[], None],
    ) -> None:
        super().__init__(reactor)
        self._shares = {b"adopt": adopt, b"release": release}
        self._drain = drain
        self._rest = b""
        os.set_blocking(ORDERS_FD, False)

    def start(self) -> None:
        """Listen."""
        self.startReading()

    def stop(self) -> None:
        """Listen no more."""
        self.stopReading()

    def fileno(self) -> int:
        """Of the pipe."""
        return ORDERS_FD

    def doRead(self) -> Any:
        """An order comes."""
        try:
            data = os.read(ORDERS_FD, MAX_LINE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            return CONNECTION_DONE
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._obey(line)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The master is gone."""
        self.stopReading()

    def _obey(self, line: bytes) -> None:
        word, _, number = line.partition(b" ")
        if word == b"drain":
            self._drain()
        elif word in self._shares and number.isdigit():
            self._shares[word](int(number) - 1)
        else:
            log.warn("an order of the master is not understood: {line}", line=repr(line[:80]))
