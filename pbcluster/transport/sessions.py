"""The connections of one process to all members, one each, and how they follow a change of members.

A session is known by its address and by the key that the member proved at its opening: a member
with another endpoint or key is another session. ``set_members`` opens what is new before it closes
what is gone, all or nothing, and leaves the rest alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import attrs

from pbcluster.errors import ConfigError, Unavailable
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.connection import ZmqConnection
from pbcluster.transport.sockets import Sockets


@attrs.frozen
class _Way:
    """What makes a session the same."""

    address: MemberAddress
    key: str


class MemberSessions:
    """Opens and closes the connections; who uses them says how, and numbers them."""

    def __init__(
        self,
        sockets: Sockets,
        setting: str,
        members: Sequence[MemberAddress],
        *,
        connect: Callable[[int, MemberAddress], ZmqConnection],
        added: Callable[[MemberAddress], int],
        removed: Callable[[Collection[int]], None],
    ) -> None:
        """
        :param setting: where ``members`` came from, for the message.
        :param members: the first ones; they have the numbers from 0.
        :param connect: opens the connection of a number. :raises ConfigError: it cannot.
        :param added: gives a further member its number, before it is connected.
        :param removed: these numbers are not used any more; their connections are closed.
        :raises ConfigError: no member.
        """
        if not members:
            raise ConfigError(f"{setting} is empty: the endpoint of one member is needed")
        self._sockets = sockets
        self._first = tuple(members)
        self._connect = connect
        self._added = added
        self._removed = removed
        self._is_open = False
        self._ways: dict[int, _Way] = {}
        self._connections: dict[int, ZmqConnection] = {}

    def open(self) -> None:
        """Connect to the first members.

        :raises ConfigError: an address may not be used, or the key of its member is unknown.
        """
        self._is_open = True
        for number, member in enumerate(self._first):
            self._open(number, self._way(member))

    def close(self) -> None:
        """Close all."""
        self._is_open = False
        for connection in self._connections.values():
            connection.shutdown()
        self._connections.clear()
        self._ways.clear()

    def numbers(self) -> list[int]:
        """Of the open sessions."""
        return list(self._connections)

    def send(self, number: int, frame: bytes) -> bool:
        """Send one frame. False: no such session, no peer, no room."""
        connection = self._connections.get(number)
        return connection is not None and connection.send([frame])

    def set_members(self, members: Sequence[MemberAddress]) -> None:
        """Have a session to each of ``members`` and to nobody else.

        :raises ConfigError: no member, or one cannot be connected to. Nothing changed.
        :raises Unavailable: not open.
        """
        if not members:
            raise ConfigError("no member is left to talk to: the former ones stay")
        if not self._is_open:
            raise Unavailable("the sessions to the members are not open")
        wanted = dict.fromkeys(self._way(member) for member in members)
        gone = [number for number, way in self._ways.items() if way not in wanted]
        known = set(self._ways.values())
        self._open_all([way for way in wanted if way not in known])
        for number in gone:
            del self._ways[number]
            self._connections.pop(number).shutdown()
        if gone:
            self._removed(gone)

    def _open_all(self, ways: Sequence[_Way]) -> None:
        opened = []
        try:
            for way in ways:
                opened.append(self._added(way.address))
                self._open(opened[-1], way)
        except BaseException:
            for number in opened:
                self._ways.pop(number, None)
                connection = self._connections.pop(number, None)
                if connection is not None:
                    connection.shutdown()
            self._removed(opened)
            raise

    def _open(self, number: int, way: _Way) -> None:
        self._connections[number] = self._connect(number, way.address)
        self._ways[number] = way

    def _way(self, member: MemberAddress) -> _Way:
        return _Way(member, self._sockets.key_of(member))
