"""The admin API: what operators and the command line ask of a member, over HTTP.

Every route but ``/api/cp/health`` needs the admin token; every answer but a snapshot is JSON; every
error has PocketBase's form (``admin_guard``). Here are health and tenants; ``admin_platform`` has
members and nodes, ``admin_tokens`` platform tokens. A password is hashed in a thread at once and
kept nowhere.
"""

from __future__ import annotations

import secrets
from typing import Any

import bcrypt
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request

from pbcluster.controlplane import admin_json
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_durability import DurabilityRoutes
from pbcluster.controlplane.admin_guard import app, body_of, guarded, idempotency_key
from pbcluster.controlplane.admin_platform import PlatformRoutes
from pbcluster.controlplane.admin_tokens import TokenRoutes
from pbcluster.controlplane.placement import choose
from pbcluster.errors import Conflict, InvalidInput, PBClusterError
from pbcluster.records import InitialSuperuser, TenantRecord, TenantStatus

#: PocketBase's own cost; about 50 ms in a thread.
BCRYPT_COST = 10
MAX_WAIT_S = 60.0
_LOOK_AGAIN_S = 0.02
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

log = Logger()


def new_tenant_id() -> str:
    """A random id: 20 characters of 36 never meet by chance."""
    return "tenant_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(20))


class AdminAPI(PlatformRoutes, TokenRoutes, DurabilityRoutes):
    """All routes. ``resource()`` goes into a ``twisted.web`` site."""

    app = app

    def resource(self) -> IResource:
        """The API as a resource tree."""
        resource: IResource = self.app.resource()
        return resource

    # -- health -----------------------------------------------------------------------------------

    @app.route("/api/cp/health", methods=["GET"])
    @guarded
    async def health(self, request: Request) -> tuple[int, Any]:
        """Cluster health: without the token only whether this member serves."""
        leads = self._consensus.is_leader
        serving = leads or bool(self._consensus.leader_endpoint)
        shown: dict[str, Any] = {
            "status": "ok" if serving else "unavailable",
            # True: this one; else the leader's id, False while there is none.
            "leader": leads or self._consensus.leader_endpoint or False,
        }
        if request.getHeader(b"authorization") is not None:
            self._authorise(request)
            registry = self._consensus.registry
            counts: dict[str, int] = {}
            for tenant in registry.tenants():
                counts[tenant.status.value] = counts.get(tenant.status.value, 0) + 1
            shown["index"] = registry.applied_index
            shown["tenants"] = counts
            shown["nodes"] = {
                node.id: {"status": node.status.value, "alive": self._liveness.alive(node.id)}
                for node in registry.nodes()
            }
            shown["counts"] = self._counts()
            status = self._group.status()
            shown["term"] = 0 if status is None else status.term
            alarms = ["too many nodes do not answer"] if self._planner.storm() else []
            shown["alarms"] = alarms + self._degraded_alarms()
        return (200 if serving else 503), shown

    # -- tenants ----------------------------------------------------------------------------------

    @app.route("/api/cp/tenants", methods=["GET"])
    @guarded
    async def list_tenants(self, request: Request) -> tuple[int, Any]:
        """A page of all tenants, in the order of creation."""
        page, per_page = admin_json.page_of(request.args)
        await self._consensus.read_barrier()
        tenants = list(self._consensus.registry.tenants())
        shown = admin_json.listing(tenants, page, per_page)
        shown["items"] = [self._shown(tenant) for tenant in shown["items"]]
        return 200, shown

    @app.route("/api/cp/tenants", methods=["POST"])
    @guarded
    async def create_tenant(self, request: Request) -> tuple[int, Any]:
        """Create a tenant; with ``?wait=SECONDS`` answer when it is ready."""
        wanted = admin_json.new_tenant(body_of(request))
        wait_s = self._wait_of(request)
        key = idempotency_key(request)
        self._check_room()
        superuser = None
        if wanted.email:
            salt = bcrypt.gensalt(BCRYPT_COST)
            hashed = await self._in_thread(bcrypt.hashpw, wanted.password.encode(), salt)
            superuser = InitialSuperuser(email=wanted.email, password_hash=hashed.decode())
        command = c.CreateTenant(
            at=self._wall_clock(),
            tenant_id=new_tenant_id(),
            name=wanted.name,
            domain=f"{wanted.name}.{self._consensus.registry.base_domain}",
            durability=wanted.durability,
            metadata=wanted.metadata,
            quotas=wanted.quotas,
            initial_superuser=superuser,
            durable_reads=wanted.durable_reads,
            on_s3_outage=wanted.on_s3_outage,
        )
        outcome = await self._consensus.propose(command, key and f"admin/{key}")
        tenant = self._consensus.registry.tenant(outcome.tenant_id)
        if tenant.name != wanted.name:
            raise Conflict("this Idempotency-Key was used to create another tenant", field="name")
        await self._place(tenant)
        tenant = await self._wait_ready(tenant.id, wait_s)
        return (201 if tenant.ever_ready else 202), self._shown(tenant)

    def _check_room(self) -> None:
        """Refuse before anything is created. :raises NoCapacity: no node has room."""
        choose(self._planner.candidates(None))

    async def _place(self, tenant: TenantRecord) -> None:
        if tenant.node_id:
            return
        try:
            effect = self._planner.place(tenant, self._clock.seconds())
            if effect is not None:
                await self._executor.assign(effect)
        except PBClusterError as error:
            # It exists now, so this is no failure of its creation: its first request places it.
            log.info("tenant {t} is placed later: {e}", t=tenant.id, e=error.message)

    async def _wait_ready(self, tenant_id: str, wait_s: float) -> TenantRecord:
        until = self._clock.seconds() + wait_s
        while True:
            tenant = self._consensus.registry.tenant(tenant_id)
            if tenant.ever_ready or self._clock.seconds() >= until:
                return tenant
            await deferLater(self._clock, _LOOK_AGAIN_S)

    @staticmethod
    def _wait_of(request: Request) -> float:
        text = request.args.get(b"wait", [b"0"])[0]
        rule = f"seconds from 0 to {MAX_WAIT_S:.0f}"
        try:
            wait_s = float(text)
        except ValueError:
            wait_s = -1.0
        if not 0 <= wait_s <= MAX_WAIT_S:
            raise InvalidInput(f"wait must be {rule}", field="wait", allowed=rule)
        return wait_s

    @app.route("/api/cp/tenants/<string:key>", methods=["GET"])
    @guarded
    async def show_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """One tenant by id or name."""
        await self._consensus.read_barrier()
        return 200, self._shown(self._living(key))

    @app.route("/api/cp/tenants/<string:key>", methods=["PUT", "PATCH"])
    @guarded
    async def update_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Change metadata, quotas, custom domains or durability."""
        base_domain = self._consensus.registry.base_domain
        change = admin_json.tenant_change(body_of(request), base_domain)
        tenant = self._living(key)
        command = c.UpdateTenant(
            self._wall_clock(),
            tenant.id,
            change.version,
            change.metadata,
            change.quotas,
            change.custom_domains,
            change.durability,
            change.durable_reads,
            change.on_s3_outage,
        )
        key = idempotency_key(request)
        await self._consensus.propose(command, key and f"admin/update/{key}")
        return 200, self._shown(self._consensus.registry.tenant(tenant.id))

    @app.route("/api/cp/tenants/<string:key>", methods=["DELETE"])
    @guarded
    async def delete_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Delete a tenant: it stops answering at once; with ``?wait=`` answer when it ended."""
        until = self._clock.seconds() + self._wait_of(request)
        own = idempotency_key(request)
        own = own and f"admin/delete/{own}"
        # A repetition is about the tenant that was meant first: its name may be another's by now.
        done = self._consensus.registry.outcome(own)
        if done is not None and done.error is not None:
            raise done.error.exception()
        tenant = self._living(key) if done is None else self._living(done.tenant_id, gone=True)
        await self._consensus.propose(c.DeleteTenant(self._wall_clock(), tenant.id), own)
        while True:
            now = self._consensus.registry.tenant(tenant.id)
            if now.status is TenantStatus.DELETED or self._clock.seconds() >= until:
                return (200 if now.status is TenantStatus.DELETED else 202), self._shown(now)
            await deferLater(self._clock, _LOOK_AGAIN_S)

    def _shown(self, tenant: TenantRecord) -> dict[str, Any]:
        return admin_json.tenant_json(
            self._consensus.registry,
            self._liveness,
            tenant,
            self._requests.failures.get(tenant.id, ""),
        )
