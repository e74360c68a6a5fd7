"""Tenants in the admin API: create, look, change, rename, their domains (ends: ``admin_lives``).

A password is hashed in a thread at once and kept nowhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import bcrypt
import msgspec
from msgspec import UNSET
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.server import Request

from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import admin_json
from pbcluster.controlplane import admin_query as q
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_domains import DomainRoutes
from pbcluster.controlplane.admin_guard import endpoint, idempotency_key, version_of
from pbcluster.controlplane.admin_lives import WAIT
from pbcluster.controlplane.admin_table import Query
from pbcluster.controlplane.admin_views import TenantView
from pbcluster.controlplane.domains import custom_domains
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.tenant_changes import new_tenant
from pbcluster.errors import Conflict, NotFound, PBClusterError, Unprocessable
from pbcluster.records import InitialSuperuser, Role, TenantRecord, TenantStatus

#: PocketBase's own cost; about 50 ms in a thread.
BCRYPT_COST = 10
_LOOK_AGAIN_S = 0.02
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
#: Tenants looked at before others have their turn: some milliseconds.
SCANNED_AT_ONCE = 1024
FIELDS = q.of_records(TenantRecord, TenantView)

log = Logger()


def new_tenant_id() -> str:
    """A random id: 20 characters of 36 never meet by chance."""
    number, letters = secrets.randbelow(len(_ID_ALPHABET) ** 20), []
    for _ in range(20):
        number, letter = divmod(number, len(_ID_ALPHABET))
        letters.append(_ID_ALPHABET[letter])
    return "tenant_" + "".join(letters)


class TenantRoutes(DomainRoutes):
    """The routes below ``tenants``."""

    @endpoint(
        "GET",
        "/api/cp/tenants",
        role=Role.VIEWER,
        query=FIELDS.params(),
        answers={200: list[TenantView]},  # type: ignore[valid-type]
    )
    async def list_tenants(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of all tenants; without ``sort`` in the order of creation."""
        found = q.parse_filter(query["filter"], FIELDS.kinds)
        sort = q.parse_sort(query["sort"], FIELDS.kinds)
        chosen = q.parse_fields(query["fields"], FIELDS.shown)
        await self._consensus.read_barrier()
        test = q.compiled(found, FIELDS)
        begin = (query["page"] - 1) * query["perPage"]
        end = begin + query["perPage"]
        if test is None and len(sort) <= 1 and not {n for n, _ in sort} - {"created", "name"}:
            ((by, descends),) = sort or (("created", False),)
            order = self._consensus.registry.tenant_order()
            ids = order.page(by, begin, end, descends=descends)
            size, part = len(order), [self._consensus.registry.tenant(each) for each in ids]
        else:
            matching = await self._matching(self._candidates(found, sort), test)
            if sort and not _in_order(sort):
                # Half a second for a hundred thousand: others have their turns meanwhile.
                matching = await self._in_thread(q.sorted_by, matching, sort, FIELDS)
            size, part = len(matching), matching[begin:end]
        shown = q.page_of(range(size), query)
        shown["items"] = [q.only(self._shown(tenant), chosen) for tenant in part]
        return 200, shown

    def _candidates(self, found: q.Filter, sort: tuple[tuple[str, bool], ...]) -> list[str]:
        """Ids of all tenants that may match, by an index if there is one."""
        registry = self._consensus.registry
        for each in found[0] if len(found) == 1 else ():
            if each.operator == "=" and each.field in ("id", "name"):
                try:
                    return [registry.tenant(each.value).id]
                except NotFound:
                    return []
            if each.operator == "=" and each.field == "nodeID":
                own = map(registry.tenant, registry.tenants_of(each.value))
                return [t.id for t in sorted(own, key=lambda t: (t.created, t.id))]
        by, descends = sort[0] if _in_order(sort) else ("created", False)
        order = registry.tenant_order()
        return order.page(by, 0, len(order), descends=descends)

    async def _matching(self, ids: list[str], test: q.Test | None) -> list[TenantRecord]:
        """Those that pass; others have their turns meanwhile."""
        passed: list[TenantRecord] = []
        for begin in range(0, len(ids), SCANNED_AT_ONCE):
            if begin:
                await deferLater(self._clock, 0)
            for tenant_id in ids[begin : begin + SCANNED_AT_ONCE]:
                tenant = self._consensus.registry.tenant(tenant_id)
                if tenant.status is not TenantStatus.DELETED and (test is None or test(tenant)):
                    passed.append(tenant)
        return passed

    @endpoint(
        "POST",
        "/api/cp/tenants",
        role=Role.OPERATOR,
        query=(WAIT,),
        body=bodies.NewTenant,
        answers={201: TenantView, 202: TenantView},
    )
    async def create_tenant(
        self, request: Request, query: Query, body: bodies.NewTenant
    ) -> tuple[int, Any]:
        """Create a tenant; with ``?wait=SECONDS`` answer when it is ready.

        201 if it is ready, else 202. 409: the name is taken. 422: no node is in such a region
        or zone. 503 ``no_capacity``: with the reason of each node. Nothing was created then.
        """
        email, password = admin_json.login_of(body.superuser)
        metadata = admin_json.check_metadata(body.metadata)
        quotas = bodies.Quotas() if body.quotas is UNSET else body.quotas
        key = idempotency_key(request)
        placement = admin_json.placement_of(body.placement)
        self._check_room(placement)
        superuser = None
        if email:
            hashed = await self._hashed(password)
            superuser = InitialSuperuser(email=email, password_hash=hashed)
        command = c.CreateTenant(
            at=self._wall_clock(),
            tenant_id=new_tenant_id(),
            name=body.name,
            domain=f"{body.name}.{self._consensus.registry.base_domain}",
            durability=body.durability,
            metadata=metadata,
            quotas=admin_json.quotas_of(quotas),
            initial_superuser=superuser,
            durable_reads=body.durable_reads,
            on_s3_outage=body.on_s3_outage,
            placement=placement,
        )
        outcome = await self._create(request, command, key and f"admin/{key}")
        tenant = self._consensus.registry.tenant(outcome.tenant_id)
        if tenant.name != body.name:
            raise Conflict("this Idempotency-Key was used to create another tenant", field="name")
        await self._place(tenant)
        tenant = await self._wait_ready(tenant.id, query["wait"])
        return (201 if tenant.ever_ready else 202), self._shown(tenant)

    async def _hashed(self, password: str) -> str:
        salt = bcrypt.gensalt(BCRYPT_COST)
        await self._hashing.acquire()
        try:
            hashed: bytes = await self._in_thread(bcrypt.hashpw, password.encode(), salt)
        finally:
            self._hashing.release()
        return hashed.decode()

    async def _create(self, request: Request, command: c.CreateTenant, key: str) -> Outcome:
        """Commit it with its first node. :raises NoCapacity: nothing was created."""
        draft = new_tenant(command)
        effect = self._planner.place(draft, self._clock.seconds())
        assert effect is not None  # it has no node
        command = msgspec.structs.replace(command, node_id=effect.node_id)
        try:
            return await self.propose(
                request, command, "tenant.create", draft.id, f"name {draft.name}", key=key
            )
        finally:
            self._planner.assigned(draft.id, self._clock.seconds(), failed=False)

    def _check_room(self, placement: Mapping[str, str]) -> None:
        """Refuse before anything is created.

        :raises NoCapacity: no node has room. :raises Unprocessable: none is in such a place.
        """
        region, zone = placement.get("region", ""), placement.get("zone", "")
        places = set()
        if region or zone:
            places = {(node.region, node.zone) for node in self._consensus.registry.nodes()}
        if places and not any(region in ("", r) and zone in ("", z) for r, z in places):
            told = ", ".join(sorted(f"{r or 'none'}/{z or 'none'}" for r, z in places))
            raise Unprocessable(
                f"no node is in region {region or 'any'!r}, zone {zone or 'any'!r}",
                field="placement",
                allowed=f"region and zone of a node: {told}"[:1000],
            )
        self._planner.check_room(region, zone)

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

    @endpoint("GET", "/api/cp/tenants/<string:key>", role=Role.VIEWER, answers={200: TenantView})
    async def show_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """One tenant by id or name."""
        await self._consensus.read_barrier()
        return 200, self._shown(self._living(key))

    @endpoint(
        "PUT",
        "/api/cp/tenants/<string:key>",
        role=Role.OPERATOR,
        body=bodies.TenantChange,
        answers={200: TenantView},
        conditional=True,
    )
    async def update_tenant(
        self, request: Request, key: str, body: bodies.TenantChange
    ) -> tuple[int, Any]:
        """Change metadata, quotas, domains, durability or what it logs, each as a whole.

        409: another tenant has a domain. A quota below what is in use is accepted; ``overQuota`` in
        the answer says so.
        """
        return 200, await self._changed(request, key, body)

    @endpoint(
        "PATCH",
        "/api/cp/tenants/<string:key>",
        role=Role.OPERATOR,
        body=bodies.TenantChange,
        answers={200: TenantView},
        conditional=True,
    )
    async def patch_tenant(
        self, request: Request, key: str, body: bodies.TenantChange
    ) -> tuple[int, Any]:
        """The same as PUT: what is not there stays."""
        return 200, await self._changed(request, key, body)

    async def _changed(
        self, request: Request, key: str, body: bodies.TenantChange
    ) -> dict[str, Any]:
        given = {
            name: value
            for name, value in msgspec.structs.asdict(body).items()
            if value is not UNSET
        }
        metadata, quotas = given.get("metadata"), given.get("quotas")
        domains = given.get("custom_domains")
        tenant = self._living(key)
        command = c.UpdateTenant(
            self._wall_clock(),
            tenant.id,
            version_of(request, body.version),
            None if metadata is None else admin_json.check_metadata(metadata),
            None if quotas is None else admin_json.quotas_of(quotas),
            None if domains is None else custom_domains(domains, self._base_domain),
            given.get("logs"),
            given.get("durability"),
            given.get("durable_reads"),
            given.get("on_s3_outage"),
            admin_json.placement_of(body.placement) if body.placement is not UNSET else None,
        )
        own = idempotency_key(request)
        changed = ", ".join(sorted(set(given) - {"version"}))
        await self.propose(
            request,
            command,
            "tenant.update",
            tenant.id,
            changed,
            key=own and f"admin/update/{own}",
        )
        return self._shown(self._consensus.registry.tenant(tenant.id))

    @endpoint(
        "POST",
        "/api/cp/tenants/<string:key>/rename",
        role=Role.OPERATOR,
        body=bodies.Rename,
        answers={200: TenantView},
        conditional=True,
    )
    async def rename_tenant(
        self, request: Request, key: str, body: bodies.Rename
    ) -> tuple[int, Any]:
        """Give a tenant another name; it answers at once by that and no more by the former.

        Its id stays. 409: the name is taken.
        """
        own = idempotency_key(request)
        own = own and f"admin/rename/{own}"
        # A repetition is about the tenant that was meant first: its name is another by now.
        done = self._consensus.registry.outcome(own)
        tenant = self._living(key if done is None else done.tenant_id or key)
        command = c.RenameTenant(
            self._wall_clock(),
            tenant.id,
            body.name,
            f"{body.name}.{self._base_domain}",
            version_of(request, body.version),
        )
        detail = f"from {tenant.name} to {body.name}"
        await self.propose(request, command, "tenant.rename", tenant.id, detail, key=own)
        return 200, self._shown(self._consensus.registry.tenant(tenant.id))


def _in_order(sort: tuple[tuple[str, bool], ...]) -> bool:
    """Whether an index has this order."""
    return len(sort) == 1 and sort[0][0] in ("created", "name")
