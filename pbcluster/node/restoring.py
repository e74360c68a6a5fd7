"""PocketBase's own backup restore, made safe (rule 9 of "Ownership").

PocketBase puts the backup's database in the place of the one that is replicated, then executes
itself anew. Under a running replication this wipes acknowledged rows and ends every later sync, so
the node takes the request into its own hands:

1. other requests of the tenant wait, those under way end, everything goes to S3, and the
   replication ends: S3 has exactly what was acknowledged, and nothing can be added to it;
2. PocketBase restores; it is done when data.db is another file and the listener another socket;
3. the control plane gives the tenant a new epoch on this node, under which the new database is
   *adopted*: uploaded whole, marked READY, served, and only then is the client answered.

Whatever fails before PocketBase replaced the file ends with an error, and the tenant goes on as if
nothing had been asked. Whatever fails after it gives the epoch up: the next one is restored from
S3, which has what was there before. A hook's ``$app.restoreBackup`` is not announced: it is found
by the file that changed (:meth:`Restorer.found_replaced`) and adopted in the same way, unless
PocketBase does not execute itself anew; then the file was put there by somebody else, and the
tenant goes back to what S3 has.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from pbcluster.errors import PBClusterError, Unavailable
from pbcluster.node.durability import Reason
from pbcluster.node.lifecycle import State
from pbcluster.node.parts import NodeParts, pause, spawn
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenants import Tenants
from pbcluster.wire import TenantReport

log = Logger()

#: Requests under way may finish within this time; else the restore is refused.
DRAIN_S = 5.0
#: PocketBase unpacks the backup, moves the files and starts anew.
REPLACE_S = 120.0
#: A database that changed without a request: PocketBase executes itself anew right after.
HOOK_REPLACE_S = 3.0
#: A new epoch, the upload of the whole database, READY.
ADOPT_S = 180.0
POLL_S = 0.05


class NotRestored(Unavailable):
    """The backup was not restored; the tenant serves what it had."""

    code = "not_restored"


class Restorer:
    """The restores of a node's tenants."""

    def __init__(self, parts: NodeParts, tenants: Tenants) -> None:
        self._parts = parts
        self._tenants = tenants
        self._busy: set[str] = set()
        tenants.when_replaced(self.found_replaced)

    # -- a restore that was asked for --

    async def begin(self, tenant: Tenant, backup: str = "") -> Restore:
        """Everything before PocketBase is asked.

        :param backup: its name; empty: unknown.
        :returns: the restore; call :meth:`Restore.finish` or :meth:`Restore.abandon`.
        :raises NotRestored: not now; nothing was changed.
        """
        if tenant.tenant_id in self._busy:
            raise NotRestored("a backup of this tenant is being restored already")
        if tenant.replication.degraded:
            raise NotRestored("S3 is away, or has not everything yet: restore when it is back")
        self._busy.add(tenant.tenant_id)
        process = tenant.process.generation()
        restore = Restore(self._parts, self._tenants, tenant, process, self._busy.discard)
        try:
            await restore.prepare(backup)
        except BaseException as error:
            await restore.abandon()
            if isinstance(error, PBClusterError) and not isinstance(error, NotRestored):
                raise NotRestored(f"the tenant could not be made ready: {error.code}") from None
            raise
        return restore

    # -- one that was not --

    def found_replaced(self, tenant: Tenant) -> None:
        """Another file stands in the place of the tenant's database."""
        if tenant.tenant_id not in self._busy and not tenant.is_leaving():
            self._busy.add(tenant.tenant_id)
            spawn(self._adopt_found(tenant), f"adoption of {tenant.tenant_id}")

    async def _adopt_found(self, tenant: Tenant) -> None:
        log.warn("{tenant}: its database was replaced", tenant=tenant.tenant_id)
        # It may have executed itself anew already.
        process = tenant.process.started_generation
        restore = Restore(self._parts, self._tenants, tenant, process, self._busy.discard)
        tenant.hold()
        try:
            if self._parts.files is not None:
                await self._parts.files.reinstate_for(tenant.tenant_id, "")
            await restore.finish(HOOK_REPLACE_S)
        except PBClusterError as error:
            log.error("{tenant}: {error}", tenant=tenant.tenant_id, error=error)


class Restore:
    """One restore, from the moment its tenant is held."""

    def __init__(
        self,
        parts: NodeParts,
        tenants: Tenants,
        tenant: Tenant,
        process: str,
        ended: Callable[[str], None],
    ) -> None:
        """
        :param process: generation of its PocketBase before the restore.
        :param ended: called with the tenant's id at the end.
        """
        self._parts = parts
        self._tenants = tenants
        self._tenant = tenant
        self._ended = ended
        self._process = process
        self._file = tenant.replication.file

    @property
    def upstream(self) -> tuple[str, int] | None:
        """Where its PocketBase listens."""
        return self._tenant.process.address()

    async def prepare(self, backup: str = "") -> None:
        """Hold the others, let what is under way end, bring everything to S3, end the replication.

        :param backup: its name: rows that come back find their files, deleted since or not.
        :raises PBClusterError: it cannot be done now.
        """
        tenant, open_requests = self._tenant, self._tenants.cache.open_requests
        tenant.hold()
        until = self._parts.clock.seconds() + DRAIN_S
        while open_requests(tenant.tenant_id) or tenant.replication.waiting_writes:
            if self._parts.clock.seconds() >= until:
                raise NotRestored(
                    "requests of this tenant are still under way; ask again when they have ended"
                )
            await pause(self._parts.clock, POLL_S)
        if self._parts.files is not None:
            await self._parts.files.reinstate_for(tenant.tenant_id, backup)
        await tenant.replication.end_for_restore()

    async def abandon(self) -> None:
        """PocketBase did not replace the database: go on with it."""
        self._ended(self._tenant.tenant_id)
        tenant = self._tenant
        if self._is_replaced():
            tenant.fence(Reason.DATABASE_REPLACED.value, None)
            return
        try:
            if not tenant.is_leaving():
                await tenant.replication.begin_again()
        except PBClusterError as error:
            log.error("{tenant}: {error}", tenant=tenant.tenant_id, error=error)
            tenant.fence("its replication could not go on", None)
        tenant.let_go()

    def _is_replaced(self) -> bool:
        identity = self._parts.directories.database_identity(self._tenant.tenant_id)
        return identity != self._file

    async def finish(self, within_s: float = REPLACE_S) -> None:
        """PocketBase said that it restores: wait for it, then make the new database durable.

        :raises NotRestored: it came to nothing; says what is served now.
        """
        tenant = self._tenant
        try:
            await self._await_replacement(within_s)
            await self._adopted()
        except PBClusterError as error:
            replaced = self._is_replaced()
            now = self._tenants.find(tenant.tenant_id)
            if now is not None and now is not tenant and now.adopts:
                now.fence("its restored backup could not be made durable", None)
            self._tenants.adopt(tenant.tenant_id, None)
            if not replaced and not tenant.is_leaving():
                await self.abandon()
            elif self._tenants.find(tenant.tenant_id) is tenant:
                tenant.fence(Reason.DATABASE_REPLACED.value, None)
            raise NotRestored(
                f"the backup was not restored ({error}); what was there before is served"
            ) from None
        finally:
            self._ended(tenant.tenant_id)

    async def _await_replacement(self, within_s: float) -> None:
        tenant = self._tenant
        until = self._parts.clock.seconds() + within_s
        while self._parts.clock.seconds() < until:
            if tenant.is_leaving() or tenant.process.address() is None:
                raise NotRestored("PocketBase ended")
            anew = tenant.process.generation() not in ("", self._process)
            if anew and self._is_replaced() and await tenant.process.answers():
                return
            await pause(self._parts.clock, POLL_S)
        raise NotRestored(f"PocketBase did not start anew within {within_s:g} s")

    async def _adopted(self) -> None:
        """A new epoch, and the database under it."""
        old = self._tenant
        self._tenants.adopt(old.tenant_id, old.epoch)
        self._parts.report(
            TenantReport(
                node_id=self._parts.node_id,
                incarnation=0,
                tenant_id=old.tenant_id,
                epoch=old.epoch,
                outcome="restored",
            )
        )
        until = self._parts.clock.seconds() + ADOPT_S
        while self._parts.clock.seconds() < until:
            now = self._tenants.find(old.tenant_id)
            if now is None:
                raise NotRestored("the tenant is not this node's any more")
            if now.epoch > old.epoch and now.state is State.ACTIVE:
                if not now.adopts:
                    raise NotRestored("another epoch came in between")
                return
            if now.epoch > old.epoch and (now.state is State.FAILED or now.refused_by):
                raise NotRestored(now.life.cause)
            if now.epoch > old.epoch:
                self._tenants.want(now)
            await pause(self._parts.clock, POLL_S)
        raise NotRestored(f"it was not in S3 within {ADOPT_S:g} s")
