"""Many simulated processes in one: their sockets share a context of ZeroMQ.

A hundred contexts would be a hundred threads. It is ended with its sockets at the end of a
``with``, since the garbage collector may wait forever for sockets whose context it takes first.
Whoever imports this has chosen the reactor before.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.internet import reactor

from pbcluster.config import Secrets, load_peers
from pbcluster.transport.connection import Factory
from pbcluster.transport.curve import Curve
from pbcluster.transport.sockets import Sockets


class OneContext:
    """Makes the sockets of each process, with its own key."""

    def __init__(self, root: Path, cluster_id: str, peers_file: str) -> None:
        """
        :param root: of the world (``world``), which holds everybody's secret keys.
        """
        self._cluster_id = cluster_id
        self._keys = json.loads((root / "nodes.json").read_text())
        self._peers = load_peers(peers_file)
        self._factory = Factory(reactor)

    def __enter__(self) -> OneContext:
        return self

    def __exit__(self, *_: object) -> None:
        self._factory.shutdown()

    def sockets(self, name: str) -> Sockets:
        """Of the process ``name``."""
        own = Curve.of(Secrets(curve_secret=self._keys[name]), self._peers)
        made = Sockets(reactor, self._cluster_id, name, own)
        made._factory.shutdown()
        made._factory = self._factory
        return made
