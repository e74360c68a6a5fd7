"""Ports for what a test starts."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import ports
from pbcluster.testing.free_ports import free_ports


class FreePortTests(SynchronousTestCase):
    def test_nobodys_outgoing(self) -> None:
        """No connection gets one of them meanwhile: they can be listened on, and none is twice."""
        found = free_ports(20)
        self.assertEqual(len(set(found)), 20)
        self.assertLess(max(found), ports.first_outgoing())
        for port in found:
            socket.create_server(("127.0.0.1", port)).close()
