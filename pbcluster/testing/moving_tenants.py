"""Moves a tenant back and forth under writing and reading clients, and tells how long they waited.

Each client makes its requests at a fixed rate of its own. A *pause* is the longest that any request
took which was under way during one migration: what a user waited at worst. Every acknowledged row
is read back at the end. The same rounds serve the suite, ``make soak-migration`` and
``benchmarks/controlplane/migration.py``.
"""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

import attrs

from pbcluster.errors import PBClusterError
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import (
    COLLECTION,
    REQUEST_TIMEOUT_S,
    Client,
    Journal,
    Workload,
    check,
)

#: Requests of one client in a second; so many clients as the rate needs.
CLIENT_RATE = 5.0
#: A migration of a small tenant takes a second; a machine under load takes longer.
MIGRATION_TIMEOUT_S = 90.0
ENDS = ("done", "aborted")


@attrs.frozen
class Round:
    """One migration.

    :ivar phase: how it ended. :ivar pause_s: the longest request during it.
    :ivar durations: of its phases, as the control plane measured them.
    """

    phase: str
    reason: str
    pause_s: float
    failed: int
    durations: dict[str, float]


class MovingTenant:
    """A tenant of a real cluster with clients.

    :ivar journal: what the clients saw.
    """

    def __init__(
        self, cluster: RealCluster, tenant: str, *, writes_per_s: float, reads_per_s: float
    ) -> None:
        self.cluster = cluster
        self.tenant = tenant
        self.workload = Workload(
            cluster.gateway_url,
            cluster.host(tenant),
            "mv",
            writers=max(1, round(writes_per_s / CLIENT_RATE)),
            readers=max(1, round(reads_per_s / CLIENT_RATE)),
            pause_s=1 / CLIENT_RATE,
        )

    @property
    def journal(self) -> Journal:
        """What the clients saw."""
        return self.workload.journal

    def node(self) -> str:
        """The node that has the tenant."""
        node: str = self.cluster.admin.tenant(self.tenant)["nodeID"]
        return node

    def other_node(self) -> str:
        """A node that has not."""
        here = self.node()
        return next(node for node in self.cluster.ids("node") if node != here)

    def begin(self, target: str) -> str:
        """Ask for a migration. :returns: its id."""
        body = {"targetNode": target}
        record = self.cluster.admin.request("POST", f"/tenants/{self.tenant}/migrate", body)
        return str(record["id"])

    def look(self) -> dict[str, object]:
        """The tenant's last migration."""
        return dict(self.cluster.admin.request("GET", f"/tenants/{self.tenant}/migration"))

    def wait_phase(self, *phases: str) -> dict[str, object]:
        """Look until the migration is in one of these phases."""
        seen: dict[str, object] = {}

        def there() -> bool:
            try:
                seen.update(self.look())
            except PBClusterError:
                return False  # an election
            return seen["phase"] in phases

        self.cluster.wait_until(there, f"a migration that is {phases}", MIGRATION_TIMEOUT_S)
        return seen

    def move(self, target: str | None = None) -> Round:
        """One migration, from its request to its end."""
        began = time.monotonic()
        self.begin(target or self.other_node())
        return self.end(began)

    def end(self, began: float) -> Round:
        """Wait for the end of the migration that began at ``began``, and for one more answer."""
        seen = self.wait_phase(*ENDS)
        self.workload.wait_for_acks(self.workload.writers)
        during = [e for e in list(self.journal.events) if e.ended >= began]
        durations = seen["durations"]
        assert isinstance(durations, dict)
        return Round(
            phase=str(seen["phase"]),
            reason=str(seen["reason"]),
            pause_s=max((e.ended - e.begun for e in during), default=0.0),
            failed=sum(e.status != 200 for e in during),
            durations=durations,
        )

    def faults(self, client: Client) -> list[str]:
        """What was promised and is not so; call it when the clients have stopped."""
        client.close()  # it was idle for so long that its connection may be gone
        verdict = check(client, self.journal)
        found = [] if verdict.good else [str(verdict)]
        found += [f"{e.kind} {e.status} {e.detail}" for e in self.journal.failures()]
        return found + [f"stale: {line}" for line in self.journal.stale]


class SlowWrite:
    """A request that is open until :meth:`finish`: its body comes in two parts.

    While it is open its tenant cannot leave its node: a migration stays in *draining*.
    """

    VALUE = "slow"

    def __init__(self, cluster: RealCluster, tenant: str, record: str = "") -> None:
        """Send the head and a part of the body.

        :param record: id of the row that is created; empty: PocketBase chooses one.
        """
        where = urlsplit(cluster.gateway_url)
        row = {"n": 1, "value": self.VALUE} | ({"id": record} if record else {})
        self._body = json.dumps(row).encode()
        self._connection = http.client.HTTPConnection(
            where.hostname or "", where.port, timeout=REQUEST_TIMEOUT_S
        )
        self._connection.putrequest(
            "POST", f"/api/collections/{COLLECTION}/records", skip_host=True
        )
        for name, value in {
            "Host": cluster.host(tenant),
            "Content-Type": "application/json",
            "Content-Length": str(len(self._body)),
        }.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(self._body[:10])

    def finish(self) -> int:
        """Send the rest. :returns: the answer's status."""
        self._connection.send(self._body[10:])
        answer = self._connection.getresponse()
        answer.read()
        self._connection.close()
        return answer.status
