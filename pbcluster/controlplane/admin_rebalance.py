"""The admin API's routes for rebalancing: the plan, and its execution."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import Request

from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint, idempotency_key
from pbcluster.controlplane.admin_views import RebalanceView, RebalancingView
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.rebalancing import plan
from pbcluster.errors import Conflict, NotFound, Unavailable
from pbcluster.records import Role

#: Moves that one plan of a rebalancing names.
MAX_SHOWN_MOVES = 1000


class RebalanceRoutes(AdminRoutes):
    """See the module; what moves is ``rebalancing``'s."""

    @property
    def _rebalancer(self) -> Migrating:
        if self._migrations is None:
            raise Unavailable("this member moves no tenants")
        return self._migrations

    @endpoint("GET", "/api/cp/rebalance", role=Role.VIEWER, answers={200: RebalanceView})
    async def plan_rebalance(self, request: Request) -> tuple[int, Any]:
        """Which moves would even the nodes out; nothing is moved."""
        await self._consensus.read_barrier()
        registry = self._consensus.registry
        moves = plan(registry, self._planner)
        shown = [
            {
                "tenantID": move.tenant_id,
                "name": registry.tenant(move.tenant_id).name,
                "sourceNode": move.source,
                "targetNode": move.target,
            }
            for move in moves[:MAX_SHOWN_MOVES]
        ]
        return 200, {"totalMoves": len(moves), "moves": shown}

    @endpoint(
        "POST",
        "/api/cp/rebalance",
        role=Role.OPERATOR,
        body=bodies.NewRebalance,
        body_required=False,
        answers={202: RebalancingView},
    )
    async def start_rebalance(self, request: Request, body: bodies.NewRebalance) -> tuple[int, Any]:
        """Even the nodes out: its moves are made, a few at a time, whoever leads.

        409: that is under way already.
        """
        total = len(plan(self._consensus.registry, self._planner))
        command = self._rebalancer.rebalance_command(total, body.at_once)
        own = idempotency_key(request)
        own = own and f"admin/rebalance/{own}"
        detail = f"{total} moves, {body.at_once} at once"
        await self.propose(request, command, "cluster.rebalance", "", detail, key=own)
        return 202, self._rebalancing_shown()

    @endpoint("GET", "/api/cp/rebalance/status", role=Role.VIEWER, answers={200: RebalancingView})
    async def show_rebalance(self, request: Request) -> tuple[int, Any]:
        """How far the last rebalancing is. 404: there never was one."""
        await self._consensus.read_barrier()
        return 200, self._rebalancing_shown()

    @endpoint("DELETE", "/api/cp/rebalance", role=Role.OPERATOR, answers={200: RebalancingView})
    async def cancel_rebalance(self, request: Request) -> tuple[int, Any]:
        """Begin no more moves; those under way end by themselves. 409: it is over."""
        record = self._consensus.registry.rebalance
        if record is None or record.ended is not None:
            raise Conflict("no rebalancing is under way")
        command = c.EndRebalance(self._wall_clock(), record.id, "an operator ended it")
        await self.propose(request, command, "cluster.end-rebalance", record.id)
        return 200, self._rebalancing_shown()

    def _rebalancing_shown(self) -> dict[str, Any]:
        record = self._consensus.registry.rebalance
        if record is None:
            raise NotFound("the nodes were never evened out")
        shown: dict[str, Any] = msgspec.to_builtins(record)
        state = "running" if record.ended is None else "ended" if record.reason else "done"
        return shown | {"state": state, "left": self._rebalancer.rebalance_left()}
