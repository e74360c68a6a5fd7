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


TIMERS = """
import time
from twisted.application.reactors import installReactor
reactor = installReactor("pbuvloop")
from twisted.internet.error import AlreadyCalled, AlreadyCancelled

began = time.monotonic()
said = []

def note(word):
    said.append((word, time.monotonic() - began))

def raised(error, function, *arguments):
    try:
        function(*arguments)
    except error:
        note(error.__name__)

def begin():
    called = reactor.callLater(0, note, "first")
    reactor.callLater(0, note, "second")
    gone = reactor.callLater(0.01, note, "never")
    gone.cancel()
    raised(AlreadyCancelled, gone.cancel)
    reactor.callLater(0.02, int, 'no number')
    reactor.callLater(0.03, raised, AlreadyCalled, called.cancel)
    later = reactor.callLater(0.05, note, "later")
    later.reset(0.15)
    sooner = reactor.callLater(5, note, "sooner")
    sooner.reset(0.1)
    assert 0.05 < sooner.getTime() - reactor.seconds() <= 0.1, sooner.getTime()
    assert sooner in reactor.getDelayedCalls() and gone not in reactor.getDelayedCalls()
    reactor.callInThread(reactor.callFromThread, note, "thread")
    reactor.callLater(0.2, reactor.stop)

reactor.addSystemEventTrigger("before", "shutdown", note, "shutdown")
reactor.callWhenRunning(begin)
reactor.run()
for word, at in said:
    print(word, at)
"""


FROM_THREADS = """
import threading
from twisted.application.reactors import installReactor
reactor = installReactor("pbuvloop")
found = {number: [] for number in range(4)}

def called(number, call):
    found[number].append(call)
    if sum(map(len, found.values())) == 4 * 5000:
        reactor.stop()

def calls(number):
    for call in range(5000):
        reactor.callFromThread(called, number, call)

for number in found:
    reactor.callInThread(calls, number)
reactor.run()
print(all(calls == list(range(5000)) for calls in found.values()))
"""


class TimerTests(SynchronousTestCase):
    """The reactor's own timers keep Twisted's promises."""

    def test_no_call_from_a_thread_is_lost(self) -> None:
        """Those of one thread come in order, whoever wakes the loop."""
        done = subprocess.run(
            [sys.executable, "-c", FROM_THREADS],
            stdout=subprocess.PIPE,
            text=True,
            timeout=WITHIN_S,
            check=True,
        )
        self.assertEqual(done.stdout, "True\n")

    def test_promises(self) -> None:
        """Calls come in order and never early, may be moved and cancelled, and one that fails
        hurts no other; those from threads come too, and the shutdown's events are fired."""
        done = subprocess.run(
            [sys.executable, "-c", TIMERS],
            stdout=subprocess.PIPE,
            text=True,
            timeout=WITHIN_S,
            check=True,
        )
        found = {word: float(at) for word, at in map(str.split, done.stdout.splitlines())}
        words = [word for word in found if word != "thread"]
        expected = "AlreadyCancelled first second AlreadyCalled sooner later shutdown"
        self.assertEqual(words, expected.split())
        self.assertIn("thread", found)
        self.assertGreaterEqual(found["sooner"], 0.1)
        self.assertGreaterEqual(found["later"], 0.15)
