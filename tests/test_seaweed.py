"""SeaweedFS on one machine: what keeps it from starting is told before it is tried."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ConfigError
from pbcluster.seaweed import OTHER_PORTS, check_left_sockets

PORTS = dict.fromkeys(OTHER_PORTS, 1) | {"volume_grpc": 18080}


class LeftSockets(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.left = self.directory / "seaweedfs-volume-grpc-18080.sock"
        self.left.touch()

    def check(self, uid: int) -> None:
        with mock.patch("os.geteuid", return_value=uid):
            check_left_sockets(PORTS, self.directory)

    def test_of_another_user(self) -> None:
        """A socket that another user left is named, with what to do."""
        error = self.assertRaises(ConfigError, self.check, os.getuid() + 1)
        self.assertIn(str(self.left), str(error))
        self.assertIn("--internal-port", str(error))

    def test_of_ones_own_or_none(self) -> None:
        """One's own is replaced by SeaweedFS, root may replace any, and without one nothing is in
        the way."""
        self.check(os.getuid())
        self.check(0)
        self.left.unlink()
        self.check(os.getuid() + 1)
