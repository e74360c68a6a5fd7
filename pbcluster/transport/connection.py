"""One ZeroMQ socket in the reactor: txZMQ's connection, with its known faults corrected.

What is different from ``txzmq.ZmqConnection``:

* Reading stops after ``MESSAGES_PER_TURN`` messages and goes on in the next turn of the reactor;
  txZMQ drains the socket first, and a flood keeps timers waiting for seconds.
* After every send, a refused one too, the socket's events are looked at, and a read is scheduled if
  there is something to do: sending can swallow the wake-up of the socket's descriptor, and without
  another look incoming messages would lie there. (A look that finds nothing suffices: it empties
  libzmq's mailbox, and what comes afterwards wakes the descriptor again.)
* A send that finds no room or no peer gives False. Nothing is queued here.
* Queues are finite, linger is 0, options are set before the first endpoint, the reactor comes in.
* ``writable`` tells when a DEALER with IMMEDIATE gains its peer and when it loses it.

Importing this module imports txZMQ, which installs the default reactor unless one is installed:
choose the reactor (uvloop) first.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence

import txzmq
import zmq
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.logger import Logger

#: At 10 to 20 µs a message this is about a millisecond of work, then timers and others come.
MESSAGES_PER_TURN = 64
#: Parts of a message that are kept; ours have one or two, what comes beyond is junk anyway.
MAX_PARTS = 16
#: Messages a socket holds for one peer, each way. A peer that is so far behind has missed its
#: deadlines; more would only delay the fresh ones.
HIGH_WATER_MARK = 256
#: ZMTP heartbeats: a session whose machine vanished without a word ends after the timeout.
HEARTBEAT_INTERVAL_MS = 1000
HEARTBEAT_TIMEOUT_MS = 3000
#: A member that restarts is found again in this time; doubled up to the second while it is away.
RECONNECT_MS = 100
LONGEST_RECONNECT_MS = 1000
#: A handshake (with ZAP: one turn of the reactor at the other side) takes milliseconds.
HANDSHAKE_MS = 10_000
CONNECT_TIMEOUT_MS = 2000

#: The peer's queue is full; no such peer (ROUTER with MANDATORY); peer going away.
_NOT_SENT = (errno.EAGAIN, zmq.EHOSTUNREACH, errno.EINTR)
_CLOSED = (zmq.ETERM, zmq.ENOTSOCK)
#: As plain numbers: the operators of pyzmq's enumerations cost more than asking for the events.
_IN, _OUT, _EVENTS, _NOBLOCK = int(zmq.POLLIN), int(zmq.POLLOUT), int(zmq.EVENTS), int(zmq.NOBLOCK)
_RCVMORE = int(zmq.RCVMORE)

#: Takes the parts of a message and the User-Id that ZAP gave its connection (empty without).
#: Returns for how many messages it counts; None: for one.
Received = Callable[[list[bytes], str], int | None]


class ReactorFDTime(IReactorFDSet, IReactorTime):
    """What a connection needs of the reactor."""


class Factory(txzmq.ZmqFactory):
    """A context of ZeroMQ and the connections in it, on a given reactor."""

    lingerPeriod = 0

    def __init__(self, reactor: ReactorFDTime) -> None:
        self.reactor = reactor
        super().__init__()

    def shutdown(self) -> None:
        """Close all connections and end the context; does not wait for unsent messages."""
        for connection in list(self.connections):
            connection.shutdown()
        if not self.context.closed:
            self.context.destroy(linger=0)


class ZmqConnection(txzmq.ZmqConnection):
    """A socket that calls ``received`` for each message.

    Attributes of txZMQ that matter outside: ``socket`` (None after :meth:`shutdown`).
    """

    highWaterMark = HIGH_WATER_MARK
    reconnectInterval = RECONNECT_MS
    reconnectIntervalMax = LONGEST_RECONNECT_MS

    def __init__(
        self,
        factory: Factory,
        kind: int,
        received: Received,
        *,
        identity: bytes | None = None,
        options: Mapping[int, int | bytes] | None = None,
        writable: Callable[[bool], None] | None = None,
        with_user_id: bool = False,
    ) -> None:
        """
        :param kind: ``zmq.ROUTER``, ``zmq.DEALER``, ``zmq.PUB``, ``zmq.SUB``, …
        :param received: called in a turn of the reactor; what it raises is logged.
        :param options: socket options, set before any endpoint.
        :param writable: called with True when messages can be sent, False when not any more.
        :param with_user_id: look the User-Id up for each message.
        """
        self.socketType = kind
        self._received = received
        self._writable = writable
        self._is_writable = False
        self._with_user_id = with_user_id
        self._next_read: IDelayedCall | None = None
        self._log = Logger()
        self._options: dict[int, int | bytes] = {
            zmq.HEARTBEAT_IVL: HEARTBEAT_INTERVAL_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
            zmq.CONNECT_TIMEOUT: CONNECT_TIMEOUT_MS,
            **(options or {}),
        }
        super().__init__(factory, identity=identity)
        for option, value in self._options.items():
            self.socket.set(option, value)

    def bind(self, endpoint: str) -> str:
        """Listen; the real endpoint, with the port that was chosen.

        :raises zmq.ZMQError: the system refused.
        """
        self.addEndpoints([txzmq.ZmqEndpoint(txzmq.ZmqEndpointType.bind, endpoint)])
        last: bytes = self.socket.get(zmq.LAST_ENDPOINT)
        self._schedule_read()
        return last.rstrip(b"\0").decode()

    def connect(self, endpoint: str) -> None:
        """Connect, and reconnect for as long as the socket is open."""
        self.addEndpoints([txzmq.ZmqEndpoint(txzmq.ZmqEndpointType.connect, endpoint)])
        self._schedule_read()

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send one message of several parts, all or nothing. False: no room, no peer, closed."""
        if self.socket is None:
            return False
        try:
            if len(parts) == 1:
                self.socket.send(parts[0], _NOBLOCK)
            else:
                self.socket.send_multipart(parts, _NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in _NOT_SENT or error.errno in _CLOSED:
                return False
            raise
        finally:
            self._look_after_send()
        return True

    def _look_after_send(self) -> None:
        if self._next_read is not None:
            return
        try:
            events = self.socket.get(_EVENTS)
        except zmq.ZMQError:
            self._schedule_read()
            return
        if events & _IN or bool(events & _OUT) != self._is_writable:
            self._schedule_read()

    def doRead(self) -> None:
        """Take ``MESSAGES_PER_TURN`` messages, and what else is in the frame of the last; the rest
        waits for the next turn."""
        taken = 0
        while taken < MESSAGES_PER_TURN:
            taken += 1
            if self.socket is None:
                return
            try:
                events = self.socket.get(_EVENTS)
                if bool(events & _OUT) != self._is_writable:
                    self._look_at_writable(bool(events & _OUT))
                if self.socket is None or not events & _IN:
                    return
                parts, user_id = self._read_message()
            except zmq.Again:
                continue
            except zmq.ZMQError as error:
                if error.errno in _CLOSED:
                    self.shutdown()
                    return
                self._log.failure("reading from a socket failed")
                continue
            try:
                more = self._received(parts, user_id)
                taken += more - 1 if more else 0
            except Exception:
                self._log.failure("handling a message failed")
        self._schedule_read()

    def shutdown(self) -> None:
        """Close the socket; what was not sent yet is lost. May be called twice."""
        if self.socket is None:
            return
        if self._next_read is not None and self._next_read.active():
            self._next_read.cancel()
        self._next_read = None
        super().shutdown()

    def _read_message(self) -> tuple[list[bytes], str]:
        receive = self.socket.recv
        # A frame object costs more than its bytes, but it alone knows the User-Id.
        frame = receive(_NOBLOCK, copy=not self._with_user_id)
        user_id = ""
        if self._with_user_id:
            try:
                user_id = frame.get("User-Id")
            except zmq.ZMQError:
                user_id = ""
            parts, more = [frame.bytes], frame.more
        else:
            parts, more = [frame], self.socket.get(_RCVMORE)
        while more:
            part = receive(_NOBLOCK)
            if len(parts) < MAX_PARTS:
                parts.append(part)
            more = self.socket.get(_RCVMORE)
        return parts, user_id

    def _look_at_writable(self, now: bool) -> None:
        if now == self._is_writable:
            return
        self._is_writable = now
        if self._writable is not None:
            try:
                self._writable(now)
            except Exception:
                self._log.failure("handling a session's change failed")

    def _schedule_read(self) -> None:
        if self.socket is None or self._next_read is not None:
            return
        self._next_read = self.factory.reactor.callLater(0, self._scheduled_read)

    def _scheduled_read(self) -> None:
        self._next_read = None
        self.doRead()
