"""Two namespaces and a cable: packets are lost one way, both ways, or by chance, and pass again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.chaos.kernel_net import HERE, KernelNet, Way, unavailable

#: Connects, and sends each line that it gets; says whether it came back, whatever came before it.
CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    connection.sendall(line.encode())
    connection.settimeout(0.4 if line.startswith("q") else 10)
    found = b""
    try:
        while not found.endswith(line.encode()):
            found += connection.recv(100)
        print("heard", flush=True)
    except TimeoutError:
        print("silence", flush=True)
"""


class KernelNetTests(SynchronousTestCase):
    timeout = 60

    def setUp(self) -> None:
        if unavailable():
            raise SkipTest(unavailable())  # .ci/run installs it, as root

    def test_one_way_and_both(self) -> None:
        """What is lost one way arrives nowhere, or is carried out and its answer lost; other ports
        are not touched; afterwards TCP brings what was lost. The thread is where it was before, and
        nothing is left."""
        before = os.readlink("/proc/thread-self/ns/net")
        with KernelNet() as net:
            listener = socket.create_server((HERE, 0))
            self.addCleanup(listener.close)
            port = listener.getsockname()[1]
            heard: list[bytes] = []
            threading.Thread(target=self.echo, args=(listener, heard), daemon=True).start()
            argv = net.there((sys.executable, "-c", CLIENT, HERE, str(port)))
            client = subprocess.Popen(argv, stdin=-1, stdout=-1, text=True)
            self.addCleanup(client.communicate)

            def ask(line: str) -> str:
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(line + "\n")
                client.stdin.flush()
                return client.stdout.readline().strip()

            self.assertEqual(ask("a"), "heard")
            net.lose([Way(here=(port + 1,))], going=True, coming=True)
            self.assertEqual(ask("b"), "heard")
            for going, word in ((True, b"q1"), (False, b"q2")):
                net.lose([Way(here=(port,))], going=going, coming=not going)
                self.assertEqual(ask(word.decode()), "silence")
                self.assertEqual(word in b"".join(heard), not going)
                net.heal()
                self.assertEqual(ask("c" + word.decode()), "heard")
            net.lose([Way(here=(port,))], going=True, coming=True, percent=30)
            self.assertEqual([ask(f"d{number}") for number in range(5)], ["heard"] * 5)
        self.assertEqual(os.readlink("/proc/thread-self/ns/net"), before)
        left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        self.assertNotIn("pbchaos-", left.stdout)

    @staticmethod
    def echo(listener: socket.socket, heard: list[bytes]) -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(100):
                heard.append(data)
                connection.sendall(data)
