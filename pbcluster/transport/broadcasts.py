"""The sockets of the broadcasts: a PUB at each member, a SUB to each at every subscriber.

PUB drops what a slow subscriber has no room for, and a subscriber that has just connected misses
what came before: both show as gaps (``gaps``), at the next broadcast or beacon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import zmq

from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.announcing import Announcer, Listener
from pbcluster.transport.connection import ZmqConnection
from pbcluster.transport.sessions import MemberSessions
from pbcluster.transport.sockets import Proof, Sockets
from pbcluster.wire import MAGIC, Broadcast

#: Broadcasts kept for one subscriber: all routes of five nodes move at once. Who is further behind
#: is better served by a snapshot.
BROADCAST_HIGH_WATER_MARK = 1000


class ZmqPublisher:
    """A :class:`pbcluster.transport.interfaces.Publisher`."""

    def __init__(self, sockets: Sockets, endpoint: str) -> None:
        """
        :param endpoint: ``tcp://HOST:PORT``; port 0 means any free one.
        """
        self._sockets = sockets
        self._endpoint = endpoint
        self._connection: ZmqConnection | None = None
        self._announcer = Announcer(sockets.reactor, sockets.cluster_id, sockets.own_id, self._send)

    @property
    def endpoint(self) -> str:
        """As :attr:`Publisher.endpoint`; before :meth:`start` what was configured."""
        return self._endpoint

    def start(self) -> None:
        """As :meth:`Publisher.start`.

        :raises ConfigError: the address is in use or not ours.
        """
        self._connection, self._endpoint = self._sockets.bind(
            zmq.PUB,
            self._endpoint,
            lambda parts, proof: None,
            options={zmq.SNDHWM: BROADCAST_HIGH_WATER_MARK},
        )
        self._announcer.start()

    def publish(self, broadcast: Broadcast) -> None:
        """As :meth:`Publisher.publish`."""
        self._announcer.publish(broadcast)

    def silence(self) -> None:
        """As :meth:`Publisher.silence`."""
        self._announcer.silence()

    def stop(self) -> None:
        """As :meth:`Publisher.stop`."""
        self._announcer.stop()
        if self._connection is not None:
            self._connection.shutdown()
            self._connection = None

    def _send(self, frame: bytes) -> None:
        if self._connection is not None:
            self._connection.send([frame])


class ZmqSubscriber:
    """A :class:`pbcluster.transport.interfaces.Subscriber`."""

    def __init__(self, sockets: Sockets, members: Sequence[MemberAddress]) -> None:
        """
        :param members: the broadcast endpoints of all members (``addresses.member_addresses``).
        :raises ConfigError: no member.
        """
        numbers = count(len(members))
        self._sockets = sockets
        self._sessions = MemberSessions(
            sockets,
            "broadcasts",
            members,
            connect=self._connect,
            added=lambda member: next(numbers),
            removed=lambda gone: None,
        )
        self._listener = Listener(sockets.reactor, sockets.cluster_id)

    def start(self, received: Callable[[Broadcast], None], gap: Callable[[int], None]) -> None:
        """As :meth:`Subscriber.start`.

        :raises ConfigError: an address may not be used, or the key of its member is unknown.
        """
        self._listener.start(received, gap)
        self._sessions.open()

    def set_members(self, members: Sequence[MemberAddress]) -> None:
        """Listen to these members and to no others from now on; sessions that stay are not touched.

        What was published before a new session stood shows as a gap.

        :param members: their broadcast endpoints.
        :raises ConfigError: no member, or one cannot be connected to. Nothing changed.
        :raises Unavailable: not started.
        """
        self._sessions.set_members(members)

    def stop(self) -> None:
        """As :meth:`Subscriber.stop`."""
        self._sessions.close()
        self._listener.stop()

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        return self._listener.counts()

    def _connect(self, number: int, member: MemberAddress) -> ZmqConnection:
        return self._sockets.connect(
            zmq.SUB,
            member,
            self._received,
            options={zmq.RCVHWM: BROADCAST_HIGH_WATER_MARK, zmq.SUBSCRIBE: MAGIC},
        )

    def _received(self, parts: list[bytes], proof: Proof) -> None:
        self._listener.frame(parts, proof.sender)
