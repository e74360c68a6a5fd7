"""What operators ask of a tenant by way of the control plane: a login, and what it printed.

The control plane has checked who asks and written it into its audit trail before it asks here. A
node answers for the epoch that it was asked about only. A login wakes the tenant, under a proof of
ownership as every request; a look into the log wakes nobody. No token is logged or kept.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from pbcluster.errors import NotFound, OwnershipLost, ProcessFailed
from pbcluster.node.arrivals import Loading
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenant_logs import TenantLogs
from pbcluster.node.tenants import Tenants
from pbcluster.transport.interfaces import Asked
from pbcluster.wire import Body, Login, LogLines, MintLogin, ReadLog

#: An operator's token never lives longer, whatever the control plane asks for.
MAX_LIFETIME_S = 3600
#: Left for the answer to travel.
MARGIN_S = 0.2
_TOKEN = re.compile(r"[\w-]{2,2000}\.[\w-]{2,4000}\.[\w-]{2,2000}")
_WORD = re.compile(r"[\w-]{1,64}")


class Operators:
    """Answers the control plane; :meth:`handlers` go into ``heartbeat.Standing``."""

    def __init__(self, tenants: Tenants, logs: TenantLogs, clock: IReactorTime) -> None:
        self._tenants = tenants
        self._logs = logs
        self._clock = clock

    def handlers(self) -> Mapping[type, Callable[[Asked, Any], Awaitable[Body]]]:
        """Kind of question → what answers it."""
        return {MintLogin: self.login, ReadLog: self.read_log}

    async def login(self, asked: Asked, body: MintLogin) -> Login:
        """A token for a superuser of a tenant.

        :raises OwnershipLost: the tenant is not this node's, or under another epoch.
        :raises Unavailable: it cannot be woken in time; says why.
        :raises NotFound: it has no such superuser.
        :raises ProcessFailed: its PocketBase gave no usable answer.
        """
        self._check(body.tenant_id, body.epoch)
        # The transport's clock need not be ours.
        deadline = self._clock.seconds() + asked.deadline - asked.arrived - MARGIN_S
        # A token is made from what is stored, and nothing is stored.
        tenant = await self._tenants.ready(body.tenant_id, write=False, deadline=deadline)
        self._tenants.uses.opened(tenant)  # not stopped for idleness meanwhile
        try:
            self._check(body.tenant_id, body.epoch)
            await tenant.prove()
            return await self._minted(tenant, body)
        finally:
            self._tenants.uses.closed(tenant, stream=False)

    async def _minted(self, tenant: Tenant, body: MintLogin) -> Login:
        workload = tenant.workload
        if workload is None:
            raise Loading("the tenant stopped")
        seconds = max(1, min(body.lifetime_s, MAX_LIFETIME_S))
        answer = await workload.ask("login", {"email": body.email, "seconds": seconds})
        if answer.get("found") is False:
            who = f"superuser {body.email!r}" if body.email else "superuser"
            raise NotFound(f"the tenant has no {who}")
        token, who, email = (str(answer.get(name, "")) for name in ("token", "id", "email"))
        # Its hooks run in the same process: what is shown to an operator must be what it should be.
        fine = _TOKEN.fullmatch(token) and _WORD.fullmatch(who) and len(email) <= 255
        if not fine or not email.isprintable():
            raise ProcessFailed("PocketBase gave no token; its hooks may have changed the route")
        return Login(email, who, token)

    async def read_log(self, asked: Asked, body: ReadLog) -> LogLines:
        """What a tenant of this node printed. :raises OwnershipLost: it is not this node's."""
        self._check(body.tenant_id, 0)
        found = self._logs.read(body.tenant_id, body.cursor, body.most)
        return LogLines(found.cursor, found.lines, found.missed)

    def _check(self, tenant_id: str, epoch: int) -> None:
        tenant = self._tenants.find(tenant_id)
        if tenant is None:
            raise OwnershipLost("this tenant is not on this node", epoch=0)
        if epoch and tenant.epoch != epoch:
            raise OwnershipLost(
                f"this node has the tenant under epoch {tenant.epoch}", epoch=tenant.epoch
            )
