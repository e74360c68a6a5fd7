"""Slices: asked for, had by what is started later, and no harm where there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import slices

#: In a process of its own: a slice is for life.
CODE = """
import subprocess, sys, threading
from pbcluster import slices
before = slices.of()
taken = slices.shorten()
found = []
thread = threading.Thread(target=lambda: found.append(slices.of()))
thread.start()
thread.join()
code = "from pbcluster import slices; print(slices.of())"
child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
print(before, taken, slices.of(), *found, child.strip())
"""


class SliceTests(SynchronousTestCase):
    def test_asked_for(self) -> None:
        """This thread's, and that of threads and processes that it starts."""
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True
        )
        before, taken, *found = done.stdout.split()
        self.assertEqual(taken, "True")
        # A kernel before 6.12 has none, and says so.
        wanted = slices.SLICE_NS if int(before) else 0
        self.assertEqual(found, [str(wanted)] * 3)

    def test_where_there_are_none(self) -> None:
        """Another kind of processor, or somebody who was given real-time rights: left alone."""
        with mock.patch("platform.machine", return_value="riscv64"):
            self.assertFalse(slices.shorten())
        with mock.patch.object(os, "sched_getscheduler", return_value=os.SCHED_FIFO):
            self.assertFalse(slices.shorten())
