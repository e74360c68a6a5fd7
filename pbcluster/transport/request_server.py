"""The request socket of a member: a ROUTER around :class:`ServingSide`.

MANDATORY makes a send to a process without a session fail instead of vanish; HANDOVER lets a
process take its own session over after its connection broke unnoticed (its identity holds a random
token, so nobody else can).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import zmq

from pbcluster.transport.answering import MAX_RUNNING, MAX_RUNNING_PER_PEER
from pbcluster.transport.connection import ZmqConnection
from pbcluster.transport.curve import ROLES
from pbcluster.transport.interfaces import Handler
from pbcluster.transport.serving import ServingSide
from pbcluster.transport.sockets import Proof, Sockets
from pbcluster.wire import Body


class ZmqRequestServer:
    """A :class:`pbcluster.transport.interfaces.RequestServer`."""

    def __init__(
        self,
        sockets: Sockets,
        endpoint: str,
        *,
        roles: Collection[str] = ROLES,
        max_running: int = MAX_RUNNING,
        max_running_per_peer: int = MAX_RUNNING_PER_PEER,
    ) -> None:
        """
        :param endpoint: ``tcp://HOST:PORT``; port 0 means any free one.
        :param roles: with CURVE, who may connect.
        :param max_running: handlers at once; beyond, questions are answered with ``Busy``.
        :param max_running_per_peer: of those for one process.
        """
        self._sockets = sockets
        self._endpoint = endpoint
        self._roles = roles
        self._connection: ZmqConnection | None = None
        self._side = ServingSide(
            sockets.reactor,
            sockets.cluster_id,
            sockets.own_id,
            self._send,
            max_running=max_running,
            max_running_per_peer=max_running_per_peer,
        )

    @property
    def endpoint(self) -> str:
        """As :attr:`RequestServer.endpoint`; before :meth:`start` what was configured."""
        return self._endpoint

    def start(self, handler: Handler) -> None:
        """As :meth:`RequestServer.start`."""
        self._connection, self._endpoint = self._sockets.bind(
            zmq.ROUTER,
            self._endpoint,
            self._received,
            roles=self._roles,
            options={zmq.ROUTER_MANDATORY: 1, zmq.ROUTER_HANDOVER: 1},
        )
        self._side.start(handler)

    async def ask(self, peer: str, body: Body, *, timeout_s: float) -> Body:
        """As :meth:`RequestServer.ask`."""
        return await self._side.ask(peer, body, timeout_s=timeout_s)

    async def survey(
        self, body: Body, *, timeout_s: float, among: Callable[[str], bool]
    ) -> dict[str, list[Body]]:
        """As :meth:`RequestServer.survey`."""
        return await self._side.survey(body, timeout_s=timeout_s, among=among)

    def tell(self, peer: str, body: Body) -> bool:
        """As :meth:`RequestServer.tell`."""
        return self._side.tell(peer, body)

    def stop(self) -> None:
        """As :meth:`RequestServer.stop`."""
        self._side.stop()  # first, since it sends what it gathered
        if self._connection is not None:
            self._connection.shutdown()
            self._connection = None

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        return self._side.counts()

    def _received(self, parts: list[bytes], proof: Proof) -> int:
        return self._side.frame(parts[0], parts[1:], proof.sender, proof.role)

    def _send(self, session: bytes, frame: bytes) -> bool:
        return self._connection is not None and self._connection.send([session, frame])
