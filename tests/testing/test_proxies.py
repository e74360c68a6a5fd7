"""The proxies of the harness do to a TCP connection what they say, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.proxies import ProxyNet
from pbcluster.testing.routed import Owners

#: Connects from a port of its own to another one, says so, and ends with its input.
_CONNECTS = """
import socket, sys
made = socket.socket()
made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
made.bind(("127.0.0.1", int(sys.argv[1])))
made.connect(("127.0.0.1", int(sys.argv[2])))
print("there", flush=True)
sys.stdin.read()
"""


class Echo:
    """Sends back what it gets, to anybody."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heard = b""
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                self.heard += data
                connection.sendall(data)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


class ProxyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.strangers: set[int] = set()
        self.echo = Echo()
        self.addCleanup(self.echo.close)
        self.unseen = 0
        self.net = ProxyNet(self.who, seed=7)
        self.addCleanup(self.net.close)
        self.port = self.net.link("a", "b", self.echo.port)

    def who(self, port: int, door: int) -> str:
        if self.unseen:
            self.unseen -= 1
            return ""
        self.assertEqual(door, self.port)
        return "stranger" if port in self.strangers else "a"

    def connect(self, timeout_s: float = 5.0) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        self.addCleanup(made.close)
        return made

    def ask(self, connection: socket.socket, data: bytes) -> bytes:
        connection.sendall(data)
        return self.read(connection, len(data))

    def read(self, connection: socket.socket, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = connection.recv(size - len(found))
            if not part:
                raise ConnectionError("ended")
            found += part
        return found

    def test_bytes_pass(self) -> None:
        """Much data comes back as it was, an end is passed on, several connections at once."""
        data = bytes(range(256)) * 8192
        first, second = self.connect(), self.connect()
        sender = threading.Thread(target=first.sendall, args=(data,))
        sender.start()
        self.assertEqual(self.ask(second, b"small"), b"small")
        self.assertEqual(self.read(first, len(data)), data)
        sender.join()
        first.shutdown(socket.SHUT_WR)
        self.assertEqual(first.recv(1), b"")

    def test_cut(self) -> None:
        """An open connection breaks at once, a new one too; healed, new ones work."""
        connection = self.connect()
        self.ask(connection, b"x")
        self.net.cut("a", "b")
        with self.assertRaises(ConnectionError):
            self.ask(connection, b"y")
        with self.assertRaises(ConnectionError):
            self.ask(self.connect(), b"z")
        self.net.heal("a", "b")
        self.assertEqual(self.ask(self.connect(), b"again"), b"again")

    def test_blackhole(self) -> None:
        """Nothing passes and nothing breaks; healed, what waited arrives, in order."""
        connection = self.connect()
        self.ask(connection, b"x")
        self.net.blackhole("a", "b")
        new = self.connect()
        for one, data in ((connection, b"late"), (new, b"later")):
            one.sendall(data)
            one.settimeout(0.1)
            with self.assertRaises(TimeoutError):
                one.recv(100)
            one.settimeout(5)
        self.net.heal("a", "b")
        for one, data in ((connection, b"late"), (new, b"later")):
            self.assertEqual(self.read(one, len(data)), data)
            self.assertEqual(self.ask(one, b"!"), b"!")

    def test_one_way(self) -> None:
        """Mute: a request does not arrive; deaf: it does, its answer comes after healing."""
        connection = self.connect()
        self.ask(connection, b"x")
        for fault, word, arrives in ((self.net.mute, b"m", False), (self.net.deafen, b"d", True)):
            fault("a", "b")
            connection.sendall(b"lat" + word)
            connection.settimeout(0.1)
            with self.assertRaises(TimeoutError):
                connection.recv(100)
            self.assertEqual(word in self.echo.heard, arrives)
            connection.settimeout(5)
            self.net.heal("a", "b")
            self.assertEqual(self.read(connection, 4), b"lat" + word)

    def test_delay(self) -> None:
        """Every chunk is late by the given time, each way; many at once are not later."""
        connection = self.connect()
        self.ask(connection, b"x")
        self.net.delay("a", "b", 0.1)
        began = time.monotonic()
        self.ask(connection, b"y" * 100_000)
        took = time.monotonic() - began
        self.assertGreaterEqual(took, 0.2)
        self.assertLess(took, 1.0)

    def test_drop(self) -> None:
        """Connections end by the dice: all of them at 1, none at 0, some between."""
        self.net.drop("a", "b", 1.0)
        with self.assertRaises(ConnectionError):
            self.ask(self.connect(), b"x")
        self.net.drop("a", "b", 0.2)
        broken = 0
        for _ in range(30):
            try:
                self.ask(self.connect(), b"x")
            except ConnectionError:
                broken += 1
        self.assertTrue(0 < broken < 30, broken)

    def test_the_target_is_away(self) -> None:
        """A connection to a process that does not listen is reset."""
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        self.port = self.net.link("a", "c", port)
        with self.assertRaises(ConnectionError):
            self.ask(self.connect(), b"x")

    def test_close_ends_everything(self) -> None:
        """After close no thread, port or connection is left; closing twice is fine."""
        connection = self.connect()
        self.ask(connection, b"x")
        self.net.blackhole("a", "b")
        self.net.close()
        self.net.close()
        with self.assertRaises(ConnectionError):
            self.ask(connection, b"y")
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
        self.assertNotIn("proxies", [thread.name for thread in threading.enumerate()])

    def test_close_while_somebody_is_looked_for(self) -> None:
        """A connection whose owner is not known yet leaves nothing that runs."""
        self.unseen = 10**6
        with socket.create_connection(("127.0.0.1", self.port)):
            until = time.monotonic() + 10
            while self.unseen == 10**6:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.002)
            self.net.close()
        self.assertEqual(asyncio.all_tasks(self.net._loop), set())

    def test_one_door_for_all(self) -> None:
        """A port has one door, whoever comes; a fault of one link does not touch others' ways."""
        self.assertEqual(self.net.link("c", "b", self.echo.port), self.port)
        self.net.cut("a", "b")
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        self.strangers.add(other.getsockname()[1])
        other.connect(("127.0.0.1", self.port))
        self.assertEqual(self.ask(other, b"fine"), b"fine")

    def test_unknown_links(self) -> None:
        """A link that is none is an error that names those that are."""
        with self.assertRaisesRegex(KeyError, "from b to a.*a→b"):
            self.net.cut("b", "a")

    def test_whom_the_table_missed_is_looked_for_again(self) -> None:
        """A cut holds for a connection whose owner was not found at the first look."""
        self.net.cut("a", "b")
        self.unseen = 2
        connection = self.connect()
        with self.assertRaises(ConnectionError):
            self.ask(connection, b"hello")
        self.assertEqual((self.unseen, self.echo.heard), (0, b""))


class OwnerTests(SynchronousTestCase):
    """Whose a connection is."""

    def test_two_processes_connect_from_one_port(self) -> None:
        """To different ports, as the kernel allows and does on a busy machine."""
        doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for door in doors:
            self.addCleanup(door.close)
        ours, theirs = (door.getsockname()[1] for door in doors)
        made = socket.socket()
        self.addCleanup(made.close)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", 0))
        port = made.getsockname()[1]
        made.connect(("127.0.0.1", ours))
        command = [sys.executable, "-c", _CONNECTS, str(port), str(theirs)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            self.assertEqual(other.stdout.readline(), b"there\n")
            processes = {"we": os.getpid(), "they": other.pid}
            owners = Owners()
            for _ in range(2):  # from the tables, then from what is remembered
                self.assertEqual(owners.of(port, ours, processes), "we")
                self.assertEqual(owners.of(port, theirs, processes), "they")
                self.assertEqual(owners.of(port, 1, processes), "")
            self.assertEqual(owners.of(port, theirs, {"they": os.getppid()}), "they")
            self.assertEqual(owners.of(port, theirs, {"other": 2**30}), "")
            other.stdin.close()
