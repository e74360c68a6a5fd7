"""Who takes itself for the owner of one tenant, while clients are at work.

Every node is asked directly, with a gateway's signature and the epoch 1, which is older than all:
whoever takes itself for the owner answers. ``owner.json`` is read beside it, so that
:meth:`OwnerWatch.found` can tell which answers came from a node that was not the owner any more, or
not yet.
"""

from __future__ import annotations

import http.client
import time

from pbcluster import config
from pbcluster.testing.chaos.history import LOOK, History, Operation
from pbcluster.testing.chaos.owners import two_owners
from pbcluster.testing.chaos.probes import (
    DOWN_PAUSE_S,
    PROBE_PAUSE_S,
    ClaimWatch,
    Threads,
    gateway_mark,
)
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client

PATH = "/api/health"


class OwnerWatch(Threads):
    """See the module. :ivar history: what was answered, and who claimed."""

    def __init__(self, cluster: RealCluster, tenant: str) -> None:
        super().__init__()
        self.history = History()
        self._cluster = cluster
        self._tenant = tenant
        self._tenant_id = str(cluster.admin.tenant(tenant)["id"])
        self._claims = ClaimWatch(cluster, self.history, {tenant: self._tenant_id})

    def start(self) -> None:
        """Begin."""
        self._claims.start()
        gateway = self._cluster.ids("gateway")[0]
        for node in self._cluster.plan.of("node"):
            keys = config.load_secrets(self._cluster.where.secrets(node.id)).gateway_keys
            url = f"http://{self._cluster.plan.host}:{node.ports['http']}"
            self.run(self._probe, node.id, url, gateway, keys[gateway].encode())

    def stop(self) -> None:
        """End."""
        super().stop()
        self._claims.stop()

    def found(self) -> list[str]:
        """A sentence for each answer that only an owner could give, of a node that was none."""
        return two_owners(self.history.operations, self.history.claims)

    def _probe(self, node: str, url: str, gateway: str, key: bytes) -> None:
        client = Client(url, self._cluster.host(self._tenant))
        mark = gateway_mark(gateway, self._tenant_id, key)
        while not self.over.wait(PROBE_PAUSE_S):
            begun_s = time.monotonic()
            try:
                status, _ = client.ask("GET", PATH, None, mark(PATH))
            except (OSError, http.client.HTTPException):
                self.over.wait(DOWN_PAUSE_S)
                continue
            if status == 200:
                self.history.operations.append(
                    Operation(
                        tenant=self._tenant,
                        kind=LOOK,
                        key="",
                        begun_s=begun_s,
                        ended_s=time.monotonic(),
                        status=status,
                        client=f"a probe of {node}",
                        node=node,
                    )
                )
        client.close()
