"""Listening sockets: shared out to workers, handed over, and bound once only."""

import json
import os
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbcluster.errors import ConfigError
from pbcluster.gateway import activation, handover, worker
from pbcluster.gateway.doors import Door, opened, share
from pbcluster.gateway.handover import Handover
from pbcluster.web import listening
from tests.gateway.test_service import settings


def door(*numbers: int) -> Door:
    return Door(
        "listen", ("127.0.0.1", 0), listening.bind(("127.0.0.1", 0), len(numbers), "listen")
    )


class ShareTests(SynchronousTestCase):
    def test_every_socket_has_somebody(self) -> None:
        """Whatever the numbers: all sockets are served, and every worker serves one."""
        for workers in range(1, 9):
            for sockets in range(1, 20):
                shares = [share(number, workers, sockets) for number in range(workers)]
                self.assertEqual(set().union(*shares), set(range(sockets)))
                self.assertTrue(all(shares))

    def test_equal_numbers(self) -> None:
        """With a socket for each worker nobody serves another's."""
        self.assertEqual([share(n, 3, 3) for n in range(3)], [{0}, {1}, {2}])


class BindTests(SynchronousTestCase):
    def test_several_of_one_address(self) -> None:
        """Port 0 is chosen once for all of them."""
        one = door(1, 2, 3)
        self.addCleanup(one.close)
        self.assertEqual(len({each.getsockname() for each in one.sockets}), 1)

    def test_not_beside_another(self) -> None:
        """An address that another process of ours shares is refused all the same."""
        one = door(1)
        self.addCleanup(one.close)
        address = one.sockets[0].getsockname()
        error = self.assertRaises(ConfigError, listening.bind, address, 1, "tls_listen")
        self.assertIn("(--tls-listen): Address already in use", str(error))

    def test_inherited(self) -> None:
        """A door is inherited if setting and address agree; further sockets are added for further
        workers; what is not used is closed."""
        port = door(1)
        address = port.sockets[0].getsockname()
        config = settings(Path(self.mktemp()), listen=f"127.0.0.1:{address[1]}", workers=3)
        port.address = address
        other = Door("gone_listen", ("127.0.0.1", 0), door(1).sockets)
        found = opened(config, [port, other])
        self.addCleanup(lambda: [each.close() for each in found.values()])
        self.assertEqual(len(found["listen"].sockets), 3)
        self.assertEqual(len(found["metrics_listen"].sockets), 1)
        self.assertEqual(other.sockets[0].fileno(), -1)


class ActivationTests(SynchronousTestCase):
    def test_for_another_process(self) -> None:
        """Variables that were meant for a parent are not ours."""
        environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
        self.assertEqual(activation.inherited(environment, {}), [])

    def test_nonsense(self) -> None:
        """A number that is none is refused, with what is allowed."""
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}
        error = self.assertRaises(ConfigError, activation.inherited, environment, {})
        self.assertIn("LISTEN_FDS is 'many'; allowed: 1 to 256", str(error))


class PlaceTests(SynchronousTestCase):
    def test_none(self) -> None:
        """A process without a master is the only one; bounds are its own."""
        place = worker.place({})
        self.assertEqual((place.number, place.of, place.is_worker), (1, 1, False))
        self.assertEqual(place.share(10), 10)

    def test_share_of_a_bound(self) -> None:
        """A bound of the whole gateway is divided, rounded up."""
        self.assertEqual(worker.Place(1, 3).share(10), 4)

    def test_nonsense(self) -> None:
        """The variable of somebody who plays master is refused in a sentence."""
        for text in ("x", "{}", json.dumps({"number": 1, "of": 1, "doors": [{"option": 1}]})):
            error = self.assertRaises(ConfigError, worker.place, {worker.VARIABLE: text})
            self.assertIn("unset it", str(error))


class HandoverTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        # Deeper than the address of a UNIX socket may be long.
        self.data = Path(self.mktemp()).absolute() / ("d" * 100)
        self.data.mkdir(parents=True)
        self.door = door(1, 2)
        self.addCleanup(self.door.close)
        self.saved = 0
        self.ended: Deferred[None] = Deferred()
        self.handover = Handover(reactor, self.data, self.doors, lambda: self.ended.callback(None))
        self.handover.start()
        self.addCleanup(self.handover.stop)

    def doors(self) -> list[Door]:
        self.saved += 1
        return [self.door]

    async def test_sockets_pass(self) -> None:
        """The successor gets the very sockets; the predecessor ends when it is told, not before,
        and leaves the name to its successor."""
        found = await deferToThread(handover.ask, self.data)
        assert found is not None
        self.assertEqual((found.pid, self.saved), (os.getpid(), 1))
        (got,) = found.doors
        self.addCleanup(got.close)
        self.assertEqual((got.option, got.address), ("listen", ("127.0.0.1", 0)))
        names = [each.getsockname() for each in got.sockets]
        self.assertEqual(names, [each.getsockname() for each in self.door.sockets])
        self.assertFalse(self.ended.called)
        found.serving()
        await self.ended
        self.assertTrue((self.data / handover.NAME).exists())

    async def test_a_successor_that_goes(self) -> None:
        """One that goes away changes nothing, and another one may come; two at once may not."""
        first = await deferToThread(handover.ask, self.data)
        assert first is not None
        error = await self.assertFailure(deferToThread(handover.ask, self.data), ConfigError)
        self.assertIn("another successor is starting", str(error))
        first.close()
        await deferLater(reactor, 0.05)
        second = await deferToThread(handover.ask, self.data)
        assert second is not None
        second.close()
        for found in (first, second):
            for each in found.doors:
                each.close()
        self.assertFalse(self.ended.called)

    async def test_junk(self) -> None:
        """Whoever says something else is cut off."""

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as one, handover._short(self.data) as where:
                one.settimeout(20)
                one.connect(f"{where}/{handover.NAME}")
                one.sendall(b"x" * 100)
                try:
                    return one.recv(100)
                except ConnectionResetError:
                    return b""

        self.assertEqual(await deferToThread(talk), b"")
        self.assertFalse(self.ended.called)

    def test_nobody(self) -> None:
        """Without a running gateway, and after a clean stop, there is nobody to take over from."""
        self.handover.stop()
        self.assertIsNone(handover.ask(self.data))
        self.assertFalse((self.data / handover.NAME).exists())
