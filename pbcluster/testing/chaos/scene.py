"""What a story can do to the cluster, and how it waits. Each step is an event of the round.

A scene belongs to one round. :meth:`Scene.heal` undoes whatever the story left: frozen processes go
on, dead ones start, ways are open again, drained nodes take tenants.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from pbcluster.errors import DeadlineExceeded, PBClusterError
from pbcluster.testing.chaos.clients import TenantClients
from pbcluster.testing.chaos.history import Event, History, Operation
from pbcluster.testing.chaos.judge import Permits, judge
from pbcluster.testing.chaos.replicas import replica_rows
from pbcluster.testing.chaos.stage_cluster import StageCluster
from pbcluster.testing.moving_tenants import ENDS
from pbcluster.testing.soak_litestream import Broken

RECOVERED_WITHIN_S = 60.0
#: Faults come at a random moment after the clients' first answers.
MOMENT_S = 0.3
MOVED_WITHIN_S = 90.0
LEADER_WITHIN_S = 30.0


class Scene:
    """See the module.

    :ivar dice: of all that is random in the round.
    :ivar long: whether it is a long run.
    :ivar figures: the story's own, beside those that are taken from the history.
    :ivar clients: of each tenant. :ivar tenants: their names.
    """

    def __init__(
        self,
        cluster: StageCluster,
        history: History,
        clients: Sequence[TenantClients],
        dice: random.Random,
        *,
        enough: int = 20,
        long: bool = False,
    ) -> None:
        """
        :param enough: good writes, and reads, of each tenant that show that all is well.
        """
        self.cluster = cluster
        self.history = history
        self.clients = list(clients)
        self.tenants = [each.tenant for each in clients]
        self.dice = dice
        self.enough = enough
        self.long = long
        self.figures: dict[str, float] = {}
        self.fault_s = 0.0
        self._frozen: set[str] = set()
        self._drained: set[str] = set()

    # -- what happens -----------------------------------------------------------------------------

    def event(self, text: str, *, fault: bool = False) -> float:
        """Note it. :returns: the moment."""
        now = time.monotonic()
        self.history.events.append(Event(now, text, fault))
        if fault and not self.fault_s:
            self.fault_s = now
        return now

    def kill(self, name: str, *, with_children: bool = True) -> None:
        """SIGKILL, with everything below it or alone."""
        self.event(f"{name} killed{'' if with_children else ' alone'}", fault=True)
        self.cluster.kill9(name, with_children=with_children)

    def kill_everything(self) -> None:
        """SIGKILL to all processes."""
        self.event("everything killed", fault=True)
        self.cluster.kill9_all()

    def start(self, *names: str, wait: bool = True) -> None:
        """Start processes that ended."""
        self.event(f"{', '.join(names) or 'everything'} started")
        self.cluster.start(*names, wait=wait)

    def freeze(self, *names: str) -> None:
        """SIGSTOP, with everything below."""
        self.event(f"{', '.join(names)} frozen", fault=True)
        for name in names:
            self._frozen.add(name)
            self.cluster.sigstop(name, with_children=True)

    def thaw(self, *names: str) -> None:
        """SIGCONT to these, or to all that are frozen."""
        those = names or tuple(sorted(self._frozen))
        if those:
            self.event(f"{', '.join(those)} goes on")
        for name in those:
            self._frozen.discard(name)
            self.cluster.sigcont(name, with_children=True)

    def open_ways(self) -> None:
        """Everything passes everywhere again."""
        self.event("all ways are open")
        if self.cluster.is_proxied:
            self.cluster.net.heal_all()
        if self.cluster.is_kernel:
            self.cluster.kernel.heal()

    def heal(self) -> None:
        """Undo all that the story left."""
        self.thaw()
        if self.cluster.is_proxied or self.cluster.is_kernel:
            self.open_ways()
        self.undrain()
        if self.cluster.is_supervised:
            return
        dead = [name for name in self.cluster.ids() if self.cluster.pid(name) is None]
        if dead:
            self.start(*dead)

    # -- moving -----------------------------------------------------------------------------------

    def migrate(self, tenant: str = "", target: str = "") -> str:
        """Ask for a move and wait for its end. :returns: the phase in which it ended."""
        name = tenant or self.tenants[0]
        node = target or self.others(name)[0]
        began = self.event(f"{name} moves to {node}", fault=True)
        self.cluster.admin.request("POST", f"/tenants/{name}/migrate", {"targetNode": node})
        phase = self.wait_moved(name)
        self.event(f"the move is {phase}")
        self.figures["move_s"] = time.monotonic() - began
        return phase

    def wait_moved(self, name: str) -> str:
        """Wait for the end of a move. :returns: its phase then."""
        seen = ""

        def ended() -> bool:
            nonlocal seen
            try:
                seen = str(self.cluster.admin.request("GET", f"/tenants/{name}/migration")["phase"])
            except PBClusterError:
                return False  # an election
            return seen in ENDS

        self.cluster.wait_until(ended, f"the end of the move of {name}", MOVED_WITHIN_S)
        return seen

    def undrain(self) -> None:
        """Drained nodes take tenants again."""
        for node in sorted(self._drained):
            self.cluster.admin.request("POST", f"/nodes/{node}/undrain")
        self._drained.clear()

    def drain(self, node: str, within_s: float) -> None:
        """Have a node give all its tenants away; it takes none until the scene ends."""
        self._drained.add(node)
        began = self.event(f"{node} drained", fault=True)
        self.cluster.admin.request("POST", f"/nodes/{node}/drain")

        def empty() -> bool:
            return int(self.cluster.admin.request("GET", f"/nodes/{node}/drain")["left"]) == 0

        self.cluster.wait_until(empty, f"{node} to have no tenants", within_s)
        self.event(f"{node} is empty")
        self.figures["drain_s"] = time.monotonic() - began

    # -- looking and waiting ----------------------------------------------------------------------

    def owner(self, tenant: str = "") -> str:
        """The node that the control plane names for a tenant."""
        return str(self.cluster.admin.tenant(tenant or self.tenants[0])["nodeID"])

    def others(self, tenant: str = "") -> list[str]:
        """The nodes that it does not."""
        owner = self.owner(tenant)
        return [node for node in self.cluster.ids("node") if node != owner]

    def leader(self) -> str:
        """The member that leads, waiting for one."""
        found = ""

        def leads() -> bool:
            nonlocal found
            try:
                rows = self.cluster.admin.all("members")
            except PBClusterError:
                return False
            found = next((str(row["id"]) for row in rows if row["role"] == "leader"), "")
            return bool(found)

        self.cluster.wait_until(leads, "a leader", LEADER_WITHIN_S)
        return found

    def whole_group(self) -> None:
        """Wait until every member follows the log."""

        def whole() -> bool:
            try:
                rows = self.cluster.admin.all("members")
            except PBClusterError:
                return False
            return all(r["role"] == "leader" or r.get("state") == "replicate" for r in rows)

        self.cluster.wait_until(whole, "all members to follow the log", LEADER_WITHIN_S)

    def wait_owner_is_not(self, node: str, within_s: float = RECOVERED_WITHIN_S) -> None:
        """Wait until the control plane names another one."""
        self.cluster.wait_until(lambda: self.owner() != node, f"another than {node}", within_s)
        self.event(f"{self.owner()} is to own it")

    def wait_in_s3(self, acked: Sequence[Operation], within_s: float) -> None:
        """Wait until every one of these writes is in a database restored from S3."""
        missing = ""

        def there() -> bool:
            nonlocal missing
            try:
                rows = {n: replica_rows(self.cluster, n) for n in {o.tenant for o in acked}}
            except (Broken, PBClusterError) as error:
                missing = str(error)
                return False
            history = History(operations=list(acked), rows=dict(rows))
            lost = judge(history, Permits(writes=frozenset((0,)))).lost
            missing = f"{len(lost)} of {len(acked)}: {lost[:3]}"
            return not lost

        try:
            self.cluster.wait_until(there, "every write to be in S3", within_s)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"not in S3: {missing}; {error}") from None

    def wait_not_degraded(self, within_s: float) -> None:
        """Wait until no tenant is degraded."""

        def none_is() -> bool:
            try:
                return not any(self.cluster.admin.tenant(n)["degraded"] for n in self.tenants)
            except PBClusterError:
                return False  # an election

        if not none_is():
            self.cluster.wait_until(none_is, "the end of the flag", within_s)
            self.event("nothing is degraded")

    def settled(self) -> None:
        """Wait until the clients have their first answers, and a random moment more."""
        self.recovered()
        self.pass_s(self.dice.random() * MOMENT_S)

    def recovered(self, within_s: float = RECOVERED_WITHIN_S) -> None:
        """Wait until clients of all tenants have good answers again."""
        goals = [each.goal(self.enough) for each in self.clients]
        until = time.monotonic() + within_s
        for each, goal in zip(self.clients, goals, strict=True):
            each.wait_for(goal, until)

    def away(self, seconds: float) -> None:
        """Let an outage last for so long."""
        began = time.monotonic()
        self.pass_s(seconds)
        self.figures["away_s"] = time.monotonic() - began

    def pass_s(self, seconds: float) -> None:
        """Let the clients go on for so long: the length of an outage is a part of its story."""
        time.sleep(seconds)
