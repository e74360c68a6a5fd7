"""Holds the writes of one tenant until they may be acknowledged: the shell of ``durability``.

It carries out the effects of the core: a sync through Litestream, a look at the owner, the release
or refusal of held responses. What the core calls a fence is handed to the tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pbcluster.errors import Unavailable
from pbcluster.node import durability
from pbcluster.node.durability import GroupCommit, Reason
from pbcluster.node.interfaces import Owner, OwnerSeen
from pbcluster.node.ownership import still_ours
from pbcluster.node.parts import NodeParts, spawn
from pbcluster.records import Durability

log = Logger()

#: A sync that has not answered by then counts as failed: writes wait no longer while S3 is away.
SYNC_TIMEOUT_S = 5.0


class Withheld(Unavailable):
    """The write was carried out here but may not be acknowledged: whether it lasts is unknown.

    Its text goes to the tenant's clients: it names no path and no address of ours.
    """

    code = "not_durable"

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"the write could not be made durable: {reason.value} {detail}".strip())
        self.reason = reason


class Acknowledger:
    """The held writes of one tenant that serves under one claim."""

    def __init__(
        self,
        parts: NodeParts,
        *,
        tenant_id: str,
        owner: Owner,
        database: Path,
        durability: Durability,
        fence: Callable[[str, OwnerSeen | None], None],
    ) -> None:
        """
        :param database: the file that is replicated; it exists.
        :param fence: called with a reason, and what the owner object showed if it was looked at,
            when everything of the tenant must be stopped at once.
        """
        self._parts = parts
        self._tenant_id = tenant_id
        self._owner = owner
        self._database = database
        self._fence = fence
        self._held: dict[int, Deferred[None]] = {}
        self._tickets = 0
        self._seen: OwnerSeen | None = None
        self._core = GroupCommit(durability, self._identity() or (0, 0))

    @property
    def waiting(self) -> int:
        """Writes held now."""
        return len(self._held)

    async def acknowledge(self) -> None:
        """Wait until a write whose response arrived just now may be acknowledged.

        :raises Withheld: it may not.
        """
        self._tickets += 1
        ticket, began = self._tickets, self._parts.boottime()
        held: Deferred[None] = Deferred()
        self._held[ticket] = held
        self._run(self._core.responded(ticket, began))
        try:
            await held
        except Withheld as error:
            self._parts.observer.withheld(error.reason.value)
            raise
        self._parts.observer.acknowledged(self._parts.boottime() - began)

    def tick(self) -> None:
        """Each second: the background sync of an ``async`` tenant."""
        self._run(self._core.tick(self._parts.boottime()))

    def stop(self, reason: Reason) -> None:
        """Acknowledge nothing any more."""
        self._run(self._core.stop(reason))

    def _run(self, effects: durability.Effects) -> None:
        for effect in effects:
            match effect:
                case durability.BeginSync(round):
                    spawn(self._sync(round), f"sync of {self._tenant_id}")
                case durability.CheckOwner(round):
                    spawn(self._check(round), f"owner check of {self._tenant_id}")
                case durability.Release(tickets):
                    for ticket in tickets:
                        self._held.pop(ticket).callback(None)
                case durability.Withhold(tickets, reason, detail):
                    for ticket in tickets:
                        self._held.pop(ticket).errback(Withheld(reason, detail))
                case durability.Fence(reason):
                    self._fence(reason.value, self._seen)

    async def _sync(self, round: int) -> None:
        began = self._parts.boottime()
        try:
            await self._parts.replication.sync(self._database, timeout_s=SYNC_TIMEOUT_S)
        except Exception as error:  # even a bug there must not hold writes for ever
            log.warn("{tenant}: sync failed: {error}", tenant=self._tenant_id, error=error)
            failed_at, why = self._parts.boottime(), type(error).__name__
            self._run(self._core.sync_failed(round, failed_at, why, self._identity()))
            return
        now = self._parts.boottime()
        self._parts.observer.synced(now - began)
        self._run(self._core.sync_succeeded(round, now, self._identity()))

    def _identity(self) -> tuple[int, int] | None:
        return self._parts.directories.database_identity(self._tenant_id)

    async def _check(self, round: int) -> None:
        sent = self._parts.boottime()
        try:
            seen = await self._parts.claims.read_owner(self._tenant_id)
        except Exception as error:  # as above
            log.warn("{tenant}: owner unknown: {error}", tenant=self._tenant_id, error=error)
            why = type(error).__name__
            self._run(self._core.owner_unknown(round, self._parts.boottime(), why))
            return
        ours = still_ours(self._owner, seen)
        if ours:
            self._parts.proofs.head_seen(self._tenant_id, self._owner.epoch, sent)
        else:
            self._seen = seen
        self._run(self._core.owner_checked(round, self._parts.boottime(), ours=ours))


async def cover(
    parts: NodeParts,
    tenant_id: str,
    owner: Owner,
    database: Path,
    fence: Callable[[str, OwnerSeen | None], None],
) -> None:
    """Return when everything committed before this call is in S3 under ``owner``'s claim.

    :param fence: as for :class:`Acknowledger`.
    :raises PBClusterError: it cannot be said that it is.
    """
    before = parts.directories.database_identity(tenant_id)
    await parts.replication.sync(database, timeout_s=SYNC_TIMEOUT_S)
    if before is None or parts.directories.database_identity(tenant_id) != before:
        raise Withheld(Reason.DATABASE_REPLACED)
    seen = await parts.claims.read_owner(tenant_id)
    if not still_ours(owner, seen):
        fence(Reason.OWNERSHIP_LOST.value, seen)
        raise Withheld(Reason.OWNERSHIP_LOST)
