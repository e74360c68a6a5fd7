"""Ways into a tenant for operators: a login, and what its PocketBase printed.

Both are asked of the node that has the tenant, over the session that the node opened. First the
audit trail tells it: without a committed entry no node is asked. A login wakes the tenant, and
follows it to another node if it moves meanwhile; a look into the log wakes nobody. The token stands
in the answer and nowhere else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from twisted.internet.task import deferLater
from twisted.web.server import Request

from pbcluster import wire
from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint
from pbcluster.controlplane.admin_table import Param, Query
from pbcluster.controlplane.admin_views import LoginView, LogView
from pbcluster.errors import (
    Conflict,
    DeadlineExceeded,
    NoCapacity,
    NotFound,
    OwnershipLost,
    PBClusterError,
    ProcessFailed,
    RemoteProtocolError,
    Unavailable,
)
from pbcluster.records import Role, TenantRecord, TenantStatus

#: A tenant may have to come from S3 first, or to another node.
WAKE_WITHIN_S = 30.0
#: One try: a node that says nothing so long may be gone, and the tenant be another's by now.
TRY_S = 12.0
LOG_WITHIN_S = 5.0
_AGAIN_S = 0.25
MAX_LINES = 500

AFTER = Param(
    "after", "string", "the cursor of the answer before; empty: the last lines", "", max_length=100
)
MOST = Param("most", "integer", "Lines at most.", 100, 1, MAX_LINES)
M = TypeVar("M", bound=wire.Message)


class InsideRoutes(AdminRoutes):
    """``tenants/KEY/login`` and ``tenants/KEY/logs``."""

    @endpoint(
        "POST",
        "/api/cp/tenants/<string:key>/login",
        role=Role.OPERATOR,
        body=bodies.NewLogin,
        body_required=False,
        answers={201: LoginView},
    )
    async def login(self, request: Request, key: str, body: bodies.NewLogin) -> tuple[int, Any]:
        """Give out a short token of one of a tenant's superusers; it is shown only now."""
        await self._consensus.read_barrier()
        tenant = self._awake(key)
        whose = body.email or "its first superuser"
        await self.noted(request, "tenant.login", tenant.id, f"as {whose} for {body.expires_in} s")
        at = self._wall_clock()
        login = await self._minted(tenant.id, body)
        expires = at + timedelta(seconds=body.expires_in)
        return 201, {
            "token": login.token,
            "email": login.email,
            "recordID": login.superuser_id,
            "expires": expires.isoformat(timespec="seconds"),
            "host": self._consensus.registry.tenant(tenant.id).domain,
        }

    async def _minted(self, tenant_id: str, body: bodies.NewLogin) -> wire.Login:
        """:raises Unavailable: no node could be asked in time; says why."""
        until = self._clock.seconds() + WAKE_WITHIN_S
        while True:
            left = until - self._clock.seconds()
            try:
                tenant = await self._placed(tenant_id)
                question = wire.MintLogin(tenant.id, tenant.epoch, body.email, body.expires_in)
                return await self._ask(tenant.node_id, question, wire.Login, min(TRY_S, left))
            except NoCapacity:
                raise
            except Unavailable as error:
                # It moves, starts, or its node is away: another may have it in a moment. Asking
                # twice makes two tokens of which one is known to nobody: no harm.
                if self._clock.seconds() + _AGAIN_S >= until:
                    raise _told(error) from None
            await deferLater(self._clock, _AGAIN_S)

    async def _placed(self, tenant_id: str) -> TenantRecord:
        """The tenant with a node that lives. :raises Unavailable: there is none now."""
        tenant = self._awake(tenant_id)
        effect = self._planner.place(tenant, self._clock.seconds())
        if effect is not None:
            await self._executor.assign(effect)
        tenant = self._awake(tenant_id)
        if not tenant.node_id:
            raise Unavailable(f"tenant {tenant.name!r} has no node yet")
        return tenant

    def _awake(self, key: str) -> TenantRecord:
        """:raises Conflict: it is archived, so that nothing of it can run."""
        tenant = self._living(key)
        if tenant.status in (TenantStatus.ARCHIVED, TenantStatus.DELETING):
            raise Conflict(f"tenant {tenant.name!r} is {tenant.status.value}")
        return tenant

    @endpoint(
        "GET",
        "/api/cp/tenants/<string:key>/logs",
        role=Role.OPERATOR,
        query=(AFTER, MOST),
        answers={200: LogView},
    )
    async def read_log(self, request: Request, key: str, query: Query) -> tuple[int, Any]:
        """Show what a tenant's PocketBase printed on the node that has it."""
        await self._consensus.read_barrier()
        tenant = self._living(key)
        if not tenant.node_id:
            raise NotFound(f"tenant {tenant.name!r} has no node, so there is nothing it printed")
        if not query["after"]:  # who follows asks each second: the first look is told
            await self.noted(request, "tenant.logs", tenant.id)
        question = wire.ReadLog(tenant.id, query["after"], query["most"])
        try:
            found = await self._ask(tenant.node_id, question, wire.LogLines, LOG_WITHIN_S)
        except Unavailable as error:
            raise _told(error) from None
        return 200, {
            "cursor": found.cursor,
            "lines": list(found.lines),
            "missed": found.missed,
            "nodeID": tenant.node_id,
        }

    async def _ask(self, node_id: str, body: wire.Body, kind: type[M], timeout_s: float) -> M:
        """:raises PBClusterError: what the node answered. :raises ProcessFailed: no such thing."""
        try:
            answer = await self._executor.ask_node(node_id, body, timeout_s=timeout_s)
        except DeadlineExceeded as error:
            raise Unavailable(f"{node_id} does not answer: {error.message}") from None
        try:
            return wire.expect(answer, kind)
        except RemoteProtocolError as error:
            # Not what the operator asked for is wrong.
            raise ProcessFailed(f"{node_id} does not understand: {error.message}") from None


def _told(error: PBClusterError) -> PBClusterError:
    """As an operator should see it: 421 is between machines."""
    if isinstance(error, OwnershipLost):
        return Unavailable(f"the tenant is moving: {error.message}")
    return error
