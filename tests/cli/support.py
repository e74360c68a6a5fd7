"""What the tests of the command line share: a directory of their own, and bounded waiting."""

import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.layout import ClusterDir

WITHIN_S = 20.0


class DirectoryTestCase(SynchronousTestCase):
    """Each test has a new directory, ``self.where``."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir(parents=True)
        self.where = ClusterDir.at(self.root / "c")

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Processes of the system cannot be awaited otherwise: look often, not forever."""
        end = time.monotonic() + WITHIN_S
        while not happened():
            if time.monotonic() > end:
                self.fail(f"waited {WITHIN_S} s for {what}")
            time.sleep(0.02)
