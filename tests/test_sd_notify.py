"""What a service manager is told, over a real datagram socket."""

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import ready_file, sd_notify


class Manager:
    """The manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(10)
        self._socket.bind(address)

    def heard(self) -> list[str]:
        return self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


class NotifyTests(SynchronousTestCase):
    def manager(self, address: str) -> Manager:
        found = Manager(address)
        self.addCleanup(found.close)
        return found

    def test_a_path(self) -> None:
        """A datagram with one assignment a line arrives; a status stays one line."""
        path = os.path.relpath(self.mktemp())  # sun_path is short
        manager = self.manager(path)
        environment = {"NOTIFY_SOCKET": str(Path(path).absolute())}
        self.assertTrue(
            sd_notify.tell(sd_notify.READY, status="serves\nat once", environment=environment)
        )
        self.assertEqual(manager.heard(), ["READY=1", "STATUS=serves at once"])

    def test_an_abstract_name(self) -> None:
        """A name that begins with @ is one of the abstract name space."""
        name = f"pbcluster-test-{os.getpid()}"
        manager = self.manager("\0" + name)
        self.assertTrue(
            sd_notify.tell(sd_notify.STOPPING, environment={"NOTIFY_SOCKET": "@" + name})
        )
        self.assertEqual(manager.heard(), ["STOPPING=1"])

    def test_nobody_listens(self) -> None:
        """Without a manager, with one that is gone, and with what names no socket: nothing
        happens."""
        for value in ("", "@", "relative", "vsock:2:1234", "/nowhere/at/all", "/" + "x" * 200):
            told = sd_notify.tell(sd_notify.READY, environment={"NOTIFY_SOCKET": value})
            self.assertFalse(told, value)
        self.assertFalse(sd_notify.tell(sd_notify.READY, environment={}))

    def test_with_the_ready_file(self) -> None:
        """The manager is told when the ready file appears and when it goes; a file of another
        process stays."""
        name = f"pbcluster-ready-{os.getpid()}"
        manager = self.manager("\0" + name)
        self.patch(os, "environ", os.environ | {"NOTIFY_SOCKET": "@" + name})
        data = Path(self.mktemp())
        data.mkdir()
        ready_file.write(data, node="http://127.0.0.1:1")
        self.assertEqual(manager.heard(), ["READY=1", "STATUS=serves"])
        ready_file.leave(data)
        self.assertEqual(manager.heard(), ["STOPPING=1", "STATUS=stops"])
        self.assertFalse((data / ready_file.NAME).exists())
        (data / ready_file.NAME).write_text('{"pid": 1}')
        ready_file.leave(data)
        self.assertTrue((data / ready_file.NAME).exists())
