"""What the platform asks of a transport: Protocols only, no code that moves a byte.

Delivery is at most once and may be late, doubled by a retry, or not at all. So every question has a
deadline, and a question that changes state carries an idempotency key, the same one for each retry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import attrs

from pbcluster.transport.addresses import MemberAddress
from pbcluster.wire import Body, Broadcast


@attrs.frozen
class Asked:
    """What surrounds a question that arrived.

    :ivar sender: id of the asking process; under CURVE it was proven by its key.
    :ivar idempotency_key: the same for each repetition of one question; may be empty.
    :ivar deadline: in seconds of the receiver's clock; an answer after it is of no use.
    :ivar arrived: in seconds of the receiver's clock.
    :ivar role: the sender's role by the peers file (member, node, gateway); empty where nothing
        is proven (plain sockets, in memory).
    """

    sender: str
    idempotency_key: str
    deadline: float
    arrived: float
    role: str = ""


#: Answers a question. What it raises is sent back as ``wire.ErrorReply``.
Handler = Callable[[Asked, Body], Awaitable[Body]]


class RequestServer(Protocol):
    """The side of a member: answers questions, and may itself ask a connected process."""

    @property
    def endpoint(self) -> str:
        """Where it really listens (``tcp://HOST:PORT`` with the port that was chosen)."""

    def start(self, handler: Handler) -> None:
        """Bind and begin to answer.

        :raises ConfigError: the address is in use or not ours; says which.
        """

    async def ask(self, peer: str, body: Body, *, timeout_s: float) -> Body:
        """Ask the process with id ``peer`` over the session that it opened.

        :raises DeadlineExceeded: no answer in time, or the peer has no session here.
        """

    async def survey(
        self, body: Body, *, timeout_s: float, among: Callable[[str], bool]
    ) -> dict[str, list[Body]]:
        """Ask everybody who has a session here, at once; returns when all answered, or the time is
        over.

        :param among: asks those whose id it holds for.
        :returns: id → what its processes answered (an ``ErrorReply`` too). Who was silent is left
            out: gone, frozen, or cut off.
        """

    def tell(self, peer: str, body: Body) -> bool:
        """Send without expecting an answer. False if the peer has no session or its queue is full;
        True promises nothing."""

    def stop(self) -> None:
        """Close; what is under way fails with ``Unavailable``."""


class ControlPlaneClient(Protocol):
    """The side of a node or gateway: one session to each member, questions go to the leader."""

    def start(self, handler: Handler) -> None:
        """Connect; ``handler`` answers what members ask or tell (``Asked.sender``: which one)."""

    async def ask(
        self,
        body: Body,
        *,
        timeout_s: float,
        idempotency_key: str = "",
        any_member: bool = False,
    ) -> Body:
        """Ask the control plane.

        ``NotLeader`` is followed, silence or refusal moves on to another member, always with the
        same key, until ``timeout_s`` has passed.

        :param any_member: any member may answer, the leader is not needed (route look-ups).
        :returns: the answer; never an ``ErrorReply``, which is raised as its exception.
        :raises PBClusterError: what the control plane answered.
        :raises DeadlineExceeded: nobody answered in time; whether it was done is unknown.
        """

    def stop(self) -> None:
        """Close; what is under way fails with ``Unavailable``."""


class Publisher(Protocol):
    """The leader's broadcasts."""

    @property
    def endpoint(self) -> str:
        """Where it really listens."""

    def start(self) -> None:
        """Bind, and begin to repeat the last broadcast as a beacon each second."""

    def publish(self, broadcast: Broadcast) -> None:
        """Send to all subscribers that keep up; ``previous`` is the index of the one before."""

    def silence(self) -> None:
        """Repeat nothing until the next broadcast: another member publishes now."""

    def stop(self) -> None:
        """Close."""


class Subscriber(Protocol):
    """Receives broadcasts and notices what is missing."""

    def start(self, received: Callable[[Broadcast], None], gap: Callable[[int], None]) -> None:
        """Connect to all members.

        :param received: called with each broadcast, in order, none twice, beacons left out.
        :param gap: called with the newest index when something before it was missed (at the first
            contact, after a reconnect, after a loss): what is cached may be outdated.
        """

    def stop(self) -> None:
        """Close."""


class FollowsMembers(Protocol):
    """What has a session to each member, and keeps up when members come and go."""

    def set_members(self, members: Sequence[MemberAddress]) -> None:
        """Have sessions to these members and no others from now on; those that stay, stay open.

        :raises ConfigError: no member, or one cannot be connected to. Nothing changed.
        :raises Unavailable: not started.
        """
