"""The seam between a server connection and its factory."""

from __future__ import annotations

import typing
from collections import Counter

from twisted.internet.interfaces import IReactorTime

from pbcluster.web.interfaces import RequestHandler
from pbcluster.web.limits import Limits
from pbcluster.web.memory import Remembered
from pbcluster.web.pool import UpstreamPool
from pbcluster.web.replay import ReplayBudget

if typing.TYPE_CHECKING:
    from pbcluster.web.server_connection import HTTPServerConnection


class ServerSide:
    """What a connection needs of its factory (``server.HTTPServerFactory`` says what each is).

    ``pool``, ``replay`` and ``remembered`` are not replaced while there are connections.
    """

    handler: RequestHandler
    limits: Limits
    clock: IReactorTime
    pool: UpstreamPool
    replay: ReplayBudget
    apart: bytes
    remembered: Remembered
    draining: bool
    quiet_s: float
    requests: int
    rejected: Counter[int]

    def admit(self, connection: HTTPServerConnection) -> bool:
        """Count a new connection in; False if there are too many."""
        raise NotImplementedError

    def forget(self, connection: HTTPServerConnection) -> None:
        """Count a connection out."""
        raise NotImplementedError
