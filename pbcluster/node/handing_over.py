"""The source's part of a migration: hold, let open requests finish, stop, sync, give up, report.

The order stands in the assignment (``handing_over``), so it is repeated with every whole list and
gone with the assignment of an abort. What holds:

* From the moment the list is obeyed, no request of the tenant is handed to PocketBase and nothing
  of it is started (``Tenant.is_held``); requests wait here, their bodies unread, bounded as while
  it loads.
* A request that is open when its time is over aborts the migration, not the request.
* ``drained`` is reported only if the last sync succeeded and all that the copy holds is in S3. From
  then on this process does not serve the tenant, unless a later list takes the order back.
* ``settled`` is said only if our own claim stood for its whole wait before: then nobody who had the
  tenant before us can hold a proof, and the successor need not wait.

It knows nothing of where the tenant goes.
"""

from __future__ import annotations

from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.node.parts import NodeParts, spawn
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenants import Tenants
from pbcluster.wire import TenantReport

#: Requests that are open when the order comes may finish within this time.
OPEN_REQUESTS_S = 10.0

log = Logger()


class HandingOver:
    """Follows the orders of the obeyed list; :meth:`obeyed` after each."""

    def __init__(self, parts: NodeParts, tenants: Tenants) -> None:
        self._parts = parts
        self._tenants = tenants
        #: Tenant → the migration that it is handed over for.
        self._orders: dict[str, str] = {}
        #: Tenants of which a hand-over is under way in this process.
        self._under_way: set[str] = set()

    def obeyed(self) -> None:
        """A list of assignments was obeyed."""
        wanted = {each.tenant_id: each.assignment.handing_over for each in self._tenants}
        before, self._orders = self._orders, {t: order for t, order in wanted.items() if order}
        for tenant_id, order in self._orders.items():
            if before.get(tenant_id) != order and tenant_id not in self._under_way:
                self._begin(tenant_id)
        for tenant_id in before.keys() - self._orders.keys() - self._under_way:
            self._go_on(tenant_id)

    def _begin(self, tenant_id: str) -> None:
        tenant = self._tenants.find(tenant_id)
        if tenant is not None:
            self._under_way.add(tenant_id)
            spawn(self._hand_over(tenant), f"hand-over of {tenant_id}")

    def _go_on(self, tenant_id: str) -> None:
        """The order was taken back; if the tenant itself is gone, there is nothing to do."""
        tenant = self._tenants.find(tenant_id)
        if tenant is not None and not tenant.is_held():
            log.info("{tenant} stays here", tenant=tenant_id)
            self._tenants.go_on(tenant)

    async def _hand_over(self, tenant: Tenant) -> None:
        tenant_id, order = tenant.tenant_id, tenant.assignment.handing_over
        try:
            report = await self._drain(tenant, order)
            if self._orders.get(tenant_id) == order:
                self._parts.report(report)
        finally:
            self._under_way.discard(tenant_id)
            now = self._orders.get(tenant_id)
            if now is None:
                self._go_on(tenant_id)
            elif now != order:
                self._begin(tenant_id)

    async def _drain(self, tenant: Tenant, order: str) -> TenantReport:
        settled = self._parts.proofs.settled(tenant.tenant_id, tenant.epoch, self._parts.boottime())
        try:
            if not await self._tenants.put_to_rest(tenant, OPEN_REQUESTS_S):
                why = f"requests were still open after {OPEN_REQUESTS_S:.0f} s"
                return self._report(tenant, order, "not_drained", detail=why)
            txid = await self._all_in_s3(tenant)
        except PBClusterError as error:
            return self._report(tenant, order, "not_drained", detail=error.message)
        if txid is None:
            why = "its last sync did not bring everything to S3"
            return self._report(tenant, order, "not_drained", detail=why)
        return self._report(tenant, order, "drained", txid=txid, settled=settled)

    async def _all_in_s3(self, tenant: Tenant) -> int | None:
        """The last transaction, if it and all before it are in S3; else None."""
        ended_whole = tenant.replication.ended_whole
        if ended_whole is False:
            return None
        database = self._parts.directories.path(tenant.tenant_id) / "data" / "data.db"
        if ended_whole is None and self._parts.directories.has_wal(tenant.tenant_id):
            # An earlier process was killed: what is in the log file may be nowhere else.
            return None
        note = self._parts.directories.claim_note(tenant.tenant_id)
        if note is None or note.epoch != tenant.epoch:
            return 0  # nothing of this epoch was ever here
        local = self._parts.replication.local_txid(database)
        remote = await self._parts.claims.highest_txid(tenant.tenant_id, tenant.epoch)
        return local if remote >= local else None

    def _report(
        self,
        tenant: Tenant,
        order: str,
        outcome: str,
        *,
        detail: str = "",
        txid: int = 0,
        settled: bool = False,
    ) -> TenantReport:
        return TenantReport(
            node_id=self._parts.node_id,
            incarnation=0,
            tenant_id=tenant.tenant_id,
            epoch=tenant.epoch,
            outcome=outcome,
            detail=detail,
            txid=txid,
            migration_id=order,
            settled=settled,
        )
