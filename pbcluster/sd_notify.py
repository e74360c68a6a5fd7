"""Tells a service manager that this process serves or is about to stop (sd_notify(3)).

systemd names a datagram socket in ``NOTIFY_SOCKET`` for units of ``Type=notify``; without the
variable nothing is told. What is told is a hint: a manager that does not listen, a full socket or
a path that is none never disturbs the service, so every failure is silent. No secret is told.

Only the main process is believed by systemd (``NotifyAccess=main``, its default for such units), so
a gateway's workers say nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"
READY = "READY=1"
STOPPING = "STOPPING=1"


def address_of(value: str) -> str | None:
    """The address of an AF_UNIX socket for connect(2).

    :param value: of :data:`VARIABLE`: an absolute path, or ``@`` and an abstract name.
    :returns: None for what names no such socket (``vsock:…``, a relative path, nothing).
    """
    if value.startswith("@") and len(value) > 1:
        return "\0" + value[1:]
    return value if value.startswith("/") else None


def message(*words: str, status: str = "") -> bytes:
    """The datagram: assignments, one a line.

    :param words: such as :data:`READY`. :param status: a line for people, free of secrets.
    """
    line = " ".join(status.split())
    return "\n".join([*words, *([f"STATUS={line}"] if line else [])]).encode()


def tell(*words: str, status: str = "", environment: Mapping[str, str] | None = None) -> bool:
    """Send :func:`message` to whoever ``NOTIFY_SOCKET`` names. Never waits, never raises.

    :param environment: instead of the process's own.
    :returns: whether the manager's socket took it.
    """
    given = os.environ if environment is None else environment
    address = address_of(given.get(VARIABLE, ""))
    if address is None:
        return False
    with suppress(OSError, ValueError):
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as sending:
            sending.connect(address)
            sending.send(message(*words, status=status))
        return True
    return False
