"""A tenant's custom domains in the admin API, and how a tenant is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.server import Request

from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import admin_json
from pbcluster.controlplane import admin_query as q
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint, version_of
from pbcluster.controlplane.admin_table import Query
from pbcluster.controlplane.admin_views import DomainView, TenantView
from pbcluster.controlplane.domains import custom_domains
from pbcluster.errors import Conflict, NotFound
from pbcluster.records import Role, TenantRecord

#: A tenant's version also changes when it starts or stops.
_CHANGE_TRIES = 5
FIELDS = q.of_dicts(DomainView)


class DomainRoutes(AdminRoutes):
    """The routes below ``tenants/{key}/domains``."""

    @property
    def _base_domain(self) -> str:
        return self._consensus.registry.base_domain

    def _shown(self, tenant: TenantRecord) -> dict[str, Any]:
        return admin_json.tenant_json(
            self._consensus.registry,
            self._liveness,
            tenant,
            self._requests.reports.failures.get(tenant.id, ""),
        )

    @endpoint(
        "GET",
        "/api/cp/tenants/<string:key>/domains",
        role=Role.VIEWER,
        query=FIELDS.params(),
        answers={200: list[DomainView]},
    )
    async def list_domains(self, request: Request, key: str, query: Query) -> tuple[int, Any]:
        """A page of a tenant's custom domains."""
        await self._consensus.read_barrier()
        items = [{"domain": domain} for domain in self._living(key).custom_domains]
        return 200, q.listed(items, query, FIELDS)

    @endpoint(
        "POST",
        "/api/cp/tenants/<string:key>/domains",
        role=Role.OPERATOR,
        body=bodies.NewDomain,
        answers={200: TenantView},
        conditional=True,
    )
    async def add_domain(
        self, request: Request, key: str, body: bodies.NewDomain
    ) -> tuple[int, Any]:
        """Let a tenant answer at one more domain; one that it has already changes nothing."""
        version = version_of(request, body.version)
        wanted = custom_domains([body.domain], self._base_domain)[0]

        def more(now: tuple[str, ...]) -> tuple[str, ...]:
            return custom_domains([*now, wanted], self._base_domain)

        return 200, await self._change_domains(request, key, version, f"add {wanted}", more)

    @endpoint(
        "DELETE",
        "/api/cp/tenants/<string:key>/domains/<string:domain>",
        role=Role.OPERATOR,
        answers={200: TenantView},
        conditional=True,
    )
    async def remove_domain(self, request: Request, key: str, domain: str) -> tuple[int, Any]:
        """Let a tenant answer at a domain no more."""
        unwanted = domain.lower()

        def fewer(now: tuple[str, ...]) -> tuple[str, ...]:
            if unwanted not in now:
                raise NotFound(f"{domain[:100]!r} is no custom domain of {key[:100]!r}")
            return tuple(each for each in now if each != unwanted)

        version = version_of(request)
        return 200, await self._change_domains(request, key, version, f"remove {unwanted}", fewer)

    async def _change_domains(
        self,
        request: Request,
        key: str,
        version: int,
        detail: str,
        change: Callable[[tuple[str, ...]], tuple[str, ...]],
    ) -> dict[str, Any]:
        """:raises Conflict: another version was expected, or another tenant has the domain."""
        for left in reversed(range(_CHANGE_TRIES)):
            await self._consensus.read_barrier()
            tenant = self._living(key)
            command = c.UpdateTenant(
                self._wall_clock(),
                tenant.id,
                version or tenant.version,
                custom_domains=change(tenant.custom_domains),
            )
            try:
                await self.propose(request, command, "tenant.domains", tenant.id, detail)
            except Conflict:
                now = self._consensus.registry.tenant(tenant.id)
                if version or not left or now.version == tenant.version:
                    raise
            else:
                return self._shown(self._consensus.registry.tenant(tenant.id))
        raise AssertionError
