"""A protocol over a stream, without Twisted's base class.

``twisted.internet.protocol.Protocol`` is a class of Python, on which an extension type cannot
stand; the protocols of the HTTP core are extension types where pbcluster is compiled
(:mod:`pbcluster.compiled`). This is what Twisted's transports, endpoints and TLS need of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import ILoggingContext, IProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from pbcluster.errors import LocalProtocolError


def _nowhere(data: bytes) -> None:
    """There is no transport yet: who writes has a bug."""
    raise LocalProtocolError("bytes were written before there was a connection")


class StreamProtocol:
    """See ``IProtocol``; what a subclass does not need stays as it is here.

    :ivar transport: from :meth:`makeConnection` on. :ivar factory: set by Twisted's factories.

    ``_send`` is the transport's ``write``, which is looked up once.
    """

    def __init__(self) -> None:
        self.transport: Any = None
        self._send: Callable[[bytes], object] = _nowhere
        self.factory: Any = None
        self.connected = 0

    def makeConnection(self, transport: Any) -> None:
        """See ``IProtocol``."""
        self.connected = 1
        self.transport = transport
        self._send = transport.write
        self.connectionMade()

    def connectionMade(self) -> None:
        """See ``IProtocol``."""

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return type(self).__name__


# A decorator would keep it from becoming an extension type.
classImplements(StreamProtocol, IProtocol, ILoggingContext)
