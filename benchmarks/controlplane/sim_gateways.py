"""Simulated gateways in one process: each with its own key listens to the broadcasts of all members
and notes when it heard them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pbcluster.reactor import install

if __name__ == "__main__":
    install()

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from benchmarks.controlplane.world import gateway_name
from benchmarks.raft.our_client import run_reactor
from pbcluster.cli.layout import ClusterDir
from pbcluster.config import GatewayConfig, Secrets, load, load_peers
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.broadcasts import ZmqSubscriber
from pbcluster.transport.connection import Factory
from pbcluster.transport.curve import Curve
from pbcluster.transport.sockets import Sockets
from pbcluster.wire import Broadcast

#: A session stands and has heard a beacon.
SETTLE_S = 2.5


class Heard:
    """What all gateways heard.

    :ivar rows: index of a broadcast → topic, tenant, how many heard it, and when the first and the
        last did (Unix seconds: members' records have the same clock).
    """

    def __init__(self) -> None:
        self.rows: dict[int, list[Any]] = {}
        self.gaps = 0

    def received(self, broadcast: Broadcast) -> None:
        now = time.time()
        row = self.rows.setdefault(
            broadcast.index, [broadcast.topic, broadcast.tenant_id, 0, now, now]
        )
        row[2] += 1
        row[4] = now

    def gap(self, index: int) -> None:
        self.gaps += 1


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """:param job: root, count."""
    where = ClusterDir.at(Path(job["root"]))
    config = load(GatewayConfig, where.config("gateway_1"))
    keys, peers = json.loads((where.root / "nodes.json").read_text()), load_peers(config.peers_file)
    shared, heard = Factory(reactor), Heard()
    for number in range(job["count"]):
        name = gateway_name(number)
        sockets = Sockets(
            reactor, config.cluster_id, name, Curve.of(Secrets(curve_secret=keys[name]), peers)
        )
        sockets._factory.shutdown()
        sockets._factory = shared
        subscriber = ZmqSubscriber(sockets, member_addresses(config.broadcasts))
        subscriber.start(heard.received, heard.gap)
    await deferLater(reactor, SETTLE_S)
    print("ready", flush=True)
    heard.gaps = 0
    await deferToThread(sys.stdin.read)
    return {"rows": heard.rows, "gaps": heard.gaps}


if __name__ == "__main__":
    print(json.dumps(run_reactor(run(json.loads(sys.argv[1])))))
