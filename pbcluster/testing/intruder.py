"""Speaks ZeroMQ to a member's sockets with any key and any words, as nobody of ours would.

Blocking, with plain pyzmq, from one thread. A connection has the id and the secret key of one
process of the cluster, or a fresh key that nobody knows. The queues on the way are bounded and a
send waits for room. Whoever counts what arrived must wait for it before closing: a socket that is
closed with something unread resets its connection, and what is on its way is lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from types import TracebackType

import zmq

from pbcluster import config
from pbcluster.cli.layout import LOOPBACK, ClusterDir, Plan

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
        port: int,
        *,
        name: str,
        known: bool = True,
    ) -> None:
        """
        :param port: of ``member``: its raft or its request port.
        :param name: the process whose id, and with CURVE whose key, is used.
        :param known: False: with a fresh key that stands in no file.
        """
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.IDENTITY, f"{name}.{secrets.token_hex(8)}".encode())
        self._socket.set(zmq.IMMEDIATE, 1)
        self._socket.set(zmq.SNDTIMEO, round(SEND_TIMEOUT_S * 1000))
        if not plan.insecure_plain_sockets:
            peers = config.load_peers(where.peers_file)
            public, secret = zmq.curve_keypair()
            if known:
                secret = config.load_secrets(where.secrets(name)).curve_secret.encode()
                public = zmq.curve_public(secret)
            self._socket.set(zmq.CURVE_SERVERKEY, peers[member].curve_public.encode())
            self._socket.set(zmq.CURVE_PUBLICKEY, public)
            self._socket.set(zmq.CURVE_SECRETKEY, secret)
        self._socket.connect(f"tcp://{LOOPBACK}:{port}")

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
