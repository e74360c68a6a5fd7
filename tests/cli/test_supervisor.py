"""The supervisor, as a process of its own, over fake services."""

import os
import signal
import subprocess
import sys

from pbcluster.cli import procfs, state
from tests.cli.fake_cluster import PROCESSES
from tests.cli.support import WITHIN_S, DirectoryTestCase


class SupervisorTests(DirectoryTestCase):
    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.fake_cluster", str(self.where.root), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        )
        self.addCleanup(self.finish, process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        if process.poll() is None:
            process.terminate()
        try:
            output, _ = process.communicate(timeout=WITHIN_S)
        except ValueError:  # its output was read before
            output = ""
        return process.returncode, output

    def serving(self) -> bool:
        now = state.read_state(self.where)
        runs = state.supervisor(self.where) is not None
        return runs and now is not None and now.phase == state.SERVING

    def of(self, name: str) -> state.ProcessState:
        now = state.read_state(self.where)
        assert now is not None
        return next(process for process in now.processes if process.id == name)

    def journal(self) -> list[str]:
        return (self.where.root / "journal").read_text().splitlines()

    def living(self) -> list[procfs.Identity]:
        return state.living(self.where)

    def test_order(self) -> None:
        """What others need starts first and stops last; afterwards nothing lives."""
        process = self.begin()
        self.until(self.serving, "the cluster to serve")
        alive = self.living()
        self.assertEqual(len(alive), len(PROCESSES))
        status, _ = self.finish(process)
        self.assertEqual(status, 0)
        started = [line.split()[1] for line in self.journal() if line.startswith("start")]
        self.assertEqual((len(started), started[-1]), (len(PROCESSES), "node_1"))
        stopped = [line for line in self.journal() if line.startswith("stop")]
        order = ["stop gateway_1", "stop node_1", "stop member_1", "stop s3_1"]
        self.assertEqual(stopped, order)
        self.assertEqual([who for who in alive if procfs.alive(who)], [])
        self.assertIsNone(state.supervisor(self.where))

    def test_restart(self) -> None:
        """A killed process is started again as another process; the others are left alone."""
        self.begin()
        self.until(self.serving, "the cluster to serve")
        old, other = self.of("node_1").identity, self.of("gateway_1").identity
        assert old is not None
        procfs.send(old, signal.SIGKILL)
        self.until(
            lambda: self.of("node_1").restarts == 1 and self.of("node_1").state == state.SERVING,
            "the node to serve again",
        )
        self.assertNotEqual(self.of("node_1").identity, old)
        self.assertEqual(self.of("node_1").reason, "killed by SIGKILL")
        self.assertEqual(self.of("gateway_1").identity, other)

    def test_no_restart(self) -> None:
        """With --no-restart a dead process stays dead and the state says so."""
        self.begin("--no-restart")
        self.until(self.serving, "the cluster to serve")
        old = self.of("node_1").identity
        assert old is not None
        procfs.send(old, signal.SIGKILL)
        self.until(lambda: self.of("node_1").state == state.DEAD, "the node's death to be seen")

    def test_never_serves(self) -> None:
        """A process that ends again and again before it serves ends all, with its log's words."""
        process = self.begin("node_1=exit")
        output, _ = process.communicate(timeout=WITHIN_S)
        self.assertEqual(process.returncode, 1)
        self.assertIn("node_1 does not start (exit status 3)", output)
        self.assertIn("I have a reason to end", output)
        self.assertEqual(self.living(), [])

    def test_one_member_of_three_may_stay_away(self) -> None:
        """A member that lost its disk does not start; the cluster does, so that it can be removed.
        Two are too many."""
        process = self.begin("member_2=exit", "member_3=fine")
        self.until(self.serving, "the cluster to serve")
        self.assertEqual(self.of("member_2").state, state.DEAD)
        self.assertEqual(self.of("member_2").reason, "exit status 3")
        now = state.read_state(self.where)
        assert now is not None
        self.assertIn("member_2 does not start (exit status 3); the others go on", now.message)
        self.assertEqual(self.finish(process)[0], 0)
        process = self.begin("member_2=exit", "member_3=exit")
        output, _ = process.communicate(timeout=WITHIN_S)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(output, r"member_\d does not start \(exit status 3\)")

    def test_serves_too_late(self) -> None:
        """A process that lives but does not serve within the limit is named."""
        process = self.begin("gateway_1=hang")
        output, _ = process.communicate(timeout=WITHIN_S)
        self.assertEqual(process.returncode, 1)
        self.assertIn("gateway_1 did not come to serve within 4 s", output)
        self.assertEqual(self.living(), [])

    def test_deaf(self) -> None:
        """A process that ignores SIGTERM is killed after its grace."""
        process = self.begin("node_1=deaf")
        self.until(self.serving, "the cluster to serve")
        node = self.of("node_1").identity
        assert node is not None
        self.assertEqual(self.finish(process)[0], 0)
        self.assertFalse(procfs.alive(node))

    def test_the_plan_is_read_again(self) -> None:
        """At SIGUSR1 who is new starts, who is gone ends (by force after its grace, and is not
        started again), and everybody else goes on; a plan that cannot be read changes nothing."""
        process = self.begin("node_1=deaf")
        self.until(self.serving, "the cluster to serve")
        before = {one.id: one.identity for one in state.read_state(self.where).processes}  # type: ignore[union-attr]
        process.send_signal(signal.SIGUSR1)
        self.until(lambda: "names" in state.read_state(self.where).message, "a word about it")  # type: ignore[union-attr]
        names = ["s3_1", "member_1", "member_2", "gateway_1"]
        (self.where.root / "names").write_text("\n".join(names))
        process.send_signal(signal.SIGUSR1)

        def changed() -> bool:
            now = state.read_state(self.where)
            return now is not None and {(p.id, p.state) for p in now.processes} == {
                (name, state.SERVING) for name in names
            }

        self.until(changed, "member_2 to serve and node_1 to be gone")
        gone = before.pop("node_1")
        assert gone is not None
        self.assertFalse(procfs.alive(gone))
        for name, who in before.items():
            self.assertEqual(self.of(name).identity, who)
        self.assertEqual(self.finish(process)[0], 0)
        self.assertEqual(self.living(), [])

    def test_one_supervisor(self) -> None:
        """A second supervisor of the same directory is refused and harms nothing."""
        self.begin()
        self.until(self.serving, "the cluster to serve")
        before = self.living()
        second = self.begin()
        output, _ = second.communicate(timeout=WITHIN_S)
        self.assertEqual(second.returncode, 1)
        self.assertIn("already running", output)
        self.assertEqual(self.living(), before)

    def test_killed_supervisor(self) -> None:
        """kill -9 of the supervisor takes its processes along; the next one takes over cleanly."""
        process = self.begin()
        self.until(self.serving, "the cluster to serve")
        old = self.living()
        process.kill()
        process.communicate(timeout=WITHIN_S)
        self.until(lambda: not [w for w in old if procfs.alive(w)], "the processes to end")
        self.assertFalse(self.serving())
        self.begin()
        self.until(self.serving, "the next supervisor to serve")

    def test_leftover(self) -> None:
        """A process that outlives a killed supervisor is ended before anything is started."""
        process = self.begin("node_1=deaf")
        self.until(self.serving, "the cluster to serve")
        node = self.of("node_1").identity
        assert node is not None
        process.kill()
        process.communicate(timeout=WITHIN_S)
        self.assertTrue(procfs.alive(node))
        # It is deaf: only SIGKILL after the grace ends it.
        self.addCleanup(procfs.send, node, signal.SIGKILL)
        self.begin()
        self.until(lambda: not procfs.alive(node), "the leftover to be killed")
        self.until(self.serving, "the next supervisor to serve")
