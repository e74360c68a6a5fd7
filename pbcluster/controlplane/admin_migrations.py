"""Where tenants are and where they go: migrations, drains, placement, the survey."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from twisted.web.server import Request

from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint, idempotency_key
from pbcluster.controlplane.admin_views import (
    DrainView,
    MigrationView,
    PlacementView,
    SurveyView,
)
from pbcluster.controlplane.finding import find
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.placement import choose
from pbcluster.errors import NoCapacity, Unavailable
from pbcluster.records import MigrationPhase, MigrationRecord, Role


class MigrationRoutes(AdminRoutes):
    """The routes of tenants' places."""

    @property
    def _moving(self) -> Migrating:
        if self._migrations is None:
            raise Unavailable("this member moves no tenants")
        return self._migrations

    # -- one tenant -------------------------------------------------------------------------------

    @endpoint(
        "POST",
        "/api/cp/tenants/<string:key>/migrate",
        role=Role.OPERATOR,
        body=bodies.NewMigration,
        answers={202: MigrationView},
    )
    async def migrate_tenant(
        self, request: Request, key: str, body: bodies.NewMigration
    ) -> tuple[int, Any]:
        """Begin to move a tenant to the node that the body names.

        409: it moves already, or the node is its own, full, draining or down. 422: no such node.
        """
        tenant, target = self._living(key), body.target_node
        own = idempotency_key(request)
        await self.propose(
            request,
            self._moving.start_command(tenant, target),
            "tenant.migrate",
            tenant.id,
            f"to {target}",
            key=own and f"admin/migrate/{own}",
        )
        return 202, self._migration_shown(self._migration_of(tenant.id))

    @endpoint(
        "GET",
        "/api/cp/tenants/<string:key>/migration",
        role=Role.VIEWER,
        answers={200: MigrationView},
    )
    async def show_migration(self, request: Request, key: str) -> tuple[int, Any]:
        """How far the tenant's last migration is."""
        await self._consensus.read_barrier()
        return 200, self._migration_shown(self._migration_of(key))

    @endpoint(
        "DELETE",
        "/api/cp/tenants/<string:key>/migration",
        role=Role.OPERATOR,
        answers={200: MigrationView},
    )
    async def abort_migration(self, request: Request, key: str) -> tuple[int, Any]:
        """End a migration that is under way. 409: it is over."""
        record = self._migration_of(key)
        command = self._moving.abort_command(record, "an operator ended it")
        await self.propose(request, command, "tenant.abort-migration", record.tenant_id)
        return 200, self._migration_shown(self._migration_of(record.tenant_id))

    def _migration_of(self, key: str) -> MigrationRecord:
        return self._consensus.registry.migration(self._living(key).id)

    def _migration_shown(self, record: MigrationRecord) -> dict[str, Any]:
        return migration_json(record, self._wall_clock())

    @endpoint(
        "GET",
        "/api/cp/tenants/<string:key>/placement",
        role=Role.VIEWER,
        answers={200: PlacementView},
    )
    async def show_placement(self, request: Request, key: str) -> tuple[int, Any]:
        """Why a tenant is where it is, and where it would go if it had to leave."""
        await self._consensus.read_barrier()
        tenant = self._living(key)
        wish = self._planner.wish(tenant, move=bool(tenant.node_id))
        shown: dict[str, Any] = {
            "tenantID": tenant.id,
            "nodeID": tenant.node_id,
            "constraints": dict(tenant.placement),
        }
        candidates = self._planner.candidates(tenant)
        try:
            choice = choose(candidates, wish=wish)
            shown |= {"next": choice.node_id, "why": choice.why, "reasons": choice.reasons}
        except NoCapacity as error:
            reasons = {each.node.id: each.objection(wish) for each in candidates}
            shown |= {"next": "", "why": error.message, "reasons": reasons}
        return 200, shown

    @endpoint(
        "GET",
        "/api/cp/tenants/<string:key>/find",
        role=Role.OPERATOR,
        answers={200: SurveyView},
    )
    async def find_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Ask every node whether the tenant runs there, and put right what should not be."""
        await self._consensus.read_barrier()
        tenant = self._living(key)
        await self.noted(request, "tenant.find", tenant.id)
        return 200, await find(
            tenant.id, self._consensus, self._planner, self._executor, self._clock
        )

    # -- nodes ------------------------------------------------------------------------------------

    @endpoint(
        "POST",
        "/api/cp/nodes/<string:key>/drain",
        role=Role.OPERATOR,
        answers={202: DrainView},
    )
    async def drain_node(self, request: Request, key: str) -> tuple[int, Any]:
        """Move all tenants off a node; it gets no others."""
        await self._drain(request, key, wanted=True)
        return 202, self._drain_shown(key)

    @endpoint(
        "POST",
        "/api/cp/nodes/<string:key>/undrain",
        role=Role.OPERATOR,
        answers={200: DrainView},
    )
    async def undrain_node(self, request: Request, key: str) -> tuple[int, Any]:
        """Use a node again."""
        await self._drain(request, key, wanted=False)
        return 200, self._drain_shown(key)

    @endpoint(
        "GET",
        "/api/cp/nodes/<string:key>/drain",
        role=Role.VIEWER,
        answers={200: DrainView},
    )
    async def show_drain(self, request: Request, key: str) -> tuple[int, Any]:
        """How far the drain of a node is."""
        await self._consensus.read_barrier()
        return 200, self._drain_shown(key)

    async def _drain(self, request: Request, node_id: str, *, wanted: bool) -> None:
        self._consensus.registry.node(node_id)
        command = c.DrainNode(self._wall_clock(), node_id, wanted)
        await self.propose(request, command, "node.drain" if wanted else "node.undrain", node_id)

    def _drain_shown(self, node_id: str) -> dict[str, Any]:
        registry = self._consensus.registry
        node = registry.node(node_id)
        now = self._wall_clock()
        moving = [
            migration_json(record, now)
            for record in registry.active_migrations()
            if record.source_node == node_id
        ]
        stuck = {}
        for tenant_id in sorted(registry.tenants_of(node_id)):
            last = registry.last_migration(tenant_id)
            if last is not None and last.phase is MigrationPhase.ABORTED:
                stuck[tenant_id] = last.reason
        return {
            "nodeID": node_id,
            "status": node.status.value,
            "drainWanted": node.drain_wanted,
            "left": registry.count_of(node_id),
            "migrations": moving,
            "aborted": stuck,
        }


def migration_json(record: MigrationRecord, now: datetime) -> dict[str, Any]:
    """A migration as operators see it, with the routes that it left and how long its parts took."""
    shown: dict[str, Any] = msgspec.to_builtins(record)
    shown["durations"] = {
        name: round((until - since).total_seconds(), 3)
        for name, since, until in (
            ("preparing", record.started, record.draining_at or record.ended or now),
            ("draining", record.draining_at, record.switching_at or record.ended or now),
            ("switching", record.switching_at, record.ended or now),
            ("total", record.started, record.ended or now),
        )
        if since is not None
    }
    source, target = record.source_node, record.target_node
    switched = record.target_epoch > 0
    routes = [
        {
            "nodeID": target if switched else source,
            "epoch": record.target_epoch if switched else record.source_epoch,
            "priority": 1,
        }
    ]
    if switched and record.old_route:
        routes.append({"nodeID": source, "epoch": record.source_epoch, "priority": 0})
    shown["routes"] = routes
    return shown
