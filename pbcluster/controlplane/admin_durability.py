"""What operators decide about degraded tenants in the admin API."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from twisted.web.server import Request

from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint, idempotency_key
from pbcluster.controlplane.admin_views import GivenAwayView
from pbcluster.errors import Conflict, Unprocessable
from pbcluster.records import Role

log = Logger()


class DurabilityRoutes(AdminRoutes):
    """The routes about what only a node's disk has."""

    @endpoint(
        "POST",
        "/api/cp/tenants/<string:key>/give-away",
        role=Role.OPERATOR,
        body=bodies.GiveAway,
        answers={200: GivenAwayView},
    )
    async def give_tenant_away(
        self, request: Request, key: str, body: bodies.GiveAway
    ) -> tuple[int, Any]:
        """Let go of a degraded tenant whose owner cannot go on, and of what only it has.

        Its next owner is found as that of any tenant whose node is silent. 409: it is not degraded,
        or its node answers.
        """
        if not body.accept_loss:
            raise Unprocessable(
                "giving a degraded tenant away loses what only its node has: say acceptLoss",
                field="acceptLoss",
                allowed="true",
            )
        await self._consensus.read_barrier()
        tenant = self._living(key)
        stranded = self._requests.reports.stranded.get(tenant.id) == tenant.epoch
        if not tenant.degraded:
            raise Conflict(f"tenant {tenant.name!r} is not degraded: nothing has to be given up")
        if self._liveness.alive(tenant.node_id) and not stranded:
            raise Conflict(
                f"node {tenant.node_id!r} answers and has acknowledged writes of tenant "
                f"{tenant.name!r} that are nowhere else: they go to S3 when it is back; to lose "
                "them on purpose, stop the node first"
            )
        own = idempotency_key(request)
        command = c.GiveAway(self._wall_clock(), tenant.id, tenant.epoch)
        own = own and f"admin/give-away/{own}"
        await self.propose(request, command, "tenant.give-away", tenant.id, "", key=own)
        log.critical(
            "{tenant} is given away by an operator: writes that only {node} had are lost",
            tenant=tenant.id,
            node=tenant.node_id,
        )
        return 200, {"id": tenant.id, "nodeID": tenant.node_id, "degraded": False}

    def _degraded_alarms(self) -> list[str]:
        names = [each.name for each in self._consensus.registry.degraded()]
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        return [f"acknowledged writes of {shown} are on one disk only (degraded)"] if names else []
