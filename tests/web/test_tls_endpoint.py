"""Endpoint strings: ``pbtls:`` as Twisted's plugin system finds it, and listening by any string."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pbcluster.errors import ConfigError
from pbcluster.web.endpoint_strings import listen, url_of
from pbcluster.web.tls.endpoint import TLSDirectoryEndpoint
from tests.web.pki import put, site
from tests.web.tls_case import Client

reactor: Any = _reactor


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class EndpointTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        put(self.path, "shop", site("shop.example.com"))
        self.factory = Factory.forProtocol(Echo)

    async def test_any_twisted_service(self) -> None:
        """``pbtls:`` serves any factory with the directory's certificates, and renewed ones soon
        after; its port ends as any other does."""
        words = f"pbtls:0:certificates={self.path}:interface=127.0.0.1:watch=0.02"
        endpoint = serverFromString(reactor, words)
        port = await endpoint.listen(self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        number = port.getHost().port

        def echo() -> set[str]:
            client = Client(number, "shop.example.com")
            client.tls.sendall(b"hello")
            self.assertEqual(client.tls.recv(100), b"hello")
            names = client.names
            client.close()
            return names

        self.assertEqual(await deferToThread(echo), {"shop.example.com"})
        put(self.path, "shop", site("shop.example.com", "more.example.com"))
        while "more.example.com" not in await deferToThread(echo):
            pass  # bounded by the test's timeout
        self.assertTrue(url_of(port, "https").startswith("https://127.0.0.1:"))

    def test_wrong_words(self) -> None:
        """Each wrong word is one sentence with what is allowed."""
        for words, expected in {
            "pbtls:8443": "needs certificates=DIR",
            "pbtls:x:certificates=/c": "port is 'x'; allowed: 0 to 65535",
            "pbtls:99999:certificates=/c": "allowed: 0 to 65535",
            "pbtls:1:certificates=/c:watch=-1": "watch is '-1'; allowed: 0 to 86400",
            "pbtls:1:certificates=/c:color=red": "is no endpoint",
            "nothing:1": "is no endpoint",
        }.items():
            with self.assertRaisesRegex(ConfigError, expected):
                listen(reactor, words, self.factory, "listen")

    async def test_listen(self) -> None:
        """HOST:PORT, tcp:, unix: and pbtls: listen at once; what cannot be had is one sentence."""
        first = listen(reactor, ("127.0.0.1", 0), self.factory, "listen")
        self.addCleanup(first.stopListening)
        number = first.getHost().port  # type: ignore[attr-defined]
        self.assertEqual(url_of(first, "http"), f"http://127.0.0.1:{number}")
        for words in (f"tcp:{number}:interface=127.0.0.1", ("127.0.0.1", number)):
            with self.assertRaisesRegex(ConfigError, r"--listen\): Address already in use"):
                listen(reactor, words, self.factory, "listen")
        socket = Path(self.mktemp()).name
        unix = listen(reactor, f"unix:{socket}", self.factory, "listen")
        self.assertEqual(url_of(unix, "http"), f"unix:{socket}")
        await maybeDeferred(unix.stopListening)
        with self.assertRaisesRegex(ConfigError, "cannot look into"):
            listen(reactor, "pbtls:0:certificates=/nowhere", self.factory, "listen")

    def test_certificates_are_there(self) -> None:
        """Who made the endpoint can look at its certificates."""
        endpoint: Any = serverFromString(reactor, f"pbtls:0:certificates={self.path}")
        self.assertIsInstance(endpoint, TLSDirectoryEndpoint)
        endpoint.certificates.load()
        self.assertTrue(endpoint.certificates.covers("shop.example.com"))
