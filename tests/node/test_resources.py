"""The machine's figures."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.resources import Resources, is_short
from pbcluster.records import NodeResources

STAT = "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n"
MEMINFO = "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  250 kB\nBuffers: 1 kB\n"


class ResourcesTests(SynchronousTestCase):
    def test_figures(self) -> None:
        """CPU since the last reading, memory in bytes."""
        proc = Path(self.mktemp())
        proc.mkdir()
        (proc / "meminfo").write_text(MEMINFO)
        (proc / "stat").write_text(STAT.format(busy=100, idle=100))
        resources = Resources(proc, proc)
        (proc / "stat").write_text(STAT.format(busy=130, idle=110))
        found = resources.read()
        self.assertEqual(found.cpu_usage, 0.75)
        self.assertEqual(found.memory_total_bytes, 1000 * 1024)
        self.assertEqual(found.memory_used_bytes, 750 * 1024)
        self.assertGreater(found.disk_total_bytes, 0)

    def test_unreadable(self) -> None:
        """A machine that hides its figures is no reason to fail."""
        nowhere = Path(self.mktemp())
        self.assertEqual(Resources(nowhere, nowhere).read(), NodeResources())

    def test_short(self) -> None:
        """Over 90 % of memory or disk is short; unknown totals are not."""
        self.assertTrue(is_short(NodeResources(memory_used_bytes=91, memory_total_bytes=100)))
        self.assertTrue(is_short(NodeResources(disk_used_bytes=91, disk_total_bytes=100)))
        self.assertFalse(is_short(NodeResources(disk_used_bytes=89, disk_total_bytes=100)))
        self.assertFalse(is_short(NodeResources()))
