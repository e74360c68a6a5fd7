"""The public listener's factory: the HTTP core's, with a bound of connections for each address.

A connection over the bound is cut before a byte of it is read: with TLS none could be answered, and
a crowd that opens connections must cost next to nothing.
"""

from __future__ import annotations

from typing import Any

from pbcluster.gateway.admission import Admission
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.server_connection import HTTPServerConnection


class LimitedFactory(HTTPServerFactory):
    """See the module."""

    def __init__(self, *args: Any, admission: Admission, **kwargs: Any) -> None:
        """
        :param admission: is told of connections; further arguments: see ``HTTPServerFactory``.
        """
        super().__init__(*args, **kwargs)
        self._admission = admission

    def admit(self, connection: HTTPServerConnection) -> bool:
        """Count a new connection in; False if there are too many, of its address or in all."""
        if not self._admission.connected(connection.peer_host):
            return False
        if super().admit(connection):
            return True
        self._admission.disconnected(connection.peer_host)
        return False

    def forget(self, connection: HTTPServerConnection) -> None:
        """Count a connection out; one that was not let in is none."""
        if connection in self._connections:
            self._admission.disconnected(connection.peer_host)
        super().forget(connection)
