"""Which TCP ports a cluster on this machine uses.

The two public ports (gateway, admin API) have options and are taken exactly as given. The others
are internal: their defaults if the public ones are default too, else a row of free ports above the
public ones, so that clusters with different public ports do not meet even if they never ran at the
same time while they were made.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import secrets
import socket
from pathlib import Path

from pbcluster.cli.layout import LOOPBACK, Plan
from pbcluster.errors import ConfigError, InvalidInput, Unavailable

DEFAULT_GATEWAY_PORT = 8080
DEFAULT_ADMIN_PORT = 8095
_FIRST_NODE_PORT = 8090
#: Internal use → its port when everything is default. Nodes begin at _FIRST_NODE_PORT.
_DEFAULTS = {
    "requests": 5555,
    "broadcasts": 5556,
    "raft": 7000,
    "admin": DEFAULT_ADMIN_PORT,
    "s3": 8333,
    "s3_grpc": 18333,
    "filer": 8888,
    "filer_grpc": 18888,
    "master": 9333,
    "master_grpc": 19333,
    "volume": 8081,
    "volume_grpc": 18081,
}
_HIGHEST = 65535
_SCAN_AT_MOST = 2000
#: Any free port is one from here on and below the range of outgoing connections.
_ANY_FIRST = 10_000
_LOWEST = 1024
_USUAL_FIRST_OUTGOING = 32_768


class Picker:
    """Hands out ports, none twice."""

    def __init__(
        self, gateway: int, admin: int, internal: int | None, host: str = LOOPBACK
    ) -> None:
        """
        :param host: the address at which they are to be free.
        :param gateway: public port, 0 for any free one.
        :param admin: likewise.
        :param internal: where the row of internal ports begins; None to decide here.
        :raises InvalidInput: both public ports are the same.
        """
        if gateway == admin != 0:
            raise InvalidInput(
                f"--gateway-port and --admin-port are both {gateway}; give two different ports",
                field="admin_port",
                allowed="another port than the gateway's",
            )
        self._host = host
        self._taken = {port for port in (gateway, admin) if port}
        self.gateway = gateway or self._any_free()
        self.admin = admin or self._any_free()
        public = (self.gateway, self.admin)
        default = public == (DEFAULT_GATEWAY_PORT, DEFAULT_ADMIN_PORT)
        self._use_defaults = default and internal is None
        self._next = internal if internal is not None else max(*public, 1023) + 1
        self._any = 0 in (gateway, admin) and internal is None

    def take(self, use: str) -> int:
        """A port for an internal use."""
        preferred = _DEFAULTS.get(use, _FIRST_NODE_PORT) if self._use_defaults else self._next
        if self._any:
            return self._any_free()
        for port in itertools.islice(itertools.count(preferred), _SCAN_AT_MOST):
            if port > _HIGHEST:
                break
            if port not in self._taken and in_use(port, self._host) is None:
                self._taken.add(port)
                if not self._use_defaults:
                    self._next = port + 1
                return port
        raise Unavailable(
            f"found no free port from {preferred} on for {use!r}; give another range with "
            "--internal-port"
        )

    def reserve(self, ports: list[int]) -> None:
        """Never hand these out."""
        self._taken.update(ports)

    def _any_free(self) -> int:
        end = first_outgoing()
        first = _ANY_FIRST if end - _ANY_FIRST >= _SCAN_AT_MOST else _LOWEST
        for _ in range(_SCAN_AT_MOST):
            port = first + secrets.randbelow(max(end - first, 1))
            if port not in self._taken and in_use(port, self._host) is None:
                self._taken.add(port)
                return port
        raise Unavailable(f"found no free port between {first} and {end}")


def first_outgoing() -> int:
    """Where the range begins from which the kernel takes ports for outgoing connections.

    A port of that range that was free when a cluster was made may belong to somebody's connection
    when it starts, or starts again.
    """
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL_FIRST_OUTGOING


def in_use(port: int, host: str = LOOPBACK) -> str | None:
    """Why this port cannot be listened on at an address of this machine; None if it can."""
    with socket.socket() as probe:
        # As a server does: a connection that lingers in TIME_WAIT is no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return "is in use" if error.errno == errno.EADDRINUSE else str(error.strerror).lower()
    return None


def check_free(plan: Plan) -> None:
    """Every port of the plan can be listened on.

    :raises ConfigError: one cannot; names the port and the option that changes it.
    """
    options = {("gateway", "http"): "--gateway-port", ("member", "admin"): "--admin-port"}
    check_address(plan.host)
    for process in plan.processes:
        for use, port in process.ports.items():
            reason = in_use(port, plan.host)
            if reason is not None:
                option = options.get((process.kind, use), "--internal-port")
                raise ConfigError(
                    f"port {port} ({process.id}, {use}) {reason}: stop what listens there or "
                    f"choose another port with {option}"
                )


def check_address(host: str) -> None:
    """This machine has the address.

    :raises ConfigError: it has not, or it is none that others can connect to.
    """
    try:
        address = ipaddress.IPv4Address(host)
        fine = not (address.is_unspecified or address.is_multicast or host == "255.255.255.255")
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"--address is {host!r}; allowed: an IPv4 address of this machine")
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            reason = str(error.strerror).lower()
            raise ConfigError(f"this machine has no address {host} (--address): {reason}") from None
