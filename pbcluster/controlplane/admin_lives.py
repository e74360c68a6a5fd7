"""The admin API's routes for the life of a tenant: archive, activate and delete.

An archived tenant has no process and no copy on any node; its data is in S3, its name stays taken.
Requests to it are answered 503 with the reason until it is activated; then its next request wakes
it. A deleted one leaves a tombstone, and its objects go after a while.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.server import Request

from pbcluster.controlplane import admin_json
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint, idempotency_key, version_of
from pbcluster.controlplane.admin_table import Param, Query
from pbcluster.controlplane.admin_views import TenantView
from pbcluster.errors import InvalidInput, PBClusterError, Unprocessable
from pbcluster.records import Role, TenantRecord, TenantStatus, is_tenant_id

MAX_WAIT_S = 60.0
LOOK_AGAIN_S = 0.02
WAIT = Param("wait", "number", "Seconds until it is answered at the latest.", 0.0, 0, MAX_WAIT_S)
CONFIRM = Param(
    "confirm", "string", "the tenant's id or name, once more", max_length=100, required=True
)
PURGE = Param(
    "purge", "string", "now, or left out: its objects leave S3 at once", "", pattern="^(now)?$"
)

log = Logger()


class LifeRoutes(AdminRoutes):
    """``archive`` and ``activate`` of a tenant, which may be repeated, and its end."""

    @endpoint(
        "POST",
        "/api/cp/tenants/<string:key>/archive",
        role=Role.OPERATOR,
        query=(WAIT,),
        answers={200: TenantView, 202: TenantView},
        conditional=True,
    )
    async def archive_tenant(self, request: Request, key: str, query: Query) -> tuple[int, Any]:
        """Archive: it stops answering at once; with ``?wait=`` answer when it is archived.

        200 if it is archived, else 202. 409: it is degraded, or being deleted.
        """
        until = self._clock.seconds() + query["wait"]
        tenant, own = self._living(key), idempotency_key(request)
        command = c.ArchiveTenant(self._wall_clock(), tenant.id, version_of(request))
        own = own and f"admin/archive/{own}"
        await self.propose(request, command, "tenant.archive", tenant.id, "", key=own)
        while True:
            now = self._consensus.registry.tenant(tenant.id)
            if now.status is not TenantStatus.ARCHIVING or self._clock.seconds() >= until:
                done = now.status is TenantStatus.ARCHIVED
                return (200 if done else 202), self._as_json(now)
            await deferLater(self._clock, LOOK_AGAIN_S)

    @endpoint(
        "POST",
        "/api/cp/tenants/<string:key>/activate",
        role=Role.OPERATOR,
        answers={200: TenantView},
        conditional=True,
    )
    async def activate_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Activate: it has a node again, and its next request wakes it.

        409: it is not archived yet.
        """
        tenant, own = self._living(key), idempotency_key(request)
        command = c.ActivateTenant(self._wall_clock(), tenant.id, version_of(request))
        own = own and f"admin/activate/{own}"
        await self.propose(request, command, "tenant.activate", tenant.id, "", key=own)
        await self._give_node(self._consensus.registry.tenant(tenant.id))
        return 200, self._as_json(self._consensus.registry.tenant(tenant.id))

    async def _give_node(self, tenant: TenantRecord) -> None:
        """Gateways learn of it by the route's broadcast, at once."""
        if tenant.node_id:
            return
        try:
            effect = self._planner.place(tenant, self._clock.seconds())
            if effect is not None:
                await self._executor.assign(effect)
        except PBClusterError as error:
            # It is active, so this is no failure of the activation: its first request places it.
            log.info("tenant {t} is placed later: {e}", t=tenant.id, e=error.message)

    @endpoint(
        "DELETE",
        "/api/cp/tenants/<string:key>",
        role=Role.OPERATOR,
        query=(CONFIRM, WAIT, PURGE),
        answers={200: TenantView, 202: TenantView},
        conditional=True,
    )
    async def delete_tenant(self, request: Request, key: str, query: Query) -> tuple[int, Any]:
        """Delete a tenant: it stops answering at once; with ``?wait=`` answer when it ended.

        ``confirm`` is its id or name once more. 200 if a node has claimed its end, else 202. Its
        objects stay in S3 for a while; with ``?purge=now`` they go at once, also by the id of one
        that is deleted already.
        """
        until = self._clock.seconds() + query["wait"]
        own = idempotency_key(request)
        own = own and f"admin/delete/{own}"
        # A repetition is about the tenant that was meant first: its name may be another's by now.
        done = self._consensus.registry.outcome(own)
        if done is not None and done.error is not None:
            raise done.error.exception()
        now_too = query["purge"] == "now"
        if query["purge"] not in ("", "now"):
            raise InvalidInput("purge must be now, or left out", field="purge", allowed="now")
        by_id = now_too and is_tenant_id(key)
        tenant = self._living(key if done is None else done.tenant_id, gone=by_id or bool(done))
        if query["confirm"] not in (tenant.id, tenant.name):
            rule = CONFIRM.description
            raise Unprocessable(f"confirm must be {rule}", field="confirm", allowed=rule)
        keep_s = 0.0 if now_too else self._deleted_keep_s
        command = c.DeleteTenant(self._wall_clock(), tenant.id, version_of(request), keep_s=keep_s)
        detail = f"name {tenant.name}" + (", objects too" if now_too else "")
        await self.propose(request, command, "tenant.delete", tenant.id, detail, key=own)
        while True:
            now = self._consensus.registry.tenant(tenant.id)
            if now.status is TenantStatus.DELETED or self._clock.seconds() >= until:
                return (200 if now.status is TenantStatus.DELETED else 202), self._as_json(now)
            await deferLater(self._clock, LOOK_AGAIN_S)

    def _as_json(self, tenant: TenantRecord) -> dict[str, Any]:
        return admin_json.tenant_json(
            self._consensus.registry,
            self._liveness,
            tenant,
            self._requests.reports.failures.get(tenant.id, ""),
        )
