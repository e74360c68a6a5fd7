"""``benchmarks.node``: what is told of writes, and the client reads answers."""

from __future__ import annotations

import socket
import threading

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.node import __main__ as command
from benchmarks.node.stage import Wire
from benchmarks.node.writes import added


class Report(SynchronousTestCase):
    def test_what_was_added(self) -> None:
        """The node's and the whole way's medians are told without PocketBase's own."""
        took = {"direct": [1.0, 2.0, 9.0], "node": [5.0, 5.0, 5.0], "gateway": [6.0, 7.0, 8.0]}
        found = added(took, "x")
        self.assertEqual((found["x_added_p50_ms"], found["x_whole_added_p50_ms"]), (3.0, 5.0))

    def test_help(self) -> None:
        """``--help`` names every measure."""
        told = CliRunner().invoke(command.main, ["--help"]).output
        for name in command.MEASURES:
            self.assertIn(name, told)


class Wires(SynchronousTestCase):
    def test_answers_in_pieces(self) -> None:
        """An answer is read to its end, of a known length or in chunks, and the next one after."""
        server = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for pieces in (
                    (b"HTTP/1.1 200 OK\r\nContent-", b"Length: 2\r\n\r\n", b"hi"),
                    (
                        b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
                        b"0\r\n\r\n",
                    ),
                ):
                    connection.recv(4096)
                    for piece in pieces:
                        connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        wire = Wire(server.getsockname()[1], "a.localhost")
        try:
            self.assertEqual([wire.ask(b"GET", b"/"), wire.ask(b"GET", b"/")], [200, 404])
        finally:
            wire.close()
            thread.join(5)
            server.close()
