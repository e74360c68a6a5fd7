"""Descriptors: the limit is raised, counted, and running out of them kills no listener."""

import os
import subprocess
import sys
import textwrap

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import descriptors


def run(code: str) -> str:
    """What a Python process of its own prints: limits hold for a whole process."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class DescriptorTests(SynchronousTestCase):
    def test_raised(self) -> None:
        """The soft limit becomes the hard one, which stays; again changes nothing."""
        told = run(
            """
            import resource
            from pbcluster import descriptors
            hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 600)
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
            assert descriptors.limit() == 100
            assert descriptors.raise_limit() == hard
            assert descriptors.raise_limit() == descriptors.limit() == hard
            print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
            """
        )
        self.assertEqual(told.strip(), "True")

    def test_counted(self) -> None:
        """Each one that is opened counts, whether the kernel counts or we do."""
        before = descriptors.in_use()
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        try:
            self.assertEqual(descriptors.in_use(), before + 20)
            self.assertEqual(len(os.listdir("/proc/self/fd")) - 1, before + 20)
        finally:
            for each in opened:
                os.close(each)

    def test_what_fits(self) -> None:
        """A connection on either side of each request, and some are kept for the rest."""
        cases = (
            (20_000, 2**20, 20_000),
            (20_000, 20_000, 9_936),
            (20_000, 1024, 448),
            (20_000, 100, 1),
            (5, 1024, 5),
        )
        for wanted, allowed, fit in cases:
            self.assertEqual(descriptors.fit_connections(wanted, allowed), fit)

    def test_listener_survives(self) -> None:
        """With no descriptor left the listener serves whom it let in and closes all others, so that
        nothing stays that it would be woken for again and again; later it lets in again."""
        told = run(
            """
            import os, resource, socket, threading
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            from pbcluster import reactor as ours
            ours.install()
            from twisted.internet import reactor
            from pbcluster.web.limits import Limits
            from pbcluster.web.pool import UpstreamPool, tcp_endpoints
            from pbcluster.web.server import HTTPServerFactory

            factory = HTTPServerFactory(
                lambda exchange: exchange.respond(200, b"fine"),
                Limits(),
                reactor,
                pool=UpstreamPool(reactor, tcp_endpoints(reactor)),
            )
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            address = ("127.0.0.1", port.getHost().port)
            # The client is a process of its own: its descriptors are not ours.
            pid = os.fork()
            if pid == 0:
                try:
                    os.closerange(3, 64)
                    crowd = []
                    for _ in range(50):
                        one = socket.socket()
                        one.settimeout(20)
                        one.connect(address)
                        crowd.append(one)
                    closed = 0
                    for one in crowd:
                        try:
                            one.sendall(b"GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
                            closed += b"fine" not in one.recv(4096)
                        except OSError as error:
                            assert not isinstance(error, TimeoutError)
                            closed += 1
                    assert 5 <= closed < 50, closed
                    for one in crowd:
                        one.close()
                    for _ in range(200):
                        again = socket.create_connection(address, timeout=20)
                        again.sendall(b"GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
                        try:
                            if b"fine" in again.recv(4096):
                                os._exit(0)
                        except ConnectionResetError:
                            pass
                        again.close()
                finally:
                    os._exit(1)
            ended = []
            def wait():
                ended.append(os.waitpid(pid, 0)[1])
                reactor.callFromThread(reactor.stop)
            threading.Thread(target=wait).start()
            reactor.run()
            print(ended[0])
            """
        )
        self.assertEqual(told.split(), ["0"])
