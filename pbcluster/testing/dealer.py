"""A blocking ZeroMQ socket with which the harness speaks to a member in any process's name.

Plain pyzmq, nothing of ``pbcluster.transport``: a client that shared a fault with the server would
not see it. Sockets belong to the thread that made them.
"""

from __future__ import annotations

import secrets

import zmq

from pbcluster import config
from pbcluster.cli.layout import LOOPBACK, ClusterDir, Plan

#: So soon a member that was killed is looked for again.
RECONNECT_MS = 50


def dealer(
    context: zmq.Context[zmq.Socket[bytes]],
    where: ClusterDir,
    plan: Plan,
    member: str,
    use: str,
    *,
    name: str,
    known: bool = True,
) -> zmq.Socket[bytes]:
    """A DEALER that is being connected. Nothing is queued while there is no session.

    :param use: which port of ``member``: ``raft`` or ``requests``.
    :param name: the process whose id, and with CURVE whose key, is used.
    :param known: False: with a fresh key that stands in no file.
    """
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.set(zmq.IDENTITY, f"{name}.{secrets.token_hex(8)}".encode())
    socket.set(zmq.IMMEDIATE, 1)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    if not plan.insecure_plain_sockets:
        public, secret = zmq.curve_keypair()
        if known:
            secret = config.load_secrets(where.secrets(name)).curve_secret.encode()
            public = zmq.curve_public(secret)
        server = config.load_peers(where.peers_file)[member].curve_public
        socket.set(zmq.CURVE_SERVERKEY, server.encode())
        socket.set(zmq.CURVE_PUBLICKEY, public)
        socket.set(zmq.CURVE_SECRETKEY, secret)
    socket.connect(f"tcp://{LOOPBACK}:{plan.process(member).ports[use]}")
    return socket
