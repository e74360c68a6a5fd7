"""What Twisted's plugin system finds for ``pbtls:``; all else is imported when somebody asks."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class TLSDirectoryParser:
    """Parses ``pbtls:…``; see :mod:`pbcluster.web.tls.endpoint`."""

    prefix = "pbtls"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
        """See ``IStreamServerEndpointStringParser``.

        :raises ConfigError, TypeError: the words after ``pbtls:`` are wrong.
        """
        from pbcluster.web.tls.endpoint import parse

        return parse(reactor, *args, **kwargs)
