"""Clients of the tenants: they ask every node that lets them, as gateways with old routes do.

A request goes the way of ``front``: the tenant is waited for, a proof is held at the moment of the
hand-over, a write's response waits for its acknowledgement.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from pbcluster.errors import PBClusterError
from pbcluster.node.acks import Level, Withheld
from pbcluster.node.parts import pause, spawn
from pbcluster.node.tenant import Tenant
from pbcluster.testing.ownership_sim.files import PREFIX, Files
from pbcluster.testing.ownership_sim.journal import Violation
from pbcluster.testing.ownership_sim.process import NodeProcess

if TYPE_CHECKING:
    from pbcluster.testing.ownership_sim.world import World

#: A request waits so long for its tenant.
HOLD_S = 5.0
#: Requests of all clients at once.
MAX_UNDER_WAY = 60


class Clients:
    """See the module.

    :ivar reads: answered. :ivar good_since: tenant → when it last acknowledged and last answered.
    """

    def __init__(self, world: World, random: Random, files: Files) -> None:
        self.reads = 0
        self.written: dict[str, float] = {}
        self.read: dict[str, float] = {}
        self._world = world
        self._random = random
        self._files = files
        self._rows = 0
        self._under_way = 0

    def ask(self, process: NodeProcess, tenant_id: str) -> None:
        """One request arrives at a process."""
        if self._under_way >= MAX_UNDER_WAY:
            return
        chance, work = self._random.random(), self._read
        if chance < 0.4:
            work = self._write
        elif chance < 0.5:
            work = self._delete_file
        if process.clock.dead:
            return
        self._under_way += 1

        def begin() -> None:
            spawn(work(process, tenant_id), "a request").addCallback(self._over)

        process.clock.callLater(0, begin)

    def _over(self, _: object) -> None:
        self._under_way -= 1

    def died(self) -> None:
        """A process died with whatever was under way in it."""
        self._under_way = 0

    async def _admit(self, process: NodeProcess, tenant_id: str, *, write: bool) -> Tenant | None:
        deadline = process.clock.seconds() + HOLD_S
        try:
            tenant = await process.tenants.ready(tenant_id, write=write, deadline=deadline)
            if not tenant.proven():
                await tenant.prove()
        except PBClusterError:
            return None
        if tenant.upstream(write=write) is None or not tenant.proven():
            return None
        return tenant

    async def _read(self, process: NodeProcess, tenant_id: str) -> None:
        journal = self._world.journals[tenant_id]
        needed = journal.needed()
        tenant = await self._admit(process, tenant_id, write=False)
        if tenant is None or process.replaced(tenant_id):
            return
        rows = process.fake.workloads.running[tenant_id].rows()
        self.reads += 1
        self.read[tenant_id] = self._world.now
        missing = journal.missing(needed, rows)
        where = f"{process.name} start {process.number} epoch {tenant.epoch} of {tenant_id}"
        if missing:
            self._world.broken("no_stale_read", f"{where} does not show {missing[:3]}")
        gone = self._files.gone(tenant_id, rows)
        if gone:
            self._world.broken("files_present", f"{where} shows {gone[:3]}")

    async def _write(self, process: NodeProcess, tenant_id: str) -> None:
        tenant = await self._admit(process, tenant_id, write=True)
        if tenant is None:
            return
        row: str | None
        is_file = self._random.random() < 0.2
        if is_file:
            row = await self._files.upload(process, tenant_id)
            if row is None or tenant.upstream(write=True) is None:
                return
        else:
            self._rows += 1
            row = f"row {self._rows}"
        workload = process.fake.workloads.running.get(tenant_id)
        if workload is None:
            return
        workload.write(row)
        await pause(process.clock, self._random.random() * 0.01)
        await self._acknowledged(process, tenant, "" if is_file else row)

    async def _acknowledged(self, process: NodeProcess, tenant: Tenant, row: str) -> None:
        """Wait for the acknowledgement and note it.

        :param row: empty: nothing to note.
        """
        world, tenant_id, epoch = self._world, tenant.tenant_id, tenant.epoch
        journal = world.journals[tenant_id]
        try:
            level = await tenant.replication.acknowledge()
        except Withheld:
            return
        if not row:
            return
        told = f"acks {row} of {tenant_id} epoch {epoch} as {level.value}"
        world.trace.add(world.now, process.name, told)
        stored = world.s3.rows(tenant_id, epoch)
        found: Violation | None
        if level is Level.LOCAL:
            found = world.local_acked(process, tenant, row)
        elif level is Level.S3:
            found = journal.acked_durably(row, stored)
        else:
            ours = world.claimant(tenant_id) == (process.name, epoch)
            found = journal.acked_at_once(row, world.now, epoch, stored, ours=ours)
        if level is not Level.LOCAL:
            self.written[tenant_id] = world.now
        world.found(found)

    async def _delete_file(self, process: NodeProcess, tenant_id: str) -> None:
        tenant = await self._admit(process, tenant_id, write=True)
        workload = process.fake.workloads.running.get(tenant_id)
        if tenant is None or workload is None:
            return
        found = process.fake.disk.databases[workload.database]
        row = next((each for each in found.rows if each.startswith(PREFIX)), None)
        if row is None:
            return
        found.rows.remove(row)
        found.txid += 1
        if self._files.is_due(covered=False, waited_s=0.0):
            await self._files.carry_out(process, tenant_id, row)
        try:
            await process.fake.replication.sync(workload.database, timeout_s=5.0)
            seen = await process.fake.claims.read_owner(tenant_id)
        except PBClusterError:
            return  # it stays recorded; this model forgets it
        if process.replaced(tenant_id):
            return
        covered = seen is not None and (seen.owner.node, seen.owner.epoch) == (
            process.name,
            tenant.epoch,
        )
        began = process.clock.seconds()
        await pause(process.clock, 2.5)
        if self._files.is_due(covered, process.clock.seconds() - began):
            await self._files.carry_out(process, tenant_id, row)
