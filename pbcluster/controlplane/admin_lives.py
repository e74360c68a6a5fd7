"""The admin API's routes for the life of a tenant: archive and activate.

An archived tenant has no process and no copy on any node; its data is in S3, its name stays taken.
Requests to it are answered 503 with the reason until it is activated; then its next request wakes
it. Deleting stands in ``admin_api``, with creating.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.server import Request

from pbcluster.controlplane import admin_json
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_guard import AdminRoutes, app, guarded, idempotency_key
from pbcluster.errors import InvalidInput, PBClusterError
from pbcluster.records import TenantRecord, TenantStatus

MAX_WAIT_S = 60.0
LOOK_AGAIN_S = 0.02

log = Logger()


def wait_of(request: Request) -> float:
    """``?wait=SECONDS``: answer when it is done, or after so long. :raises InvalidInput: no such
    number."""
    text = request.args.get(b"wait", [b"0"])[0]
    rule = f"seconds from 0 to {MAX_WAIT_S:.0f}"
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise InvalidInput(f"wait must be {rule}", field="wait", allowed=rule)
    return wait_s


def purge_of(request: Request) -> bool:
    """``?purge=now``: a deleted tenant's objects go at once. :raises InvalidInput: another word."""
    word = request.args.get(b"purge", [b""])[0]
    if word not in (b"", b"now"):
        raise InvalidInput("purge must be now, or left out", field="purge", allowed="now")
    return bool(word)


class LifeRoutes(AdminRoutes):
    """``/api/cp/tenants/{id}/archive`` and ``/activate``; both may be repeated."""

    @app.route("/api/cp/tenants/<string:key>/archive", methods=["POST"])
    @guarded
    async def archive_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Archive: it stops answering at once; with ``?wait=`` answer when it is archived."""
        until = self._clock.seconds() + wait_of(request)
        tenant, own = self._living(key), idempotency_key(request)
        command = c.ArchiveTenant(self._wall_clock(), tenant.id)
        await self._consensus.propose(command, own and f"admin/archive/{own}")
        while True:
            now = self._consensus.registry.tenant(tenant.id)
            if now.status is not TenantStatus.ARCHIVING or self._clock.seconds() >= until:
                done = now.status is TenantStatus.ARCHIVED
                return (200 if done else 202), self._as_json(now)
            await deferLater(self._clock, LOOK_AGAIN_S)

    @app.route("/api/cp/tenants/<string:key>/activate", methods=["POST"])
    @guarded
    async def activate_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Activate: it has a node again, and its next request wakes it."""
        tenant, own = self._living(key), idempotency_key(request)
        command = c.ActivateTenant(self._wall_clock(), tenant.id)
        await self._consensus.propose(command, own and f"admin/activate/{own}")
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

    def _as_json(self, tenant: TenantRecord) -> dict[str, Any]:
        return admin_json.tenant_json(
            self._consensus.registry,
            self._liveness,
            tenant,
            self._requests.failures.get(tenant.id, ""),
        )
