"""The short way between a socket and its protocol, beside the transport's own.

What is written while connections are served (a :class:`Turn`) is sent when all that were ready are:
who is written to then wakes up for many of these writes, not for each. All else is sent at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger

#: Asked of the kernel at once, as Twisted does.
READ_BYTES = 64 * 1024

log = Logger(__name__)


class Shortcut:
    """What is ready on a descriptor goes to its owner: by the short way while that is open, else by
    the owner's ``doRead``.

    :ivar owner: provides IReadDescriptor, IWriteDescriptor or both.
    :ivar descriptor: while it is watched, else -1. :ivar watched: events of epoll.
    :ivar turn: the one in which it is served, from the first time on that it is watched.
    """

    def __init__(self, owner: Any, write_later: Callable[[bytes], None] | None = None) -> None:
        """
        :param write_later: the transport's own way to send.
        """
        self.owner = owner
        self.descriptor = -1
        self.watched = 0
        self.turn: Turn | None = None
        self._write_later = write_later
        self._receive: Callable[[int], bytes] | None = None
        self._received: Callable[[bytes], None] | None = None
        self._send: Callable[[bytes], int] | None = None
        #: Written in this turn; one piece at most.
        self._waiting = b""

    def open(self, socket: Any, received: Callable[[bytes], None]) -> None:
        """Use the short way from now on.

        :param received: the protocol's ``dataReceived``.
        """
        self._receive = socket.recv
        self._received = received
        self._send = socket.send

    def close(self) -> None:
        """The connection ends without what waits, or is no longer the protocol's alone."""
        self._receive = self._received = self._send = None
        self._waiting = b""

    def send_later(self) -> None:
        """What is written goes the transport's way until :meth:`send_at_once`."""
        self._send = None

    def send_at_once(self, socket: Any) -> None:
        """Nothing waits to be sent any more."""
        if self._receive is not None:
            self._send = socket.send

    def read(self) -> Any:
        """Receive once.

        :return: as ``IReadDescriptor.doRead``.
        """
        receive, received = self._receive, self._received
        if receive is None or received is None:
            return self.owner.doRead()
        try:
            data = receive(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        received(data)
        return None

    def write(self, data: Any) -> None:
        """See ``ITransport``.

        So little is kept to the end of the turn that it never makes too much: a producer is paused
        within the call, as by Twisted's transports.
        """
        if type(data) is not bytes:
            self.flush()
            self._go_later(data)  # which says what is wrong
            return
        piece: bytes = data
        turn: Turn | None = self.turn
        if self._waiting:
            piece, self._waiting = self._waiting + piece, b""
        elif (
            turn is not None
            and turn.under_way
            and self._send is not None
            and len(piece) <= READ_BYTES
        ):
            self._waiting = piece
            turn.written.append(self)
            return
        self._write(piece)

    def flush(self) -> None:
        """Send what waits for the end of the turn."""
        if self._waiting:
            data, self._waiting = self._waiting, b""
            self._write(data)

    def _write(self, data: bytes) -> None:
        send, sent = self._send, 0
        if send is not None:
            try:
                sent = send(data)
            except OSError:  # nothing fits, or the connection is lost: the transport finds out
                sent = 0
            if sent == len(data):
                return
            self._send = None
        self._go_later(data[sent:] if sent else data)

    def _go_later(self, data: Any) -> None:
        """By the transport's own way."""
        later = self._write_later
        if later is not None:
            later(data)


class Turn:
    """The time in which those are served that were ready together.

    :ivar under_way: whether it is now. :ivar written: those that may have something to send.
    """

    def __init__(self) -> None:
        self.under_way = False
        self.written: list[Shortcut] = []

    def begin(self) -> None:
        """Connections are served from now on."""
        self.under_way = True

    def end(self) -> None:
        """All were served: send what they were written. Never fails."""
        self.under_way = False
        written, self.written = self.written, []
        for each in written:
            one: Shortcut = each
            try:
                one.flush()
            except BaseException:
                log.failure("what was written to a connection cannot be sent")
                _abort(one.owner)


def _abort(owner: Any) -> None:
    try:
        owner.abortConnection()
    except BaseException:
        log.failure("a connection cannot be ended")
