"""Speaks ZeroMQ to a member's sockets with any key and any words, as nobody of ours would.

Blocking, with plain pyzmq, from one thread. A connection has the id and the secret key of one
process of the cluster, or a fresh key that nobody knows. The queues on the way are bounded and a
send waits for room. Whoever counts what arrived must wait for it before closing: a socket that is
closed with something unread resets its connection, and what is on its way is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

import zmq

from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.testing.dealer import dealer

#: A flood is slowed down by who reads it; a door that stays shut ends the wait.
SEND_TIMEOUT_S = 20.0
LINGER_S = 20.0


class Intruder:
    """One DEALER at one port of a member."""

    def __init__(
        self,
        where: ClusterDir,
        plan: Plan,
        member: str,
        use: str,
        *,
        name: str,
        known: bool = True,
    ) -> None:
        """
        The parameters are those of :func:`pbcluster.testing.dealer.dealer`.
        """
        self._context = zmq.Context()
        self._socket = dealer(self._context, where, plan, member, use, name=name, known=known)
        self._socket.set(zmq.SNDTIMEO, round(SEND_TIMEOUT_S * 1000))

    def __enter__(self) -> Intruder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close(round(LINGER_S * 1000) if error is None else 0)
        self._context.term()

    def send(self, frames: Iterable[bytes]) -> int:
        """Send each as a message of one part. :returns: how many. :raises zmq.Again: shut out."""
        count = 0
        for frame in frames:
            self._socket.send(frame)
            count += 1
        return count

    def is_shut_out(self, within_s: float) -> bool:
        """Whether no session comes to be in this time."""
        return self._socket.poll(round(within_s * 1000), zmq.POLLOUT) == 0
