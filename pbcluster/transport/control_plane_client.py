"""The request sockets of a node or gateway: a DEALER to each member, around :class:`AskingSide`.

IMMEDIATE keeps a question from waiting in the queue of a member that is away: it is refused at
once and goes to another one. The socket's becoming writable is how a session shows itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

import zmq
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster.errors import ConfigError
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.asking import GREETING_INTERVAL_S, AskingSide
from pbcluster.transport.connection import ZmqConnection
from pbcluster.transport.interfaces import Handler
from pbcluster.transport.member_choice import Uniform
from pbcluster.transport.sockets import Proof, Sockets
from pbcluster.wire import Body


class ZmqControlPlaneClient:
    """A :class:`pbcluster.transport.interfaces.ControlPlaneClient`."""

    def __init__(
        self,
        sockets: Sockets,
        members: Sequence[MemberAddress],
        *,
        random: Uniform | None = None,
    ) -> None:
        """
        :param members: the request endpoints of all members (``addresses.member_addresses``).
        :param random: for the jitter; tests give a seeded one.
        :raises ConfigError: no member.
        """
        if not members:
            raise ConfigError("members is empty: the request endpoint of one member is needed")
        self._sockets = sockets
        self._members = tuple(members)
        self._connections: list[ZmqConnection] = []
        self._side = AskingSide(
            sockets.reactor,
            sockets.cluster_id,
            sockets.own_id,
            [(member.endpoint, member.member_id) for member in self._members],
            self._send,
            random if random is not None else Random(),
        )
        self._greetings = LoopingCall(self._greet)
        self._greetings.clock = sockets.reactor

    def start(self, handler: Handler) -> None:
        """As :meth:`ControlPlaneClient.start`.

        :raises ConfigError: an address may not be used, or the key of its member is unknown.
        """
        self._side.start(handler)
        for number, member in enumerate(self._members):
            connection = self._sockets.connect(
                zmq.DEALER,
                member,
                partial(self._received, number),
                options={zmq.IMMEDIATE: 1},
                writable=partial(self._side.reachable, number),
            )
            self._connections.append(connection)
        log = Logger()
        greeting = self._greetings.start(GREETING_INTERVAL_S, now=False)
        greeting.addErrback(lambda failure: log.failure("greetings ended", failure=failure))

    async def ask(
        self, body: Body, *, timeout_s: float, idempotency_key: str = "", any_member: bool = False
    ) -> Body:
        """As :meth:`ControlPlaneClient.ask`."""
        return await self._side.ask(
            body, timeout_s=timeout_s, idempotency_key=idempotency_key, any_member=any_member
        )

    def stop(self) -> None:
        """As :meth:`ControlPlaneClient.stop`."""
        if self._greetings.running:
            self._greetings.stop()
        for connection in self._connections:
            connection.shutdown()
        self._connections.clear()
        self._side.stop()

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        return self._side.counts()

    def _received(self, member: int, parts: list[bytes], proof: Proof) -> None:
        self._side.frame(member, parts, proof.sender)

    def _send(self, member: int, frame: bytes) -> bool:
        return member < len(self._connections) and self._connections[member].send([frame])

    def _greet(self) -> None:
        for number in range(len(self._connections)):
            self._side.greet(number)
