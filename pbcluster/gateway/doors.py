"""The listening sockets of one gateway, by setting, and who of its workers accepts from which.

A *door* is a listening setting with its bound sockets: one for each worker, so that the kernel
spreads connections evenly; fewer where a service manager bound them. They come, in this order, from
a parent or a gateway that is replaced, from the service manager, or are bound here.

Worker ``i`` of ``n`` serves the *share* ``i``: sockets ``i, i + n, …``, and where there are fewer
than workers, socket ``i`` modulo their number. The share of a worker that is dead is adopted by
another one until it is back, so that no socket is ever without somebody who accepts.

The metrics door has one socket and no shares: one process serves it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from pbcluster.config import GatewayConfig, settings_of
from pbcluster.errors import ConfigError
from pbcluster.web import listening
from pbcluster.web.listening import Listener

METRICS = "metrics_listen"

log = Logger()


@attrs.define
class Door:
    """One listening setting.

    :ivar option: its name. :ivar address: what it was set to; port 0 is kept as such.
    """

    option: str
    address: tuple[str, int]
    sockets: list[socket.socket]

    def close(self) -> None:
        """Close our descriptors."""
        for each in self.sockets:
            each.close()


def door_name(setting: str, number: int) -> str:
    """What the door of a setting's address is called; ``number`` counts from 0."""
    return f"{setting}_{number + 1}" if number else setting


def options(config: GatewayConfig) -> dict[str, tuple[str, int]]:
    """All addresses of the settings whose name ends in ``listen``, by the name of their door.

    Endpoint strings are not among them: who listens there is not known here.

    :raises ConfigError: there are some, and workers that would have to share them.
    """
    found: dict[str, tuple[str, int]] = {}
    for name in settings_of(type(config)):
        if not name.endswith("listen"):
            continue
        value = getattr(config, name)
        single = isinstance(value, str) or (len(value) > 1 and isinstance(value[1], int))
        for number, where in enumerate([value] if single else value):
            if not isinstance(where, str):
                found[door_name(name, number)] = where
            elif config.workers > 1:
                raise ConfigError(
                    f"setting {name!r} is {where!r}: workers share addresses like 0.0.0.0:8080 "
                    "only; give such an address, or workers = 1"
                )
    return found


def opened(config: GatewayConfig, inherited: Sequence[Door]) -> dict[str, Door]:
    """All doors of a configuration, from ``inherited`` where address and setting agree.

    What was inherited and is not used is closed.

    :raises ConfigError: an address cannot be had.
    """
    given = {(door.option, tuple(door.address)): door for door in inherited}
    doors: dict[str, Door] = {}
    try:
        for option, address in options(config).items():
            count = 1 if option == METRICS else config.workers
            door = given.pop((option, tuple(address)), None)
            if door is None:
                door = Door(option, address, listening.bind(address, count, option))
            elif len(door.sockets) < count:
                missing = count - len(door.sockets)
                door.sockets += listening.further(door.sockets[0], missing)
            doors[option] = door
    except ConfigError:
        for door in doors.values():
            door.close()
        raise
    finally:
        for door in given.values():
            door.close()
    return doors


def share(worker: int, workers: int, sockets: int) -> set[int]:
    """The sockets of a worker; see the module.

    :param worker: its index from 0.
    """
    if not sockets:
        return set()
    return set(range(worker, sockets, workers)) | {worker % sockets}


class Doors:
    """Accepts from the sockets of one process's shares."""

    def __init__(
        self, listen: Listener, doors: Mapping[str, Door], worker: int = 0, workers: int = 1
    ) -> None:
        """
        :param worker: this process's index from 0, of ``workers``.
        """
        self._listen = listen
        self._doors = dict(doors)
        self._workers = workers
        self._held = {worker}
        self._factories: dict[str, Any] = {}
        self._ports: dict[tuple[str, int], IListeningPort] = {}
        self._closing = False

    @property
    def all(self) -> list[Door]:
        """Every door, with all its sockets."""
        return list(self._doors.values())

    def open(self, option: str, factory: Any) -> IListeningPort:
        """Accept from the door ``option``.

        :returns: the port of the first socket.
        :raises ConfigError: it cannot be listened to.
        """
        door = self._doors[option]
        self._factories[option] = factory
        try:
            self._settle()
        except CannotListenError as error:
            host, port = door.address
            raise ConfigError(
                f"cannot listen at {host}:{port} (--{option.replace('_', '-')}): "
                f"{error.socketError.strerror}"
            ) from None
        return next(port for (name, _), port in self._ports.items() if name == option)

    def address(self, option: str) -> tuple[str, int]:
        """Where the door ``option`` really is: with the port that was chosen for 0."""
        host, port = self._doors[option].sockets[0].getsockname()[:2]
        return host, port

    def adopt(self, worker: int) -> None:
        """Serve the share of ``worker`` too."""
        self._held.add(worker)
        self._settle()

    def release(self, worker: int) -> None:
        """``worker`` serves its share itself again."""
        self._held.discard(worker)
        self._settle()

    async def close(self, *names: str) -> None:
        """Accept no more at these doors (all, without names) and let go of their sockets."""
        chosen = [self._doors.pop(name) for name in names or tuple(self._doors)]
        for door in chosen:
            self._factories.pop(door.option, None)
            for number, one in enumerate(door.sockets):
                port = self._ports.pop((door.option, number), None)
                if port is not None:
                    await listening.stop_accepting(port, one)
            door.close()

    async def close_public(self) -> None:
        """As :meth:`close`, of all doors but the metrics'."""
        self._closing = True
        await self.close(*[name for name in self._doors if name != METRICS])

    def _wanted(self, door: Door) -> set[int]:
        if door.option == METRICS:
            return {0}
        shares = (share(worker, self._workers, len(door.sockets)) for worker in self._held)
        return set().union(*shares)

    def _settle(self) -> None:
        """Accept from what is wanted and from nothing else."""
        if self._closing:
            return
        for option, factory in self._factories.items():
            door = self._doors[option]
            wanted = self._wanted(door)
            for number in sorted(wanted):
                if (option, number) not in self._ports:
                    self._ports[option, number] = self._listen(door.sockets[number], factory)
            for key in [key for key in self._ports if key[0] == option and key[1] not in wanted]:
                # Its own worker accepts by now: what waits in the queue is not lost.
                with contextlib.suppress(Exception):
                    self._ports.pop(key).stopListening()
