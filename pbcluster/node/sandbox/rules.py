"""What Landlock allows a tenant's process: its folders, its port, the ports of the node's services.

Pure. Everything else that Landlock knows of is refused: other paths, other TCP ports, signals to
processes outside and abstract UNIX sockets of others. No symbolic link, device, FIFO or socket can
be made anywhere. Numbers: linux/landlock.h of ABI 6.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from pbcluster.node.platform_files import DATA, HOOKS, MIGRATIONS, PUBLIC, TEMPORARY

#: TCP came with 4, device ioctls with 5, scopes with 6.
MIN_ABI = 6

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_SYM, REFER, TRUNCATE = 1 << 12, 1 << 13, 1 << 14
ALL_PATHS = (1 << 16) - 1
BIND_TCP, CONNECT_TCP = 1, 2
ALL_PORTS = BIND_TCP | CONNECT_TCP
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNALS = 1, 2
ALL_SCOPES = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNALS

#: Rights that mean something on what is no directory.
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
#: Public data of the system: certificate authorities and time zones. What is missing is left out.
SYSTEM = (
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted/pem",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
)
#: Folders that the tenant may change, and those that it may only read.
WRITABLE = (DATA, TEMPORARY)
READABLE = (HOOKS, MIGRATIONS, PUBLIC)


@attrs.frozen
class PathRule:
    """:ivar must_exist: False: left out where it is missing."""

    path: Path
    access: int
    must_exist: bool = True


@attrs.frozen
class PortRule:
    """A TCP port and what may be done with it."""

    port: int
    access: int


def path_rules(directory: Path, binary: Path) -> tuple[PathRule, ...]:
    """What of the file system a tenant's process sees.

    :param directory: the tenant's. :param binary: PocketBase, which executes itself again.
    """
    return (
        PathRule(binary, EXECUTE | READ_FILE),
        *(PathRule(directory / name, WRITE) for name in WRITABLE),
        *(PathRule(directory / name, READ) for name in READABLE),
        *(PathRule(Path(path), READ, must_exist=False) for path in SYSTEM),
        PathRule(Path("/dev/null"), READ_FILE | WRITE_FILE, must_exist=False),
    )


def port_rules(own: int, connect: tuple[int, ...]) -> tuple[PortRule, ...]:
    """What of TCP: listen at ``own``, connect to ``connect`` (whatever the address)."""
    return (PortRule(own, BIND_TCP), *(PortRule(port, CONNECT_TCP) for port in connect))
