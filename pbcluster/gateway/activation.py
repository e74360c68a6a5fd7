"""Sockets that a service manager bound (``sd_listen_fds(3)``): no connection is refused while the
service is started again, since the manager keeps them.

Each is given to the setting that its name (``FileDescriptorName=`` of a socket unit) says, else to
the one that is set to its address. The variables name the one process that is meant. They are read
from what the kernel keeps of its start: ``twisted.internet.endpoints`` takes them out of the
environment when it is imported.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from twisted.logger import Logger

from pbcluster.errors import ConfigError
from pbcluster.gateway.doors import Door

FIRST_FD = 3
#: More means a mistake, and not ours to guess.
MAX_FDS = 256
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

log = Logger()


def environment_at_start() -> dict[str, str]:
    """The variables that a service manager gave this process."""
    found = {}
    for row in Path("/proc/self/environ").read_bytes().split(b"\0"):
        name, _, value = row.decode("utf-8", "replace").partition("=")
        if name in _VARIABLES:
            found[name] = value
    return found


def inherited(environment: Mapping[str, str], options: Mapping[str, tuple[str, int]]) -> list[Door]:
    """The doors that a service manager opened for this process. Call it once.

    :param environment: what :func:`environment_at_start` gave.
    :param options: the listening settings in use.
    :raises ConfigError: the variables make no sense, or a descriptor is no listening socket.
    """
    pid, count, names = (environment.get(name, "") for name in _VARIABLES)
    if not count or pid != str(os.getpid()):
        return []
    if not count.isdigit() or not 1 <= int(count) <= MAX_FDS:
        raise ConfigError(f"LISTEN_FDS is {count!r}; allowed: 1 to {MAX_FDS}")
    named = names.split(":") if names else []
    doors: dict[str, Door] = {}
    for place in range(int(count)):
        one = _listening(FIRST_FD + place)
        option = _option(one, named[place] if place < len(named) else "", options)
        if option is None:
            log.warn("a socket that the service manager gave fits no setting and is not used")
            one.close()
            continue
        doors.setdefault(option, Door(option, options[option], [])).sockets.append(one)
    return list(doors.values())


def _listening(fd: int) -> socket.socket:
    try:
        one = socket.socket(fileno=fd)
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError
    except OSError:
        raise ConfigError(
            f"descriptor {fd}, given by the service manager, is no listening socket; a socket "
            "unit needs ListenStream="
        ) from None
    one.setblocking(False)
    one.set_inheritable(False)
    return one


def _option(one: socket.socket, name: str, options: Mapping[str, tuple[str, int]]) -> str | None:
    if name in options:
        return name
    address = one.getsockname()[:2]
    return next((option for option, wanted in options.items() if tuple(wanted) == address), None)
