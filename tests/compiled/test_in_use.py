import os
import traceback
from importlib import import_module
from pathlib import Path

from twisted.internet.interfaces import IHandshakeListener, IProtocol, IPushProducer
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

import pbcluster
from pbcluster import compiled
from pbcluster.web.chunked import BadBody, ChunkedReader
from pbcluster.web.client import ResponseHeads, UpstreamConnection
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

    def test_loggers(self) -> None:
        """Every log of these modules bears the module's name; a compiled module has to say it."""
        found = {
            (name, logger.namespace)
            for name in compiled.MODULES
            for logger in vars(import_module(name)).values()
            if isinstance(logger, Logger)
        }
        self.assertGreater(len(found), 10)
        self.assertEqual([each for each in found if each[0] != each[1]], [])

    def test_tracebacks(self) -> None:
        """A traceback tells file and line of the source."""
        try:
            ChunkedReader().feed(b"no size\r\n")
        except BadBody as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
        self.assertTrue(last.filename.endswith("pbcluster/web/chunked.py"), last)
        source = Path(str(pbcluster.__file__)).parent.parent / "pbcluster/web/chunked.py"
        self.assertIn("raise BadBody", source.read_text().splitlines()[(last.lineno or 0) - 1])

    def test_none_where_an_object_belongs(self) -> None:
        """It is an error, as in Python; an extension type could as well read anywhere."""
        connection = UpstreamConnection(Clock(), ("", 0, ""), lambda _: None, ResponseHeads())
        connection._deadline = None  # type: ignore[assignment]
        self.assertRaises(AttributeError, connection.rest, 1.0)
        connection._heads = None  # type: ignore[assignment]
        self.assertRaises(AttributeError, connection.begin, None, False, 1.0, 1.0)

    def test_another_object(self) -> None:
        """It is refused where an extension type would take it for what it is not."""
        connection = UpstreamConnection(Clock(), ("", 0, ""), lambda _: None, ResponseHeads())
        if compiled.in_use():
            self.assertRaises(TypeError, setattr, connection, "_deadline", object())

    def test_interfaces(self) -> None:
        """The protocols provide what Twisted asks for, also as extension types."""
        for interface in (IProtocol, IPushProducer):
            self.assertTrue(interface.implementedBy(UpstreamConnection))
            self.assertTrue(interface.implementedBy(HTTPServerConnection))
        self.assertTrue(IHandshakeListener.implementedBy(HTTPServerConnection))
        self.assertFalse(IHandshakeListener.implementedBy(UpstreamConnection))
