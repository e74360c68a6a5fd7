"""A machine that lost its power is noticed by the kernel."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.web.client import notice_dead_peer


class DeadPeerTests(SynchronousTestCase):
    def test_the_kernel_is_told(self) -> None:
        """Keep-alive probes begin after 5 s and end the connection after three without an answer;
        unacknowledged data ends it after 10 s."""
        with socket.socket() as handle:
            notice_dead_peer(handle)
            self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
            found = [
                handle.getsockopt(socket.IPPROTO_TCP, option)
                for option in (
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                    socket.TCP_USER_TIMEOUT,
                )
            ]
        self.assertEqual(found, [5, 2, 3, 10_000])
