"""The harness itself: it starts, kills, freezes and always cleans up real processes."""

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs
from pbcluster.errors import DeadlineExceeded, InvalidInput, ProcessFailed
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.soak_members import leader_of


class HarnessTests(SynchronousTestCase):
    def cluster(self) -> RealCluster:
        found = RealCluster(nodes=1, members=1)
        self.addCleanup(found.close)
        return found

    def wait_leads(self, cluster: RealCluster) -> None:
        """A member that is alone is elected too; frozen for longer than that takes, it was none."""
        cluster.wait_until(lambda: leader_of(cluster) == "member_1", "it to lead", 10.0)

    def test_life_of_a_process(self) -> None:
        """A process serves, is killed, starts again as another one, and stops by itself."""
        cluster = self.cluster()
        cluster.start("member_1")
        first = cluster.pid("member_1")
        self.assertEqual(cluster.ready("member_1")["pid"], first)
        self.wait_leads(cluster)
        self.assertEqual(cluster.admin.all("tenants"), [])
        cluster.kill9("member_1")
        self.assertIsNone(cluster.pid("member_1"))
        cluster.start("member_1")
        self.assertNotEqual(cluster.pid("member_1"), first)
        self.assertTrue(cluster.stop("member_1"))
        self.assertEqual(cluster.ready("member_1"), {})

    def test_frozen(self) -> None:
        """A frozen process answers nothing until it goes on; closing ends it even so."""
        cluster = self.cluster()
        cluster.start("member_1")
        pid = cluster.pid("member_1")
        assert pid is not None
        cluster.sigstop("member_1")
        with self.assertRaisesRegex(Exception, "no answer"):
            cluster.admin.health(timeout_s=0.3)
        cluster.sigcont("member_1")
        self.wait_leads(cluster)
        cluster.sigstop("member_1")
        cluster.close()
        self.assertIsNone(procfs.identify(pid))
        self.assertFalse(cluster.where.root.exists())

    def test_a_death_is_told_with_the_log(self) -> None:
        """A process that ends instead of serving is an error with its log's words."""
        cluster = self.cluster()
        cluster.where.config("member_1").write_text('colour = "blue"\n')
        with self.assertRaisesRegex(ProcessFailed, "(?s)member_1 ended.*unknown setting 'colour'"):
            cluster.start("member_1")

    def test_waits_are_bounded(self) -> None:
        """Waiting for what does not come ends with a sentence and the logs."""
        cluster = self.cluster()
        with self.assertRaisesRegex(DeadlineExceeded, "waited 0 s for the moon"):
            cluster.wait_until(lambda: False, "the moon", timeout_s=0.1)
        with self.assertRaisesRegex(InvalidInput, "no process 'node_9'"):
            cluster.start("node_9")
