"""The end of a client connection: what was written arrives, and nobody is waited for without end.

What holds:

* A client that may still be sending is not cut off at once: its kernel would throw our answer away.
  Only the sending side is closed, and what comes is dropped, for at most ``LINGER_S`` and
  ``LINGER_BYTES``. (TLS has its own closing handshake.)
* A client that leaves a full send buffer undrained for ``Limits.send_stall_s`` is cut.

It knows no HTTP, and does not decide when a connection ends (``server_connection`` does).
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from pbcluster.web.deadline import Deadline
from pbcluster.web.limits import LINGER_BYTES, LINGER_S, Limits
from pbcluster.web.stream_protocol import StreamProtocol


class ClosingProtocol(StreamProtocol):
    """A connection that ends in order; a subclass defines :meth:`_expired`.

    :ivar slow: the client takes no more bytes for now.
    """

    def __init__(self, clock: IReactorTime, limits: Limits) -> None:
        super().__init__()
        self.slow = False
        self._limits = limits
        self._secure = False
        self._paused = False
        self._closing = False
        self._lingered_bytes = 0
        self._deadline = Deadline(clock, self._expired)
        self._stall = Deadline(clock, self._stalled)

    def abort(self) -> None:
        """End the connection whatever it does."""
        self.transport.abortConnection()

    def close_in_order(self, unread: bool) -> None:
        """End the connection when all is sent.

        :param unread: the client may still be sending.
        """
        self._closing = True
        transport = self.transport
        transport.unregisterProducer()
        if self._paused:
            self._paused = False
            transport.resumeProducing()
        # What is still to be sent may take a slow client longer than we would wait for nothing.
        half = unread and not self._secure and hasattr(transport, "loseWriteConnection")
        lingers = half or (unread and self._secure)
        self._deadline.set(LINGER_S if lingers and not self.slow else self._limits.send_stall_s)
        if half:
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _linger(self, size_bytes: int) -> None:
        """Bytes came that nobody reads any more."""
        self._lingered_bytes += size_bytes
        if self._lingered_bytes > LINGER_BYTES:
            self.transport.abortConnection()

    def _stalled(self) -> None:
        """The client left a full send buffer undrained for too long."""
        self.transport.abortConnection()

    def _expired(self) -> None:
        """``self._deadline`` has passed."""
        raise NotImplementedError
