"""Identities, single processes and their logs."""

import os
import signal
import subprocess
import sys

import attrs

from pbcluster.cli import child, procfs
from pbcluster.cli.child import Child
from pbcluster.errors import ProcessFailed
from tests.cli.fake_cluster import fake_spec
from tests.cli.support import DirectoryTestCase


class IdentityTests(DirectoryTestCase):
    def test_same_and_not_same(self) -> None:
        """A process is itself; with another start time it is a stranger and gets no signal."""
        me = procfs.identify(os.getpid())
        assert me is not None
        self.assertTrue(procfs.alive(me))
        stranger = attrs.evolve(me, started=me.started + "0")
        self.assertFalse(procfs.alive(stranger))
        # Were it sent, it would end this test run.
        self.assertFalse(procfs.send(stranger, signal.SIGKILL))
        self.assertEqual(procfs.from_json(me.as_json()), me)
        self.assertIsNone(procfs.from_json({"pid": "1"}))

    def test_zombie_is_dead(self) -> None:
        """A process that ended but was not waited for does not live."""
        ended = subprocess.Popen([sys.executable, "-c", ""])
        self.addCleanup(ended.wait)
        self.until(lambda: procfs.identify(ended.pid) is None, "its end")

    def test_end_all(self) -> None:
        """Who ignores SIGTERM is killed after the grace; the count says so."""
        deaf = "import signal,sys; signal.signal(15, signal.SIG_IGN); print(1); signal.pause()"
        two = [
            subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE)
            for code in (deaf, "import signal; print(1); signal.pause()")
        ]
        for one in two:
            assert one.stdout is not None
            self.addCleanup(one.communicate)
            one.stdout.readline()
        found = [who for one in two if (who := procfs.identify(one.pid))]
        self.assertEqual(procfs.end_all(found, 0.5), 1)
        self.assertEqual([who for who in found if procfs.alive(who)], [])


class ChildTests(DirectoryTestCase):
    def start(self, how: str = "") -> Child:
        found = Child(fake_spec(self.where, "node_1", "node", how))
        self.where.root.mkdir(exist_ok=True)
        self.addCleanup(lambda: (found.kill(with_children=True), found.wait(5)))
        found.start()
        return found

    def test_life(self) -> None:
        """It serves when its ready file bears its process id, and ends by SIGTERM."""
        one = self.start()
        self.until(one.serving, "it to serve")
        self.assertIsNone(one.ended())
        self.assertTrue(one.stop())
        self.assertEqual(one.ended(), "exit status 0")
        self.assertFalse(one.serving())

    def test_stale_ready_file(self) -> None:
        """A ready file of an earlier process is no sign that this one serves."""
        spec = fake_spec(self.where, "node_1", "node")
        assert spec.ready_file is not None
        spec.ready_file.parent.mkdir(parents=True)
        spec.ready_file.write_text('{"pid": 1}')
        one = self.start("hang")
        self.assertFalse(one.serving())
        self.assertFalse(spec.ready_file.exists())

    def test_own_group_and_parent_death(self) -> None:
        """It has a process group of its own, so a Ctrl-C at the terminal does not reach it."""
        one = self.start()
        assert one.pid is not None
        self.until(one.serving, "it to serve")
        self.assertEqual(os.getpgid(one.pid), one.pid)

    def test_environment(self) -> None:
        """Variables of the user's shell, secrets among them, do not reach it."""
        os.environ["AWS_SECRET_ACCESS_KEY"] = "hush"
        self.addCleanup(os.environ.pop, "AWS_SECRET_ACCESS_KEY", None)
        one = self.start()
        self.until(one.serving, "it to serve")
        with open(f"/proc/{one.pid}/environ", "rb") as stream:
            self.assertNotIn(b"hush", stream.read())

    def test_no_program(self) -> None:
        """A program that is not there ends with a sentence in the log."""
        spec = attrs.evolve(fake_spec(self.where, "x", "node"), argv=("/no/such/program",))
        one = Child(spec)
        one.start()
        self.assertTrue(one.wait(10))
        self.assertEqual(one.ended(), "exit status 127")
        self.assertIn("cannot start /no/such/program", one.tail())

    def test_log_in_the_way(self) -> None:
        """A log that cannot be written is an error with the process's name."""
        spec = fake_spec(self.where, "x", "node")
        spec.log_file.mkdir(parents=True)
        with self.assertRaisesRegex(ProcessFailed, "cannot start x"):
            Child(spec).start()


class LogTests(DirectoryTestCase):
    def test_bounded(self) -> None:
        """A large log is copied aside and emptied, and its writer goes on at the new end."""
        file = self.root / "x.log"
        with file.open("ab", buffering=0) as writer:
            writer.write(b"a" * 100)
            self.assertFalse(child.bound_log(file, 100))
            writer.write(b"b")
            self.assertTrue(child.bound_log(file, 100))
            writer.write(b"new")
        self.assertEqual(file.read_bytes(), b"new")
        self.assertEqual((self.root / "x.log.1").stat().st_size, 101)

    def test_tail(self) -> None:
        """The tail is the last lines, of a file that may be large or absent."""
        file = self.root / "x.log"
        file.write_text("".join(f"line {n}\n" for n in range(100_000)))
        self.assertEqual(child.tail(file, 2), "line 99998\nline 99999")
        self.assertEqual(child.tail(self.root / "none"), "")
