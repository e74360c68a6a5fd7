"""Simulated gateways in one process: each with its own key listens to the broadcasts of all members
and notes when it heard them."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pbcluster.reactor import install

if __name__ == "__main__":
    install()

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from benchmarks.controlplane.one_context import OneContext
from benchmarks.controlplane.world import gateway_name
from benchmarks.raft.our_client import run_reactor
from pbcluster.cli.layout import ClusterDir
from pbcluster.config import GatewayConfig, load
from pbcluster.transport.addresses import member_addresses
from pbcluster.transport.broadcasts import ZmqSubscriber
from pbcluster.wire import Broadcast

#: Within so long each has heard the leader's beacon, which is its first gap.
CONTACT_WITHIN_S = 30.0
LOOK_S = 0.05


class Heard:
    """What all gateways heard.

    :ivar rows: index of a broadcast → topic, tenant, how many heard it, and when the first and the
        last did (Unix seconds: members' records have the same clock).
    """

    def __init__(self) -> None:
        self.rows: dict[int, list[Any]] = {}
        self.gaps: Counter[int] = Counter()

    def received(self, broadcast: Broadcast) -> None:
        now = time.time()
        row = self.rows.setdefault(
            broadcast.index, [broadcast.topic, broadcast.tenant_id, 0, now, now]
        )
        row[2] += 1
        row[4] = now

    def gap(self, number: int) -> Callable[[int], None]:
        """What the gateway ``number`` calls when it missed something."""

        def missed(index: int) -> None:
            self.gaps[number] += 1

        return missed


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """:param job: root, count."""
    where = ClusterDir.at(Path(job["root"]))
    config = load(GatewayConfig, where.config("gateway_1"))
    heard = Heard()
    with OneContext(where.root, config.cluster_id, config.peers_file) as context:
        for number in range(job["count"]):
            sockets = context.sockets(gateway_name(number))
            subscriber = ZmqSubscriber(sockets, member_addresses(config.broadcasts))
            subscriber.start(heard.received, heard.gap(number))
        until = time.monotonic() + CONTACT_WITHIN_S
        while len(heard.gaps) < job["count"]:
            if time.monotonic() > until:
                raise SystemExit(f"{len(heard.gaps)} of {job['count']} gateways heard a beacon")
            await deferLater(reactor, LOOK_S)
        print("ready", flush=True)
        heard.gaps.clear()
        await deferToThread(sys.stdin.read)
    return {"rows": heard.rows, "gaps": heard.gaps.total()}


if __name__ == "__main__":
    print(json.dumps(run_reactor(run(json.loads(sys.argv[1])))))
