"""An upstream for what nginx cannot play: event streams that stay open, and bodies of any size.

``python -m benchmarks.gateway.far_end PORT DIRECTORY``: one thread, one epoll.

=====================  ======================================================================
``GET /stream``        the head of an event stream and one event; then silence
``GET /down``          a gigabyte, by sendfile from a sparse file
``POST /up``           the body is read and thrown away, then 200
anything else          200 and a little JSON
=====================  ======================================================================
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys
from pathlib import Path

import attrs

from benchmarks.gateway.processes import raise_limit

GIGABYTE = 1_000_000_000
READ_AHEAD_BYTES = 16 * 1024 * 1024
_AT_ONCE = 1 << 20
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
#: The first event is about as long as PocketBase's, which tells the client its id.
_EVENT = b"id:k3j9x0q2m5n7p1r\nevent:PB_CONNECT\ndata:{}\n\n"
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
)
_DOWN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: %d\r\n\r\n" % GIGABYTE
)


@attrs.define
class Connection:
    """:ivar to_read: bytes of a body that are still to come. :ivar to_send: of the file."""

    socket: socket.socket
    received: bytes = b""
    to_read: int = 0
    to_send: int = 0


class FarEnd:
    """The server."""

    def __init__(self, port: int, directory: Path) -> None:
        file = directory / "gigabyte"
        with file.open("wb") as stream:
            stream.truncate(GIGABYTE)
        self._file = os.open(file, os.O_RDONLY)
        # Whoever is first would wait while the kernel finds memory for it.
        for at in range(0, GIGABYTE, READ_AHEAD_BYTES):
            os.pread(self._file, READ_AHEAD_BYTES, at)
        self._buffer = bytearray(_AT_ONCE)
        self._server = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._poll = select.epoll()
        self._poll.register(self._server, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}

    def run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._server.fileno():
                    self._accept()
                else:
                    self._serve(self._connections[fd])

    def _accept(self) -> None:
        made, _ = self._server.accept()
        made.setblocking(False)
        self._connections[made.fileno()] = Connection(made)
        self._poll.register(made, select.EPOLLIN)

    def _serve(self, connection: Connection) -> None:
        try:
            if connection.to_send:
                self._send(connection)
            else:
                self._receive(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        self._poll.unregister(fd)
        del self._connections[fd]
        connection.socket.close()

    def _receive(self, connection: Connection) -> None:
        count = connection.socket.recv_into(self._buffer)
        if not count:
            raise ConnectionResetError
        if connection.to_read:
            connection.to_read -= count
            if not connection.to_read:
                connection.socket.send(_JSON)
            return
        connection.received += self._buffer[:count]
        head, end, rest = connection.received.partition(b"\r\n\r\n")
        if end:
            connection.received = b""
            self._asked(connection, head, len(rest))

    def _asked(self, connection: Connection, head: bytes, already: int) -> None:
        if head.startswith(b"GET /stream"):
            connection.socket.send(_STREAM)
        elif head.startswith(b"GET /down"):
            connection.socket.send(_DOWN)
            connection.to_send = GIGABYTE
            self._poll.modify(connection.socket, select.EPOLLOUT)
        else:
            found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            connection.to_read = int(found[1]) - already if found else 0
            if not connection.to_read:
                connection.socket.send(_JSON)

    def _send(self, connection: Connection) -> None:
        at = GIGABYTE - connection.to_send
        count = os.sendfile(connection.socket.fileno(), self._file, at, connection.to_send)
        connection.to_send -= count
        if not connection.to_send:
            self._poll.modify(connection.socket, select.EPOLLIN)


if __name__ == "__main__":
    raise_limit()
    FarEnd(int(sys.argv[1]), Path(sys.argv[2])).run()
