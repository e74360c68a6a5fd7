"""The cluster on which stories are played, round after round, and how a round is read back.

A stage keeps its tenants for some rounds, so that each round's reading back covers what the former
ones wrote; then it makes new ones and deletes the old. Everything is made anew after a round in
which a promise was broken: what is left then says nothing about the next.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from types import TracebackType

import attrs

from pbcluster.errors import PBClusterError
from pbcluster.testing.chaos.clients import TenantClients, prepare, read_all
from pbcluster.testing.chaos.figures import round_figures
from pbcluster.testing.chaos.history import WRITES, History, Operation
from pbcluster.testing.chaos.judge import Verdict, judge
from pbcluster.testing.chaos.kernel_net import KernelNet
from pbcluster.testing.chaos.probes import ClaimWatch, NodeProbes, PlaneProbes, Threads
from pbcluster.testing.chaos.replicas import replica_rows
from pbcluster.testing.chaos.scene import Scene
from pbcluster.testing.chaos.stage_cluster import StageCluster
from pbcluster.testing.chaos.story import Shape, Story
from pbcluster.testing.soak_litestream import Broken
from pbcluster.testing.workload import Client, Failed

EMAIL, PASSWORD = "chaos@example.com", "a password for the chaos"
#: Rounds that use the same tenants; reading their rows back takes longer each time.
ROUNDS_OF_TENANTS = 8
#: Litestream's pauses grow to 20 s while S3 is away.
CAUGHT_UP_WITHIN_S = 60.0
#: Of many tenants so many replicas are restored at the end of a round.
REPLICAS = 3


@attrs.frozen(kw_only=True)
class Outcome:
    """What one round came to.

    :ivar figures: seconds and numbers; ``load`` is the machine's load average when it began.
    :ivar broken: why the story did not come to its end; empty: it did.
    """

    story: Story
    number: int
    seed: int
    verdict: Verdict
    figures: dict[str, float]
    history: History
    broken: str = ""

    @property
    def good(self) -> bool:
        """Whether every promise was kept. What figures should be is another question."""
        return self.verdict.good and not self.broken

    def told(self) -> list[str]:
        """What went wrong."""
        return ([self.broken] if self.broken else []) + self.verdict.told()


def _unplayed(
    story: Story, number: int, seed: int, figures: dict[str, float], broken: str
) -> Outcome:
    """Of a round for which no tenants could be made."""
    history = History()
    return Outcome(
        story=story,
        number=number,
        seed=seed,
        verdict=judge(history),
        figures=figures,
        history=history,
        broken=broken,
    )


@attrs.define
class _Tenant:
    """One under load. :ivar writes: those of former rounds."""

    name: str
    tenant_id: str
    writes: list[Operation] = attrs.field(factory=list)


class Stage:
    """See the module.

    with Stage(story.shape, seed) as stage:
        outcome = stage.play(story, number, seed)
    """

    def __init__(
        self,
        shape: Shape,
        seed: int = 0,
        tell: Callable[[str], object] = print,
        *,
        durable_reads: bool = False,
    ) -> None:
        """
        :param tell: called with each line of progress. :param durable_reads: of all tenants.
        """
        self.shape = shape
        self._seed = seed
        self._durable_reads = durable_reads
        self._stack = contextlib.ExitStack()
        self._tell = tell
        self._tenants: list[_Tenant] = []
        self._rounds = self._made = 0

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as stack:
            kernel = stack.enter_context(KernelNet()) if self.shape.kernel else None
            self.cluster = StageCluster(self.shape, self._seed, kernel)
            stack.callback(self.cluster.close)
            self.cluster.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def play(self, story: Story, number: int, seed: int, *, long: bool = False) -> Outcome:
        """One round: clients, the story, healing, reading back, judging.

        :param number: of the round, from 1 on. :param seed: of all that is random in it.
        """
        load = {"load": os.getloadavg()[0]}
        try:
            tenants = self._prepared((long and story.long_tenants) or story.tenants)
        except (PBClusterError, Failed) as error:
            broken = f"before it began: {type(error).__name__}: {error}"
            return _unplayed(story, number, seed, load, broken)
        self._rounds += 1
        history = History()
        clients = [self._clients(story, tenant, history) for tenant in tenants]
        dice = random.Random(f"{story.name} {seed} {number}")
        scene = Scene(self.cluster, history, clients, dice, enough=story.enough, long=long)
        broken = ""
        with self._running(story, scene, tenants):
            try:
                scene.settled()
                story.play(scene)
                scene.heal()
                scene.recovered()
                # What is acknowledged on one disk would hide that the next story's S3 is away.
                scene.wait_not_degraded(CAUGHT_UP_WITHIN_S)
            except (PBClusterError, Failed, AssertionError) as error:
                broken = f"{type(error).__name__}: {error}"
        if not broken:
            broken = self._read_back(tenants, history)
        earlier = [write for each in tenants for write in each.writes]
        verdict = judge(history, story.permits, earlier, durable_reads=self._durable_reads)
        for tenant in tenants:
            own = [w for w in history.of(*WRITES) if w.tenant == tenant.name]
            tenant.writes += own
        figures = round_figures(history, scene.fault_s) if scene.fault_s else {}
        return Outcome(
            story=story,
            number=number,
            seed=seed,
            verdict=verdict,
            figures=load | figures | scene.figures,
            history=history,
            broken=broken,
        )

    # -- tenants ----------------------------------------------------------------------------------

    def _prepared(self, count: int) -> list[_Tenant]:
        """So many tenants, new ones after some rounds."""
        if self._rounds >= ROUNDS_OF_TENANTS:
            for tenant in self._tenants:
                self.cluster.admin.delete_tenant(tenant.tenant_id)
            self._tenants.clear()
            self._rounds = 0
        while len(self._tenants) < count:
            self._made += 1
            name = f"chaos{self._made}"
            if count > REPLICAS:
                self._tell(f"tenant {len(self._tenants) + 1} of {count}")
            made = self.cluster.create_tenant(
                name, EMAIL, PASSWORD, durableReads=self._durable_reads
            )
            client = self._client(name)
            client.sign_in(EMAIL, PASSWORD)
            prepare(client)
            client.close()
            self._tenants.append(_Tenant(name, str(made["id"])))
        return self._tenants[:count]

    def _client(self, name: str) -> Client:
        return Client(self.cluster.gateway_url, self.cluster.host(name))

    def _clients(self, story: Story, tenant: _Tenant, history: History) -> TenantClients:
        return TenantClients(
            self.cluster.gateway_url,
            self.cluster.host(tenant.name),
            tenant.name,
            f"r{self._rounds:03}",
            history,
            writers=story.writers,
            readers=story.readers,
            pause_s=story.pause_s,
            passing_every_s=story.passing_every_s,
        )

    @contextlib.contextmanager
    def _running(self, story: Story, scene: Scene, tenants: list[_Tenant]) -> Iterator[None]:
        """Clients and probes at work."""
        known = {
            tenant.name: (tenant.tenant_id, clients.known)
            for tenant, clients in zip(tenants, scene.clients, strict=True)
        }
        ids = {tenant.name: tenant.tenant_id for tenant in tenants}
        watch = ClaimWatch(self.cluster, scene.history, ids)
        probes: list[Threads] = []
        if story.probes:
            watch.start()
            nodes = NodeProbes(self.cluster, scene.history, known)
            nodes.start()
            probes += [nodes, watch]
        if story.plane:
            plane = PlaneProbes(self.cluster, scene.history, tenants[0].name)
            plane.start()
            probes.append(plane)
        for each in scene.clients:
            each.start()
        try:
            yield
        finally:
            for each in scene.clients:
                each.end_soon()
            for each in scene.clients:
                each.stop()
            for one in probes:
                one.stop()

    # -- reading back -----------------------------------------------------------------------------

    def _read_back(self, tenants: list[_Tenant], history: History) -> str:
        """Every row of each tenant, and of some the replica in S3. :returns: why not."""
        try:
            for tenant in tenants:
                client = self._client(tenant.name)
                history.rows[tenant.name] = read_all(client)
                client.close()
            for tenant in tenants[:REPLICAS]:
                try:
                    history.replicas[tenant.name] = replica_rows(self.cluster, tenant.name)
                except Broken as error:
                    history.damaged.append(f"{tenant.name}: {error}")
        except (PBClusterError, Failed) as error:
            return f"reading back: {type(error).__name__}: {error}"
        return ""
