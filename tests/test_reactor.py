"""The reactor plugin: installed by twistd's name, and it sees children die at once."""

import os
import signal
import subprocess
import sys

from twisted.application.reactors import getReactorTypes
from twisted.trial.unittest import SynchronousTestCase

# A child that ends after 0.2 s and leaves a grandchild that holds its output open for 20 s.
SCRIPT = """
import time
from twisted.application.reactors import installReactor
reactor = installReactor("pbuvloop")
from twisted.internet import protocol
import asyncio

class Child(protocol.ProcessProtocol):
    def processExited(self, reason):
        print("loop", type(asyncio.get_event_loop()).__module__)
        print("after", time.monotonic() - began)
        transport.loseConnection()
        reactor.callLater(float(WAIT), reactor.stop)

began = time.monotonic()
def begin():
    global transport
    transport = reactor.spawnProcess(
        Child(), "/bin/sh", ["sh", "-c", "sleep 20 & echo pid $!; sleep 0.2"], env=None,
        childFDs={0: "w", 1: 1, 2: "r"},
    )
reactor.callWhenRunning(begin)
reactor.run()
print("stopped")
"""
WITHIN_S = 15


class ReactorTests(SynchronousTestCase):
    def begin(self, wait_s: float) -> subprocess.Popen[str]:
        path = os.pathsep.join(entry or "." for entry in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-uc", SCRIPT.replace("WAIT", str(wait_s))],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def lines(self, process: subprocess.Popen[str]) -> dict[str, str]:
        assert process.stdout is not None
        found = {}
        for line in process.stdout:
            word, _, rest = line.strip().partition(" ")
            found[word] = rest
            if word == "pid":
                self.addCleanup(os.kill, int(rest), signal.SIGKILL)
            if word in ("after", "stopped"):
                break
        return found

    def test_listed(self) -> None:
        """twistd finds the reactor by its short name."""
        self.assertIn("pbuvloop", [kind.shortName for kind in getReactorTypes()])

    def test_child_death_is_seen_at_once(self) -> None:
        """A child's end is seen when it ends, not when somebody closes its pipes."""
        found = self.lines(self.begin(0))
        self.assertTrue(found["loop"].startswith("uvloop"), found)
        self.assertLess(float(found["after"]), WITHIN_S)

    def test_sigterm_stops_it(self) -> None:
        """SIGTERM ends the reactor at once, although nothing else happens on the loop."""
        process = self.begin(600)
        self.lines(process)
        process.terminate()
        assert process.stdout is not None
        self.assertIn("stopped", process.stdout.readline())
        process.wait(WITHIN_S)
