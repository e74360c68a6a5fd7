import os
from importlib import import_module

from twisted.internet.interfaces import IHandshakeListener, IProtocol, IPushProducer
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import compiled
from pbcluster.web.client import UpstreamConnection
from pbcluster.web.server_connection import HTTPServerConnection


class InUseTests(SynchronousTestCase):
    def test_as_expected(self) -> None:
        """What the version says of the modules is true of every one of them; where they are
        expected to be compiled they are."""
        if os.environ.get("PBCLUSTER_EXPECT_COMPILED") == "1":
            self.assertTrue(compiled.in_use())
        for name in compiled.MODULES:
            file = str(import_module(name).__file__)
            self.assertEqual(file.endswith(".so"), compiled.in_use(), file)
        word = ", compiled" if compiled.in_use() else ", not compiled"
        self.assertTrue(compiled.version().endswith(word))

    def test_interfaces(self) -> None:
        """The protocols provide what Twisted asks for, also as extension types."""
        for interface in (IProtocol, IPushProducer):
            self.assertTrue(interface.implementedBy(UpstreamConnection))
            self.assertTrue(interface.implementedBy(HTTPServerConnection))
        self.assertTrue(IHandshakeListener.implementedBy(HTTPServerConnection))
        self.assertFalse(IHandshakeListener.implementedBy(UpstreamConnection))
