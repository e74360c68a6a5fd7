"""Processes that are replaced at a note's word, by a real supervisor over fake services."""

import os
import signal
import subprocess
import sys

from pbcluster.cli import procfs, replacing, state
from pbcluster.cli.child import Child
from tests.cli.fake_cluster import PROCESSES, fake_spec
from tests.cli.support import WITHIN_S, DirectoryTestCase


class ReplacingTests(DirectoryTestCase):
    def begin(self, *arguments: str) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.fake_cluster", str(self.where.root), *arguments],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        )
        self.addCleanup(process.wait, WITHIN_S)
        self.addCleanup(process.terminate)
        self.until(self.serving, "the cluster to serve")
        (self.where.root / "names").write_text("\n".join(PROCESSES))

    def serving(self) -> bool:
        now = state.read_state(self.where)
        runs = state.supervisor(self.where) is not None
        return runs and now is not None and now.phase == state.SERVING

    def of(self, name: str) -> state.ProcessState:
        now = state.read_state(self.where)
        assert now is not None
        found = [p for p in now.processes if p.id == name and p.state != state.LEAVING]
        return found[0]

    def replace(self, name: str) -> None:
        self.where.replace_file(name).touch()
        who = state.supervisor(self.where)
        assert who is not None
        procfs.send(who, signal.SIGUSR1)

    def becomes_another(self, name: str, former: procfs.Identity | None) -> None:
        self.until(
            lambda: (
                self.of(name).state == state.SERVING
                and self.of(name).identity not in (None, former)
            ),
            f"another {name} to serve",
        )

    def journal(self, name: str) -> list[str]:
        lines = (self.where.root / "journal").read_text().splitlines()
        return [line.split()[0] for line in lines if line.split()[1] == name]

    def test_one_ends_before_the_next_starts(self) -> None:
        """A node is told to end and started anew at once, without the delay after a death; nobody
        else is touched, and the note is gone."""
        self.begin()
        former, other = self.of("node_1").identity, self.of("member_1").identity
        self.replace("node_1")
        self.becomes_another("node_1", former)
        self.assertEqual(self.journal("node_1"), ["start", "stop", "start"])
        self.assertEqual((self.of("node_1").restarts, self.of("node_1").reason), (1, ""))
        self.assertEqual(self.of("member_1").identity, other)
        self.assertFalse(self.where.replace_file("node_1").exists())

    def test_one_that_does_not_end_is_killed(self) -> None:
        """After its grace."""
        self.begin("node_1=deaf")
        former = self.of("node_1").identity
        self.replace("node_1")
        self.becomes_another("node_1", former)
        self.assertEqual(self.journal("node_1"), ["start", "start"])

    def test_a_dead_one_is_started(self) -> None:
        """Also where nothing is started again by itself."""
        self.begin("--no-restart")
        former = self.of("node_1").identity
        assert former is not None
        procfs.send(former, signal.SIGKILL)
        self.until(lambda: self.of("node_1").state == state.DEAD, "its death to be seen")
        self.replace("node_1")
        self.becomes_another("node_1", former)

    def test_only_gateways_take_over(self) -> None:
        """A gateway's successor is told to take over, once however often it is replaced; others
        have the same arguments as before."""
        for name, kind in PROCESSES.items():
            spec = fake_spec(self.where, name, kind)
            child = replacing.successor_of(replacing.successor_of(spec).spec)
            self.assertIsInstance(child, Child)
            wanted = spec.argv + ((replacing.TAKE_OVER,) if kind == "gateway" else ())
            self.assertEqual(child.spec.argv, wanted)
