"""The public listener's factory: the HTTP core's, with a bound of connections for each address.

A connection over the bound is closed as it is accepted, unread: no byte of a request came yet, with
TLS none could be answered, and a crowd that opens connections must cost next to nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress

from pbcluster.gateway.admission import Admission
from pbcluster.web.server import HTTPServerConnection, HTTPServerFactory


class LimitedFactory(HTTPServerFactory):
    """See the module."""

    def __init__(self, *args: Any, admission: Admission, **kwargs: Any) -> None:
        """
        :param admission: is told of connections; further arguments: see ``HTTPServerFactory``.
        """
        super().__init__(*args, **kwargs)
        self._admission = admission
        self._hosts: dict[HTTPServerConnection, str] = {}

    # Twisted closes a connection for which there is no protocol.
    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> HTTPServerConnection | None:
        """A connection, or None if its address has too many."""
        host = getattr(addr, "host", "")
        if not self._admission.connected(host):
            return None
        connection = super().buildProtocol(addr)
        self._hosts[connection] = host
        return connection

    def forget(self, connection: HTTPServerConnection) -> None:
        """Count a connection out."""
        host = self._hosts.pop(connection, None)
        if host is not None:
            self._admission.disconnected(host)
        super().forget(connection)
