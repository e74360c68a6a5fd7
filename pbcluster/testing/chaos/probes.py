"""Who else is asked while clients are at work: nodes directly, S3 for owners, the control plane.

* :class:`NodeProbes` ask every node for what clients know to be acknowledged, with a gateway's
  signature and the epoch 1, which is older than all: whoever takes itself for the owner answers. A
  request that a frozen node has in its hands is there when it wakes up.
* :class:`ClaimWatch` reads ``owner.json`` again and again: which node claimed which epoch, and
  when.
* :class:`PlaneProbes` use the admin API (reads and changes) and look routes up, at every member.

All in threads; each failure of a probe is either noted or nothing that anybody promised.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pbcluster import config, signing
from pbcluster.cli.bucket import Bucket, bucket_of
from pbcluster.errors import PBClusterError
from pbcluster.node.claims import owner_key
from pbcluster.testing.chaos.clients import Known, read_known
from pbcluster.testing.chaos.history import ADMIN, LOOKUP, Claim, History, Operation
from pbcluster.testing.chaos.stage_cluster import StageCluster
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.histories import OK
from pbcluster.testing.lookups import Lookups
from pbcluster.testing.members_workload import Asking
from pbcluster.testing.workload import REQUEST_TIMEOUT_S, Client

#: Probes of one node at a time: so many requests wait in a node that is frozen.
PER_NODE = 2
PROBE_PAUSE_S, WATCH_PAUSE_S, PLANE_PAUSE_S = 0.08, 0.1, 0.02
#: A node that is down is asked again after this.
DOWN_PAUSE_S = 0.3
MEMBER_CLIENTS = 3
#: One client of the admin API makes a change so often, else it reads.
CHANGE_EACH = 3


class Threads:
    """Runs functions in threads until they are to stop. :ivar over: is set then."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, target: Callable[..., None], *arguments: Any) -> None:
        """Start one."""
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Let all end; each finishes what it asks."""
        self.over.set()
        for thread in self._threads:
            thread.join(REQUEST_TIMEOUT_S + 5)


class NodeProbes(Threads):
    """See the module."""

    def __init__(
        self, cluster: StageCluster, history: History, tenants: Mapping[str, tuple[str, Known]]
    ) -> None:
        """
        :param tenants: name → id, and what its clients know.
        """
        super().__init__()
        self._cluster = cluster
        self._history = history
        self._tenants = dict(tenants)
        self._gateway = cluster.ids("gateway")[0]

    def start(self) -> None:
        """Begin."""
        for node in self._cluster.plan.of("node"):
            keys = config.load_secrets(self._cluster.where.secrets(node.id)).gateway_keys
            key = keys[self._gateway].encode()
            url = self._cluster.node_url(node.id)
            for number in range(PER_NODE):
                self.run(self._probe, node.id, url, key, random.Random(f"{node.id} {number}"))

    def _probe(self, node: str, url: str, key: bytes, dice: random.Random) -> None:
        clients: dict[str, Client] = {}
        while not self.over.wait(PROBE_PAUSE_S):
            name = dice.choice(sorted(self._tenants))
            tenant_id, known = self._tenants[name]
            client = clients.setdefault(name, Client(url, self._cluster.host(name)))
            mark = gateway_mark(self._gateway, tenant_id, key)
            done = read_known(client, known, dice, name, "", node, mark)
            if done is None or done.status == 0:
                self.over.wait(DOWN_PAUSE_S)
            elif done.status == 200 or (done.status == 404 and done.kind == "look"):
                self._history.operations.append(done)
        for client in clients.values():
            client.close()


def gateway_mark(gateway: str, tenant_id: str, key: bytes) -> Callable[[str], dict[str, str]]:
    """What makes the headers of a request for a path, as a gateway that knows the first epoch.

    :param key: the gateway's, as the node has it.
    """

    def mark(path: str) -> dict[str, str]:
        now_ms = time.time_ns() // 1_000_000
        what = signing.Signed(gateway, tenant_id, 1, now_ms, secrets.token_hex(8))
        value = signing.sign(key, b"GET", path.encode(), what)
        return {signing.SIGNED.decode(): value.decode()}

    return mark


class ClaimWatch(Threads):
    """See the module."""

    def __init__(self, cluster: RealCluster, history: History, tenants: Mapping[str, str]) -> None:
        """
        :param tenants: name → id.
        """
        super().__init__()
        self._cluster = cluster
        self._history = history
        self._tenants = dict(tenants)
        self._last: dict[str, int] = {}
        self._lower_at: dict[str, float] = {}

    def start(self) -> None:
        """Begin; what stands in S3 now is known when this returns."""
        bucket = bucket_of(self._cluster.where, self._cluster.plan)
        for name in self._tenants:
            self.look(bucket, name)
        self.run(self._watch, bucket)

    def _watch(self, bucket: Bucket) -> None:
        while not self.over.wait(WATCH_PAUSE_S):
            for name in self._tenants:
                self.look(bucket, name)

    def look(self, bucket: Bucket, name: str) -> None:
        """Read the owner of a tenant once."""
        begun = time.monotonic()
        try:
            content = bucket.get(owner_key(self._tenants[name]))
        except PBClusterError:
            return  # S3 is away: nobody can claim anything
        owner = json.loads(content or b"{}")
        epoch = int(owner.get("epoch", 0))
        if epoch and epoch != self._last.get(name):
            after = self._lower_at.get(name, float("-inf"))
            claim = Claim(name, epoch, str(owner["node"]), after, time.monotonic())
            self._history.claims.append(claim)
            self._last[name] = epoch
        self._lower_at[name] = begun


class PlaneProbes(Threads):
    """See the module."""

    def __init__(self, cluster: StageCluster, history: History, tenant: str) -> None:
        super().__init__()
        self._cluster = cluster
        self._history = history
        self._tenant = tenant

    def start(self) -> None:
        """Begin."""
        members = self._cluster.ids("member")
        for number in range(MEMBER_CLIENTS):
            turned = members[number % len(members) :] + members[: number % len(members)]
            self.run(self._admin, number, turned)
            self.run(self._look_up, number, turned)

    def _admin(self, number: int, members: list[str]) -> None:
        ports = {each.id: each.ports["admin"] for each in self._cluster.plan.of("member")}
        asking = Asking(ports, self._cluster.where.token())
        path, turn, version = f"/tenants/{self._tenant}", 0, 0
        while not self.over.wait(PLANE_PAUSE_S):
            turn += 1
            member = members[turn % len(members)]
            begun = time.monotonic()
            if turn % CHANGE_EACH or number or not version:
                status, answer = asking.ask(member, "GET", path)
            else:
                body = {"metadata": {"chaos": f"{turn}"}, "version": version}
                status, answer = asking.ask(member, "PUT", path, body, secrets.token_hex(12))
                # Somebody changed it meanwhile, which is a good answer too.
                status = 200 if status == 409 else status
            version = answer.get("version", 0) if isinstance(answer, dict) else 0
            self._note(ADMIN, member, begun, status, "" if status == 200 else str(answer)[:200])
        asking.close()

    def _look_up(self, number: int, members: list[str]) -> None:
        lookups, turn = Lookups(self._cluster.where, self._cluster.plan), number
        while not self.over.wait(PLANE_PAUSE_S):
            turn += 1
            member, begun = members[turn % len(members)], time.monotonic()
            outcome, _ = lookups.ask(member, self._tenant, 0)
            self._note(LOOKUP, member, begun, 200 if outcome == OK else 0, outcome)
        lookups.close()

    def _note(self, kind: str, member: str, begun: float, status: int, detail: str) -> None:
        self._history.operations.append(
            Operation(
                tenant=self._tenant,
                kind=kind,
                key=member,
                begun_s=begun,
                ended_s=time.monotonic(),
                status=status,
                client=f"a client of {member}",
                detail=detail if status != 200 else "",
            )
        )
