"""Children of a node as real processes: their end, their launch, the builds that they are."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from pbcluster import binaries, processes
from pbcluster.node import orphans
from tests.integration.support import tell

PARENT = """
import sys
from twisted.internet import reactor
from pbcluster import processes
processes_launched = processes.launched
if sys.argv[2] == "python":
    processes.launched = lambda argv: processes_launched(argv, util_linux=False)
from pathlib import Path
from pbcluster.node import orphans
def start():
    env = {"PATH": "/usr/bin:/bin", **orphans.marker(Path(sys.argv[1]))}
    child = processes.start_child(reactor, "sleep", ["/bin/sleep", "300"], env)
    wait(child)
def wait(child):
    name = Path(f"/proc/{child.pid}/comm").read_text().strip()
    if name == "sleep":
        print(child.pid, flush=True)
    else:
        reactor.callLater(0.01, wait, child)
reactor.callWhenRunning(start)
reactor.run()
"""


def _gone(pid: int, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


class DeathTests(TestCase):
    """What happens to children when nobody can tell them."""

    def parent(self, how: str, data_dir: Path) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PARENT), str(data_dir), how],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(processes.__file__).parent.parent,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        return process, int(process.stdout.readline())

    def test_kill_9_of_the_parent_ends_the_child(self) -> None:
        """By util-linux and by our own launcher: a child does not outlive a killed parent."""
        for how in ("system", "python"):
            process, child = self.parent(how, Path(self.mktemp()).absolute())
            process.kill()
            self.assertTrue(_gone(child, 5), how)

    def test_orphans_are_ended(self) -> None:
        """A process with our data directory's mark is ended, one with another's is not."""
        mine, other = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        started = {}
        for data_dir in (mine, other):
            env = {"PATH": "/usr/bin:/bin", **orphans.marker(data_dir)}
            process = subprocess.Popen(["/bin/sleep", "300"], env=env)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            started[data_dir] = process
        self.assertEqual(orphans.end_orphans(mine), 1)
        self.assertEqual(started[mine].wait(5), -signal.SIGKILL)
        self.assertIsNone(started[other].poll())
        self.assertEqual(orphans.end_orphans(mine), 0)

    def test_launch_costs(self) -> None:
        """Tying a child to our life costs milliseconds."""
        for name, util_linux in (("setsid+setpriv", True), ("launcher.py", False)):
            spent = []
            for _ in range(10):
                began = time.perf_counter()
                argv = processes.launched(["/bin/true"], util_linux=util_linux)
                subprocess.run(argv, check=True)
                spent.append(time.perf_counter() - began)
            tell(f"launch of /bin/true by {name} p50", sorted(spent)[5])
            self.assertLess(sorted(spent)[5], 2)


class BinaryTests(TestCase):
    async def test_the_installed_builds_are_the_tested_ones(self) -> None:
        """The installed binaries have the hashes of the table, and the second look is quick."""
        cache = Path(self.mktemp())
        began = time.monotonic()
        found = await binaries.verified(binaries.NAMES, (), cache)
        hashed = time.monotonic()
        self.assertEqual(set(found), set(binaries.NAMES))
        await binaries.verified(binaries.NAMES, (), cache)
        tell("hashing all three", hashed - began)
        tell("from the cache", time.monotonic() - hashed)
        self.assertLess(time.monotonic() - hashed, 0.2)
