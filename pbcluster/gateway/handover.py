"""Hands the listening sockets of a running gateway to the one that replaces it.

Over the UNIX socket ``handover.sock`` in the data directory (mode 0700 as the directory is; the
other side's uid is compared too). The successor says ``sockets``, gets one line of JSON with the
descriptors (SCM_RIGHTS), accepts beside its predecessor, and says ``serving`` when it does serve.
Only then the predecessor drains. If the successor goes before that, nothing has happened. Nobody
closes a socket that the other still has, so no connection in a queue is lost.

The line: ``{"pid": …, "doors": [{"option": …, "host": …, "port": …, "count": …}, …]}``; the
descriptors follow in this order.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.errors import ConfigError
from pbcluster.gateway.doors import Door

NAME = "handover.sock"
ASK, SERVING = b"sockets\n", b"serving\n"
#: The predecessor saves its routes and answers; its loop may be busy.
TIMEOUT_S = 10.0
MAX_LINE_BYTES = 64 * 1024
#: The kernel's own bound (SCM_MAX_FD) is 253.
MAX_SOCKETS = 250
_CREDENTIALS = struct.Struct("3i")

log = Logger()


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A short name of a directory: the address of a UNIX socket has 107 bytes at most."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


# -- the successor --------------------------------------------------------------------------------


class Predecessor:
    """The running gateway, as the one that replaces it sees it.

    :ivar doors: its listening sockets.
    """

    def __init__(self, connection: socket.socket, pid: int, doors: list[Door]) -> None:
        self.doors = doors
        self.pid = pid
        self._connection = connection

    def serving(self) -> None:
        """We serve: it may go."""
        with contextlib.suppress(OSError):
            self._connection.sendall(SERVING)
        self.close()

    def close(self) -> None:
        """Say nothing more; without :meth:`serving` it goes on as before."""
        self._connection.close()


def ask(data_dir: Path) -> Predecessor | None:
    """Ask the gateway that runs on ``data_dir`` for its sockets. Blocks, within ``TIMEOUT_S``.

    :returns: None if none runs there.
    :raises ConfigError: one runs there and does not give them.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    try:
        with _short(data_dir) as directory:
            connection.connect(f"{directory}/{NAME}")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise ConfigError(f"cannot reach {data_dir / NAME}: {error.strerror}") from None
    try:
        connection.sendall(ASK)
        line, fds = _receive(connection)
    except OSError as error:
        connection.close()
        raise ConfigError(
            f"the gateway that runs on {data_dir} does not hand its sockets over: {error}"
        ) from None
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for each in sockets:
        each.set_inheritable(False)
        each.setblocking(False)
    try:
        return Predecessor(connection, *_understood(line, sockets))
    except (ValueError, KeyError, TypeError):
        for each in sockets:
            each.close()
        connection.close()
        said = line[:200].decode("utf-8", "replace").strip() or "nothing"
        raise ConfigError(
            f"the gateway that runs on {data_dir} does not hand its sockets over; it said: {said}"
        ) from None


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    line, fds = b"", []
    while not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        data, more, _, _ = socket.recv_fds(connection, MAX_LINE_BYTES, MAX_SOCKETS)
        fds += more
        if not data:
            break
        line += data
    return line, fds


def _understood(line: bytes, sockets: list[socket.socket]) -> tuple[int, list[Door]]:
    content = json.loads(line)
    rest, doors = list(sockets), []
    for row in content["doors"]:
        count = int(row["count"])
        doors.append(Door(str(row["option"]), (str(row["host"]), int(row["port"])), rest[:count]))
        if count < 1 or len(doors[-1].sockets) != count:
            raise ValueError
        rest = rest[count:]
    if rest:
        raise ValueError
    return int(content["pid"]), doors


# -- the predecessor ------------------------------------------------------------------------------


class Handover:
    """Waits for a successor."""

    def __init__(
        self,
        reactor: Any,
        data_dir: Path,
        doors: Callable[[], list[Door]],
        end: Callable[[], None],
    ) -> None:
        """
        :param reactor: ``IReactorFDSet``.
        :param doors: called when a successor asks; it may save what the successor will read.
        :param end: called once a successor serves.
        """
        self._reactor = reactor
        self._data_dir = data_dir
        self._doors = doors
        self._end = end
        self._listener: _Waiting | None = None
        self._successor: _Successor | None = None
        self._inode: tuple[int, int] | None = None

    def start(self) -> None:
        """Listen. :raises ConfigError: the socket cannot be made."""
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.setblocking(False)
        beside, file = f".{NAME}.{os.getpid()}", self._data_dir / NAME
        try:
            with _short(self._data_dir) as directory:
                (self._data_dir / beside).unlink(missing_ok=True)
                one.bind(f"{directory}/{beside}")
            os.chmod(self._data_dir / beside, 0o600)
            one.listen(4)
            os.replace(self._data_dir / beside, file)
        except OSError as error:
            one.close()
            raise ConfigError(f"cannot listen at {file}: {error.strerror}") from None
        self._inode = _inode(file)
        self._listener = _Waiting(self._reactor, one, self._accepted)

    def stop(self) -> None:
        """Listen no more."""
        listened = self._listener is not None
        self._close()
        file = self._data_dir / NAME
        if listened and self._inode is not None and _inode(file) == self._inode:
            file.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.end()
            self._listener = None
        if self._successor is not None:
            self._successor.end()

    def _accepted(self, connection: socket.socket) -> None:
        uid = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )[1]
        if uid not in (os.geteuid(), 0):
            log.warn("uid {uid} asked for the listening sockets and was refused", uid=uid)
            connection.close()
        else:
            _Successor(self._reactor, connection, self._told)

    def _told(self, who: _Successor, what: bytes) -> None:
        if what == ASK:
            if self._successor is not None and self._successor.connected:
                who.refuse("another successor is starting")
            else:
                self._successor = who
                who.give(self._doors())
        elif what == SERVING and who is self._successor:
            log.info("a successor serves: this gateway drains")
            # The name belongs to the successor now, who may be replacing it this very moment.
            self._close()
            self._end()


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Waiting(FileDescriptor):
    """The listening UNIX socket."""

    def __init__(
        self, reactor: Any, one: socket.socket, accepted: Callable[[socket.socket], None]
    ) -> None:
        super().__init__(reactor)
        self._socket = one
        self._accepted = accepted
        self.startReading()

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Somebody connects."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            self._accepted(connection)

    def end(self) -> None:
        """Close it."""
        self.stopReading()
        self._socket.close()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives it up."""
        self.end()


class _Successor(FileDescriptor):
    """A connection of a process that wants our sockets."""

    def __init__(
        self, reactor: Any, one: socket.socket, told: Callable[[_Successor, bytes], None]
    ) -> None:
        super().__init__(reactor)
        self.connected = 1
        self._socket = one
        self._told = told
        self._line = b""
        self.startReading()

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def refuse(self, why: str) -> None:
        """Say why it gets nothing."""
        with contextlib.suppress(OSError):
            self._socket.sendall(why.encode() + b"\n")
        self.end()

    def give(self, doors: list[Door]) -> None:
        """Send the sockets. A line with few hundred bytes fits the empty buffer of a new socket."""
        rows = [
            {
                "option": d.option,
                "host": d.address[0],
                "port": d.address[1],
                "count": len(d.sockets),
            }
            for d in doors
        ]
        line = json.dumps({"pid": os.getpid(), "doors": rows}).encode() + b"\n"
        fds = [each.fileno() for door in doors for each in door.sockets]
        if len(fds) > MAX_SOCKETS:
            line, fds = f"{len(fds)} sockets are too many to be handed over\n".encode(), []
        try:
            socket.send_fds(self._socket, [line], fds)
        except OSError as error:
            log.warn("the sockets could not be handed over: {error}", error=str(error))
            self.end()

    def doRead(self) -> Any:
        """It says something, or is gone."""
        try:
            data = self._socket.recv(64)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self._line += data
        if not data or len(self._line) > len(ASK) + len(SERVING):
            return CONNECTION_DONE
        while b"\n" in self._line and self.connected:
            what, _, self._line = self._line.partition(b"\n")
            self._told(self, what + b"\n")
        return None

    def end(self) -> None:
        """Close the connection."""
        if self.connected:
            self.connected = 0
            self.stopReading()
            self._socket.close()

    def connectionLost(self, reason: Failure) -> None:
        """It is gone."""
        self.end()
