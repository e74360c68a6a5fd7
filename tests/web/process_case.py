"""Test cases with the core in a process of its own, and blocking sockets around it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.http_memory import OK
from pbcluster.testing.http_reference import Doubtful, Message, read_request

#: No part of any of these tests waits longer for a byte.
WITHIN_S = 30.0
READ_BYTES = 65536


class Recorder:
    """An upstream that records whole requests and answers them, in threads.

    :ivar answer: request → (bytes, "", "close" or "reset").
    """

    def __init__(self) -> None:
        self.answer: Callable[[Message], tuple[bytes, str]] = lambda message: (OK, "")
        self.connections = 0
        self.doubts: list[str] = []
        self._requests: list[Message] = []
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = "127.0.0.1:{1}".format(*self._socket.getsockname())
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def take(self) -> list[Message]:
        """The requests since the last call."""
        with self._lock:
            taken, self._requests = self._requests, []
        return taken

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join(WITHIN_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(WITHIN_S)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        unread = b""
        with connection:
            try:
                while data := connection.recv(READ_BYTES):
                    unread += data
                    while unread and (found := read_request(unread)) is not None:
                        message, unread = found
                        with self._lock:
                            self._requests.append(message)
                        if not self._say(connection, *self.answer(message)):
                            return
            except OSError:
                return
            except Doubtful as error:
                self.doubts.append(str(error))

    def _say(self, connection: socket.socket, answer: bytes, ending: str) -> bool:
        connection.sendall(answer)
        if ending == "reset":
            linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return not ending


class ProcessCase(SynchronousTestCase):
    """A core on ``transport`` in front of a recorder; a subclass for each transport."""

    transport = "tcp"
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.recorder = Recorder()
        self.addCleanup(self.recorder.close)
        self.server = subprocess.Popen(
            [
                *(sys.executable, "-m", "pbcluster.testing.http_server"),
                *("--transport", self.transport, "--upstream", self.recorder.address),
                *self.options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(self.stop)
        assert self.server.stdout is not None
        self.port = int(self.server.stdout.readline())

    def stop(self) -> None:
        """The server ends by itself, and wrote nothing on its standard error: no traceback."""
        _, errors = self.server.communicate(timeout=WITHIN_S)
        self.assertEqual((self.server.returncode, errors), (0, b""))

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), WITHIN_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client
