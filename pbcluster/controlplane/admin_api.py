"""The admin API: what operators and the command line ask of a member, over HTTP.

Every route but ``/api/cp/health`` and ``/api/cp/openapi.json`` needs a token; every answer but a
snapshot is JSON; every error has PocketBase's form (``admin_guard``). Here are health and the
document; ``admin_tenants`` has tenants, ``admin_inside`` ways into them, ``admin_platform`` members
and nodes, ``admin_tokens`` platform tokens, ``admin_access`` API tokens and the audit trail,
``admin_join`` what comes from other hosts and what is removed.
"""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource
from twisted.web.server import Request

from pbcluster.controlplane import openapi
from pbcluster.controlplane.admin_access import AccessRoutes
from pbcluster.controlplane.admin_caller import caller_of
from pbcluster.controlplane.admin_durability import DurabilityRoutes
from pbcluster.controlplane.admin_guard import OPERATIONS, app, endpoint
from pbcluster.controlplane.admin_inside import InsideRoutes
from pbcluster.controlplane.admin_join import JoinRoutes
from pbcluster.controlplane.admin_lives import MAX_WAIT_S, LifeRoutes
from pbcluster.controlplane.admin_migrations import MigrationRoutes
from pbcluster.controlplane.admin_platform import PlatformRoutes
from pbcluster.controlplane.admin_rebalance import RebalanceRoutes
from pbcluster.controlplane.admin_tenants import BCRYPT_COST, TenantRoutes
from pbcluster.controlplane.admin_tokens import TokenRoutes
from pbcluster.controlplane.admin_views import Health

__all__ = ["BCRYPT_COST", "MAX_WAIT_S", "AdminAPI"]


class AdminAPI(
    TenantRoutes,
    LifeRoutes,
    DurabilityRoutes,
    MigrationRoutes,
    RebalanceRoutes,
    InsideRoutes,
    PlatformRoutes,
    TokenRoutes,
    AccessRoutes,
    JoinRoutes,
):
    """All routes. ``resource()`` goes into a ``twisted.web`` site."""

    app = app

    def resource(self) -> IResource:
        """The API as a resource tree."""
        resource: IResource = self.app.resource()
        return resource

    @endpoint(
        "GET",
        "/api/cp/health",
        role=None,
        answers={200: Health, 503: Health},
        here=True,
    )
    async def health(self, request: Request) -> tuple[int, Any]:
        """Tell whether the cluster serves; needs no token.

        200 if there is a leader, else 503: ``status`` and ``leader`` (true: this member; else its
        id, or false). With a token also ``index``, ``term``, ``tenants`` and ``nodes`` by status,
        ``alarms``, and ``counts``: frames that this member dropped at its Raft and request ports,
        by reason, and connections that were refused.
        """
        leads = self._consensus.is_leader
        serving = leads or bool(self._consensus.leader_endpoint)
        shown: dict[str, Any] = {
            "status": "ok" if serving else "unavailable",
            # True: this one; else the leader's id, False while there is none.
            "leader": leads or self._consensus.leader_endpoint or False,
        }
        if caller_of(request).principal is not None:
            shown |= self._known()
        return (200 if serving else 503), shown

    def _known(self) -> dict[str, Any]:
        registry = self._consensus.registry
        status = self._group.status()
        alarms = ["too many nodes do not answer"] if self._planner.storm() else []
        return {
            "index": registry.applied_index,
            "tenants": registry.tenant_counts(),
            "nodes": {
                node.id: {"status": node.status.value, "alive": self._liveness.alive(node.id)}
                for node in registry.nodes()
            },
            "counts": self._counts(),
            "term": 0 if status is None else status.term,
            "alarms": alarms + self._degraded_alarms(),
        }

    @endpoint("GET", "/api/cp/openapi.json", role=None, answers={200: None}, here=True)
    async def openapi_document(self, request: Request) -> tuple[int, Any]:
        """This API as an OpenAPI 3.1 document."""
        return 200, openapi.document(OPERATIONS)
