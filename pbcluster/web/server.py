"""A listener's side of HTTP/1.1: the factory of its connections, their common state and their end.

What holds: not more connections than ``Limits.max_connections`` are served, and a drain ends within
its time. A connection is ``server_connection``'s; who listens where is the caller's affair.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from pbcluster.web.interfaces import RequestHandler
from pbcluster.web.limits import Limits
from pbcluster.web.memory import Remembered
from pbcluster.web.pool import UpstreamPool
from pbcluster.web.replay import ReplayBudget
from pbcluster.web.server_connection import HTTPServerConnection
from pbcluster.web.server_side import ServerSide


class HTTPServerFactory(ServerSide, Factory):
    """Makes the connections of a listener and keeps their common state.

    :ivar requests: exchanges begun. :ivar rejected: refusals by status, made without a handler.
    :ivar refused_connections: closed because of ``Limits.max_connections``.
    """

    noisy = False

    def __init__(
        self,
        handler: RequestHandler,
        limits: Limits,
        clock: IReactorTime,
        *,
        pool: UpstreamPool,
        replay: ReplayBudget | None = None,
        apart: bytes = b"",
    ) -> None:
        """
        :param handler: called with each exchange.
        :param pool: upstream connections, may be shared by several factories.
        :param replay: memory for repeatable bodies, may be shared too.
        :param apart: name of a field that is another one in each request; where it stands first it
            comes as ``RequestHead.first``. Such a field costs nothing, any other that differs makes
            the server read all of them anew.
        """
        self.handler = handler
        self.limits = limits
        self.clock = clock
        self.pool = pool
        self.replay = replay if replay is not None else ReplayBudget()
        self.apart = apart + b": " if apart else b""
        self.draining = False
        self.quiet_s = 0.0
        self.requests = 0
        self.refused_connections = 0
        self.rejected: Counter[int] = Counter()
        self.remembered = Remembered()
        self._connections: set[HTTPServerConnection] = set()
        self._drained: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> HTTPServerConnection:
        """A connection."""
        return HTTPServerConnection(self)

    @property
    def connection_count(self) -> int:
        """Open client connections."""
        return len(self._connections)

    def admit(self, connection: HTTPServerConnection) -> bool:
        """Count a new connection in; False if there are too many."""
        if len(self._connections) >= self.limits.max_connections:
            self.refused_connections += 1
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: HTTPServerConnection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if self._drained and not self._connections:
            drained, self._drained = self._drained, []
            for waiting in drained:
                waiting.callback(None)

    def begin_drain(self, quiet_s: float) -> None:
        """From now on each connection ends with its next answer, which says so.

        :param quiet_s: an idle one is not closed before it was silent for so long: a request that
            is on its way is still answered.
        """
        self.draining = True
        self.quiet_s = quiet_s

    def use_limits(self, limits: Limits) -> None:
        """Other limits hold from now on, on open connections too."""
        self.limits = limits
        for connection in self._connections:
            connection.use_limits(limits)

    def drain(self, timeout_s: float) -> Deferred[None]:
        """End all connections: idle ones now (see :meth:`begin_drain`), busy ones after their
        response.

        The listener is the caller's and must not accept any more.

        :param timeout_s: then those left (event streams never end by themselves) are cut.
        :return: fires when no connection is left; never fails.
        """
        self.draining = True
        done: Deferred[None] = Deferred()
        for connection in tuple(self._connections):
            connection.close_if_idle(min(self.quiet_s, timeout_s))
        if not self._connections:
            done.callback(None)
            return done
        call = self.clock.callLater(timeout_s, self.abort_all)

        def stop(result: None) -> None:
            if call.active():
                call.cancel()

        done.addCallback(stop)
        self._drained.append(done)
        return done

    def abort_all(self) -> None:
        """Cut all connections."""
        for connection in tuple(self._connections):
            connection.abort()
