"""The request sockets of a node or gateway: a DEALER to each member, around :class:`AskingSide`.

IMMEDIATE keeps a question from waiting in the queue of a member that is away: it is refused at
once and goes to another one. The socket's becoming writable is how a session shows itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from random import Random

import zmq
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.asking import GREETING_INTERVAL_S, AskingSide
from pbcluster.transport.connection import ZmqConnection
from pbcluster.transport.interfaces import Handler
from pbcluster.transport.member_choice import Uniform
from pbcluster.transport.sessions import MemberSessions
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
        self._sockets = sockets
        self._sessions = MemberSessions(
            sockets,
            "members",
            members,
            connect=self._connect,
            added=self._added,
            removed=self._removed,
        )
        self._side = AskingSide(
            sockets.reactor,
            sockets.cluster_id,
            sockets.own_id,
            [_words(member) for member in members],
            self._sessions.send,
            random if random is not None else Random(),
        )
        self._greetings = LoopingCall(self._greet)
        self._greetings.clock = sockets.reactor

    def start(self, handler: Handler) -> None:
        """As :meth:`ControlPlaneClient.start`.

        :raises ConfigError: an address may not be used, or the key of its member is unknown.
        """
        self._side.start(handler)
        self._sessions.open()
        log = Logger()
        greeting = self._greetings.start(GREETING_INTERVAL_S, now=False)
        greeting.addErrback(lambda failure: log.failure("greetings ended", failure=failure))

    def set_members(self, members: Sequence[MemberAddress]) -> None:
        """Ask these members and no others from now on.

        Sessions that stay are not touched; one whose member has another key now is opened anew.
        What is under way at members that are gone goes to others, as when a session is lost.

        :raises ConfigError: no member, or one cannot be connected to. Nothing changed.
        :raises Unavailable: not started.
        """
        self._sessions.set_members(members)

    def when_leader_unknown(self, callback: Callable[[], None]) -> None:
        """Call it when a member names a leader that is none of these members."""
        self._side.leader_unknown = callback

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
        self._sessions.close()
        self._side.stop()

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        return self._side.counts()

    def _connect(self, number: int, member: MemberAddress) -> ZmqConnection:
        return self._sockets.connect(
            zmq.DEALER,
            member,
            partial(self._received, number),
            options={zmq.IMMEDIATE: 1},
            writable=partial(self._side.reachable, number),
        )

    def _added(self, member: MemberAddress) -> int:
        return self._side.add_member(_words(member))

    def _removed(self, numbers: Collection[int]) -> None:
        self._side.remove_members(numbers)

    def _received(self, member: int, parts: list[bytes], proof: Proof) -> int:
        return self._side.frame(member, parts, proof.sender)

    def _greet(self) -> None:
        for number in self._sessions.numbers():
            self._side.greet(number)


def _words(member: MemberAddress) -> tuple[str, str]:
    """By which a hint may name ``member``."""
    return member.endpoint, member.member_id
