"""How members of the group reach each other: a DEALER to each peer, a ROUTER that listens.

Sockets of their own, apart from those of nodes and gateways: no flood of questions delays a
heartbeat. Messages go one way over each connection (an answer goes over the answerer's own DEALER),
may be lost, and are never kept for a peer that is away (IMMEDIATE) or far behind (a small queue):
the core repeats what matters. Where CURVE is on, only members may connect, and a frame's sender is
held against the key of its connection; with plain sockets, against the name of its session.

Frames and the guard behind the door: :mod:`pbcluster.raft.frames`. Junk is counted and dropped.

Who is reached follows the membership. A member that left while it was away cannot learn so from the
log any more: it gets an answer that says so (``GONE``) to whatever it sends, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import zmq
from twisted.logger import Logger

from pbcluster.config import Peer
from pbcluster.controlplane.roster import Roster
from pbcluster.errors import ConfigError
from pbcluster.raft import AnyMessage, MemberId
from pbcluster.raft.frames import MAX_FRAME_BYTES, Frame, Guard, encode
from pbcluster.records import MemberRecord, ProcessRecord
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.connection import ZmqConnection
from pbcluster.transport.curve import FORMER, REMOVED
from pbcluster.transport.sockets import Proof, Sockets

#: Messages kept for one peer. Above the appends that may be in flight to it (RaftOptions), so that
#: a heartbeat finds room behind them; 256 KiB each at most, so bounded in bytes too.
HIGH_WATER_MARK = 128
#: "You are no member any more", and the question for it.
GONE, STANDING = b"PBG\x01", b"PBG?"

log = Logger()


class RaftNetwork(Protocol):
    """What a member asks of the network."""

    @property
    def endpoint(self) -> str:
        """Where it listens."""

    def start(
        self,
        incarnation: int,
        received: Callable[[AnyMessage], None],
        lost: Callable[[MemberId], None],
    ) -> None:
        """Listen and connect; ``received`` gets every admitted message.

        :param incarnation: this member's start number.
        :param lost: told that the connection to a member ended.
        :raises ConfigError: the address cannot be had.
        """

    def send(self, message: AnyMessage) -> bool:
        """Send to ``message.to``. False: it cannot be reached; the message is dropped."""

    def follow(self, members: Collection[MemberId], roster: Roster) -> None:
        """These are the members from now on; what is not known of one stays as it was.

        :param roster: where they are reached, and who left.
        """

    def ask_standing(self) -> None:
        """Ask whoever is known whether this member left; only a yes is answered. Who cannot be
        reached is looked for elsewhere."""

    def stop(self) -> None:
        """Close."""

    def counts(self) -> dict[str, int]:
        """Dropped frames by reason."""


class ZmqRaftNetwork:
    """A :class:`RaftNetwork` of ZeroMQ sockets."""

    def __init__(
        self,
        sockets: Sockets,
        endpoint: str,
        peers: Mapping[MemberId, MemberAddress],
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param endpoint: where to listen, ``tcp://HOST:PORT``; port 0: any free one.
        :param peers: the other members and where they listen, until the group says otherwise.
        :param gone: called when a member says that this one left the group.
        """
        self._gone = gone
        self._roster = Roster()
        self._sockets = sockets
        self._endpoint = endpoint
        self._peers = dict(peers)
        self._settings = dict(peers)
        #: Those with an open connection.
        self._up: set[MemberId] = set()
        #: What the registry said of each member last: address and key.
        self._told: dict[MemberId, tuple[MemberAddress, str]] = {}
        #: With which key each connection was opened.
        self._keys: dict[MemberId, str] = {}
        #: Nodes and gateways that the allow-list was told of, and those that were removed.
        self._admitted: tuple[tuple[ProcessRecord, ...], ...] = ((), ())
        self._guard = Guard(sockets.cluster_id, sockets.own_id)
        self._incarnation = 0
        self._received: Callable[[AnyMessage], None] | None = None
        self._lost: Callable[[MemberId], None] = lambda member: None
        self._listener: ZmqConnection | None = None
        self._to: dict[MemberId, ZmqConnection] = {}

    @property
    def endpoint(self) -> str:
        """Where it listens; before :meth:`start` what was configured."""
        return self._endpoint

    def start(
        self,
        incarnation: int,
        received: Callable[[AnyMessage], None],
        lost: Callable[[MemberId], None],
    ) -> None:
        """As :meth:`RaftNetwork.start`."""
        self._incarnation = incarnation
        self._received = received
        self._lost = lost
        try:
            self._listener, self._endpoint = self._sockets.bind(
                zmq.ROUTER,
                self._endpoint,
                self._frame,
                roles=("member", FORMER),
                options={zmq.RCVHWM: HIGH_WATER_MARK},
                max_frame_bytes=MAX_FRAME_BYTES,
            )
        except ConfigError as error:
            raise ConfigError(f"{error} (--raft-endpoint)") from None
        for member, address in self._peers.items():
            self.connect(member, address)

    def follow(self, members: Collection[MemberId], roster: Roster) -> None:
        """As :meth:`RaftNetwork.follow`."""
        self._roster = roster
        for record in roster.members():
            if record.id != self._sockets.own_id:  # its key may be exchanged, ours is what it is
                self._allow(record, "member")
        for record in roster.former():
            # Who left must still get through to be told so, but here only.
            self._allow(record, FORMER)
        self._admit(roster)
        for member in members:
            known = roster.member(member)
            if known is not None and member != self._sockets.own_id:
                self._follow_one(member, MemberAddress(known.raft, member), known.curve_public)
        # What the log says here may be old, and the settings newer: only who left is not reached.
        for member in [peer for peer in self._peers if roster.is_former(peer)]:
            del self._peers[member]
            self.disconnect(member)

    def _admit(self, roster: Roster) -> None:
        """Nodes and gateways, at once: each change of the allow-list looks at all of its keys."""
        now = (tuple(roster.processes()), tuple(roster.former_processes()))
        if now == self._admitted:
            return
        self._admitted = now
        rows = [(process, process.role) for process in now[0]]
        # Who was removed still gets through to where nothing is done but to tell it so.
        rows += [(process, REMOVED) for process in now[1]]
        peers = [Peer(p.id, role, p.curve_public) for p, role in rows if p.curve_public]
        unknown = [process.id for process in now[1] if not process.curve_public]
        try:
            self._sockets.change(peers, unknown)
        except ConfigError:
            self._sockets.change((), [process.id for process in now[1]])
            for process, role in rows:
                self._allow(process, role)

    def _allow(self, record: MemberRecord | ProcessRecord, role: str) -> None:
        try:
            if record.curve_public:
                self._sockets.allow(Peer(record.id, role, record.curve_public))
        except ConfigError as error:
            log.error("{member} is not let in: {error}", member=record.id, error=error.message)

    def _follow_one(self, member: MemberId, address: MemberAddress, key: str) -> None:
        """What is stored may be older than the settings, with which all may have moved while none
        ran: where a setting is, only what changes after the start goes before it."""
        before = self._told.get(member)
        self._told[member] = (address, key)
        if self._received is None and member in self._peers:
            return
        # A connection that works is not given up for what the log says, which may be old.
        if before != (address, key) and member not in self._up:
            self._reach(member, address)

    def _reach(self, member: MemberId, address: MemberAddress) -> None:
        if self._peers.get(member) == address and not self._has_another_key(member):
            return
        self._peers[member] = address
        if self._received is None:
            return
        try:
            self.connect(member, address)
        except ConfigError as error:
            log.error("{member} cannot be reached: {error}", member=member, error=error.message)

    def connect(self, member: MemberId, address: MemberAddress) -> None:
        """Reach ``member`` at ``address`` from now on.

        :raises ConfigError: the address may not be used, or the member's key is unknown.
        """
        if member == self._sockets.own_id:
            raise ConfigError(f"{member} is this member itself and no peer of it")
        self.disconnect(member)
        self._keys[member] = self._sockets.key_of(address)
        self._to[member] = self._sockets.connect(
            zmq.DEALER,
            address,
            lambda parts, proof: self._gone() if parts == [self._words(GONE)] else None,
            options={zmq.IMMEDIATE: 1, zmq.SNDHWM: HIGH_WATER_MARK},
            writable=lambda now: self._is_up(member, now),
            max_frame_bytes=MAX_FRAME_BYTES,
        )

    def _is_up(self, member: MemberId, now: bool) -> None:
        if now:
            self._up.add(member)
        else:
            self._up.discard(member)
            self._lost(member)
            if self._has_another_key(member):
                # Not from within the connection's own call.
                self._sockets.reactor.callLater(0, self._again, member)

    def _has_another_key(self, member: MemberId) -> bool:
        """Whether its key was exchanged since the connection to it was opened."""
        return member in self._to and self._keys.get(member) != self._sockets.public_key(member)

    def _again(self, member: MemberId) -> None:
        if self._received is not None and member not in self._up and member in self._to:
            self._reach(member, self._peers[member])

    def disconnect(self, member: MemberId) -> None:
        """Reach it no more."""
        connection = self._to.pop(member, None)
        self._up.discard(member)
        if connection is not None:
            connection.shutdown()

    def send(self, message: AnyMessage) -> bool:
        """As :meth:`RaftNetwork.send`."""
        connection = self._to.get(message.to)
        if connection is None:
            return False
        frame = Frame(self._sockets.cluster_id, self._incarnation, message)
        return connection.send([encode(frame)])

    def ask_standing(self) -> None:
        """As :meth:`RaftNetwork.ask_standing`. Whoever is not where it should be is looked for
        where settings or registry have it else."""
        for member, address in list(self._peers.items()):
            told = self._told.get(member)
            elsewhere = [self._settings.get(member), told[0] if told is not None else None]
            others = [one for one in elsewhere if one not in (None, address)]
            if others and others[0] is not None and member not in self._up:
                self._reach(member, others[0])
        for connection in self._to.values():
            connection.send([self._words(STANDING)])

    def stop(self) -> None:
        """As :meth:`RaftNetwork.stop`."""
        self._received = None
        for member in list(self._to):
            self.disconnect(member)
        if self._listener is not None:
            self._listener.shutdown()
            self._listener = None

    def counts(self) -> dict[str, int]:
        """As :meth:`RaftNetwork.counts`."""
        return dict(self._guard.dropped)

    def _frame(self, parts: list[bytes], proof: Proof) -> None:
        if self._received is None:
            return
        if len(parts) != 2 or proof.role not in ("", "member", FORMER):
            self._drop("junk")
            return
        session, frame = parts
        sender = proof.sender
        if sender is None:
            sender = session.partition(b".")[0].decode("ascii", "replace")
        if frame == self._words(STANDING):
            self._tell_standing(session, sender)
            return
        message = self._guard.admit(frame, sender)
        if message is None:
            return
        if self._roster.is_former(message.sender):
            self._drop("former_member")
            self._tell_standing(session, sender)
            return
        self._received(message)

    def _words(self, word: bytes) -> bytes:
        """A word among members of this cluster."""
        return word + self._sockets.cluster_id.encode()

    def _tell_standing(self, session: bytes, sender: MemberId) -> None:
        if self._listener is not None and self._roster.is_former(sender):
            self._listener.send([session, self._words(GONE)])

    def _drop(self, reason: str) -> None:
        self._guard.dropped[reason] = self._guard.dropped.get(reason, 0) + 1
