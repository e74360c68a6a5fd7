"""The services' reactor notices connections that were reset, as Twisted's own reactors do."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

#: Each of ROUNDS connections is reset by its peer after some bytes; prints how they ended.
SCRIPT = """
import collections, socket, struct, sys, threading
from twisted.application.reactors import installReactor
reactor = installReactor("pbuvloop")
from twisted.internet import defer, endpoints, protocol, task

ROUNDS, SIZE, MODE = 20, int(sys.argv[1]), sys.argv[2]
listening = socket.create_server(("127.0.0.1", 0))

def serve():
    while True:
        connection, _ = listening.accept()
        connection.recv(1)
        connection.sendall(b"x" * SIZE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

threading.Thread(target=serve, daemon=True).start()

class Client(protocol.Protocol):
    def connectionMade(self):
        self.lost = defer.Deferred()
        self.transport.write(b"x" * (20_000_000 if MODE == "writing" else 1))
        if MODE == "paused":
            self.transport.pauseProducing()
            reactor.callLater(0.05, self.transport.resumeProducing)

    def connectionLost(self, reason):
        self.lost.callback(reason.type.__name__)

async def main(reactor):
    ends = collections.Counter()
    for _ in range(ROUNDS):
        endpoint = endpoints.TCP4ClientEndpoint(reactor, *listening.getsockname())
        client = await endpoint.connect(protocol.Factory.forProtocol(Client))
        client.lost.addTimeout(5.0, reactor)
        ends[await client.lost] += 1
    print(dict(ends))

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""
WITHIN_S = 60


class ResetTests(SynchronousTestCase):
    def ends(self, size: int, mode: str) -> str:
        path = os.pathsep.join(entry or "." for entry in sys.path)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(size), mode],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        return done.stdout.strip() or done.stderr[-2000:]

    def test_while_reading(self) -> None:
        """A reset is told at once, whether little or much came before it."""
        for size in (5, 300_000):
            self.assertEqual(self.ends(size, "reading"), "{'ConnectionLost': 20}", size)

    def test_while_paused(self) -> None:
        """One that came while nobody read is told when reading goes on."""
        self.assertEqual(self.ends(5, "paused"), "{'ConnectionLost': 20}")

    def test_while_writing(self) -> None:
        """And one that came with a full send buffer."""
        self.assertEqual(self.ends(5, "writing"), "{'ConnectionLost': 20}")
