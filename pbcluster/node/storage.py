"""The bound on a tenant's database: measured each second, told to who writes over it.

What holds:

* What counts is what the tenant's rows take: pages of the database without the free ones, so that
  deleting rows frees room at once, with no VACUUM. PocketBase is asked for that only where the
  files (data.db and its write-ahead log, which keeps its size long after) exceed the quota.
* Over it, requests that write are answered 507 before they reach PocketBase. Let through are reads,
  DELETE, and what a client needs to sign in and to listen, without which it could free nothing.
* Between two looks more may be written: the bound is on what stays, not on a second's burst.
* A tenant that cannot be asked counts by its files.

Files in S3 have a bound of their own (the file gateway's).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import PBClusterError, StorageFull
from pbcluster.node.lifecycle import State
from pbcluster.node.parts import pause, spawn
from pbcluster.node.tenant import Tenant
from pbcluster.records import TenantQuotas
from pbcluster.web.interfaces import RequestHead
from pbcluster.wire import TenantUsage

log = Logger()

LOOK_INTERVAL_S = 1.0
#: Tenants that are asked for their pages in one look; the others go by their last answer.
MAX_ASKED = 16
#: Larger numbers are no pages of SQLite's.
_MOST_BYTES = 2**53
#: What a full tenant's client may still send: to sign in, to listen, to read protected files.
_NEEDED = re.compile(
    rb"/api/(?:collections/[^/]+/(?:auth-[a-z0-9-]+|request-otp|impersonate/[^/]+)"
    rb"|realtime|files/token)/?"
)


class Storage:
    """See the module.

    :param tenants: of this node. :param database_bytes: tenant id → size of its files.
    :param max_db_bytes: of a tenant whose quotas say 0; 0: no bound.
    :param file_bytes: tenant id → bytes of its files in S3.
    """

    def __init__(
        self,
        tenants: Iterable[Tenant],
        *,
        clock: IReactorTime,
        database_bytes: Callable[[str], int],
        max_db_bytes: int = 0,
        file_bytes: Callable[[str], int] = lambda tenant_id: 0,
    ) -> None:
        self._tenants = tenants
        self._clock = clock
        self._database_bytes = database_bytes
        self._max_db_bytes = max_db_bytes
        self._file_bytes = file_bytes
        #: Tenants over their quota → bytes that count, as of the last look.
        self._full: dict[str, int] = {}
        self._asked_from = 0
        self._asking: set[str] = set()
        self._looking: Deferred[None] | None = None

    @property
    def full_count(self) -> int:
        """Tenants over their quota, as of the last look."""
        return len(self._full)

    def start(self) -> None:
        """Begin to look."""
        self._looking = spawn(self._looks(), "watch over the tenants' databases")

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def quota(self, quotas: TenantQuotas) -> int:
        """What a tenant's database may take, in bytes; 0: there is no bound."""
        return quotas.max_db_bytes or self._max_db_bytes

    def refusal(self, tenant: Tenant, head: RequestHead) -> StorageFull | None:
        """Why a request that writes may not, or None."""
        used = self._full.get(tenant.tenant_id)
        if used is None or head.method == b"DELETE":
            return None
        quota = self.quota(tenant.assignment.quotas)
        if not quota or used <= quota:  # raised since the last look
            return None
        if head.method == b"POST" and _NEEDED.fullmatch(head.target.partition(b"?")[0]):
            return None
        return StorageFull(
            f"the tenant's database has {used} bytes, {quota} are allowed: delete records or "
            "collections (what they took is free at once; VACUUM gives it back to the disk), or "
            "ask the operator for a larger quota",
            used_bytes=used,
            max_bytes=quota,
        )

    def with_sizes(self, usage: Iterable[TenantUsage]) -> tuple[TenantUsage, ...]:
        """The heartbeat's words of tenants, with what they take."""
        return tuple(
            msgspec.structs.replace(
                each,
                db_bytes=self._database_bytes(each.tenant_id),
                file_bytes=self._file_bytes(each.tenant_id),
            )
            for each in usage
        )

    async def _looks(self) -> None:
        while True:
            await pause(self._clock, LOOK_INTERVAL_S)
            try:
                self.look()
            except Exception:  # one tenant's trouble must not end the watch over all others
                log.failure("a look at the tenants' databases failed")

    def look(self) -> None:
        """One look at every tenant that runs. Those that are asked answer later: one that does not
        keeps nobody waiting."""
        large: list[tuple[Tenant, int]] = []
        present = set()
        for tenant in self._tenants:
            present.add(tenant.tenant_id)
            quota = self.quota(tenant.assignment.quotas)
            size = self._database_bytes(tenant.tenant_id) if quota else 0
            if size <= quota:
                self._full.pop(tenant.tenant_id, None)
            elif tenant.state is State.ACTIVE and tenant.tenant_id not in self._asking:
                large.append((tenant, size))
        self._full = {key: used for key, used in self._full.items() if key in present}
        for tenant, size in self._turn(large):
            self._asking.add(tenant.tenant_id)
            spawn(self._ask(tenant, size), f"a look at the database of {tenant.tenant_id}")

    def _turn(self, large: list[tuple[Tenant, int]]) -> list[tuple[Tenant, int]]:
        """Whose turn it is: all get one, however many they are."""
        begin = self._asked_from % len(large) if len(large) > MAX_ASKED else 0
        self._asked_from = begin + MAX_ASKED
        return (large[begin:] + large[:begin])[:MAX_ASKED]

    async def _ask(self, tenant: Tenant, size: int) -> None:
        used: Any = size
        workload = tenant.workload
        try:
            if workload is None:
                return
            used = (await workload.ask("pages", {})).get("usedBytes")
        except PBClusterError as error:
            if tenant.is_leaving():
                return
            log.debug("{tenant}: its pages: {error}", tenant=tenant.tenant_id, error=error)
        finally:
            self._asking.discard(tenant.tenant_id)
        self._judge(tenant, used, size)

    def _judge(self, tenant: Tenant, used: Any, size: int) -> None:
        if not isinstance(used, int) or isinstance(used, bool) or not 0 <= used < _MOST_BYTES:
            used = size
        quota = self.quota(tenant.assignment.quotas)
        if quota and used > quota:
            if tenant.tenant_id not in self._full:
                log.warn(
                    "{tenant}: its database has {used} bytes, {quota} are allowed: no more writes",
                    tenant=tenant.tenant_id,
                    used=used,
                    quota=quota,
                )
            self._full[tenant.tenant_id] = used
        else:
            self._full.pop(tenant.tenant_id, None)
