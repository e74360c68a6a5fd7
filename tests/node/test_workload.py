"""Whose socket listens on a port."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.workload import _reserve_port, owns_listener


class Listeners(SynchronousTestCase):
    def test_only_a_listening_socket_of_the_process_counts(self) -> None:
        """Our listener is ours, not our parent's; a reservation alone is no listener."""
        with _reserve_port() as reservation:
            port = reservation.getsockname()[1]
            self.assertFalse(owns_listener(os.getpid(), port))
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
                listener.listen()
                self.assertTrue(owns_listener(os.getpid(), port))
                self.assertFalse(owns_listener(os.getppid(), port))
            self.assertFalse(owns_listener(os.getpid(), port))
