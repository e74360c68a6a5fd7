"""What a node clears away: copies over the disk budget, old epochs, what was set aside long ago.

Every half minute one round, each part of it bounded, so that nothing of it is felt:

* copies: ``warm_budget`` decides; each is renamed away under its lock on the reactor, its bytes are
  removed in a thread. A copy that may hold what is not in S3 is never removed; if it is of a tenant
  that another claim has by now, it is set aside.
* epochs: ``old_epochs`` decides for some active tenants a round, after a fresh look at the owner
  object showed our claim; each tenant's turn comes every few hours.

A fault of one part is logged and the round goes on: nothing here is needed to serve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.node.interfaces import OwnerState
from pbcluster.node.lifecycle import State
from pbcluster.node.old_epochs import removable
from pbcluster.node.parts import NodeParts, pause, spawn
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenants import Tenants
from pbcluster.node.warm_budget import plan

ROUND_S = 30.0
#: Copies that one round takes away, and whose owner it asks S3 for.
MAX_REMOVALS = 16
MAX_LOOKS = 4
#: A copy whose owner did not change is looked at again after so long.
LOOK_AGAIN_S = 3600.0
#: A tenant's old epochs are looked for so often.
EPOCHS_AGAIN_S = 6 * 3600.0
#: Tenants of one round whose old epochs are looked for.
MAX_EPOCH_TENANTS = 4
#: Calls of one round that remove objects of old epochs, up to 1000 each.
MAX_EPOCH_CALLS = 20
#: Without a budget of its own: warm copies may take this share of what is free without them.
WARM_SHARE = 0.5
#: … and copies that were set aside this share of what is free.
ASIDE_SHARE = 0.25

log = Logger()


@attrs.frozen(kw_only=True)
class Keeping:
    """Settings.

    :ivar warm_bytes: what copies of stopped tenants may take; 0: a share of the free disk.
    :ivar point_in_time_s: so far back a restore to a moment must be possible.
    """

    warm_bytes: int = 0
    point_in_time_s: float = 86400.0


class Housekeeping:
    """See the module. :ivar warm_bytes: what warm copies took at the last round. :ivar removed:
    copies removed until now. :ivar epochs_removed: likewise epochs."""

    def __init__(
        self,
        parts: NodeParts,
        tenants: Tenants,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        keeping: Keeping,
    ) -> None:
        """
        :param in_thread: runs a blocking call in a thread.
        """
        self.warm_bytes = 0
        self.removed = 0
        self.epochs_removed = 0
        self._parts = parts
        self._tenants = tenants
        self._in_thread = in_thread
        self._keeping = keeping
        self._looked: dict[str, float] = {}
        self._epochs_at: dict[str, float] = {}
        self._ticking: Deferred[None] | None = None
        self._resting = False
        self._stopped = False

    def start(self) -> None:
        """Begin; the first round comes after :data:`ROUND_S`."""
        self._ticking = spawn(self._rounds(), "housekeeping")

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopped = True
        if self._ticking is not None and self._resting:
            self._ticking.cancel()

    def figures(self) -> dict[str, float]:
        """For the metrics page."""
        return {
            "warm_bytes": self.warm_bytes,
            "copies_removed": self.removed,
            "epochs_removed": self.epochs_removed,
        }

    async def _rounds(self) -> None:
        while not self._stopped:
            self._resting = True
            await pause(self._parts.clock, ROUND_S)
            self._resting = False
            await self.round()

    async def round(self) -> None:
        """One round."""
        for part in (self._copies, self._aside, self._old_epochs):
            if self._stopped:
                return
            try:
                await part()
            except PBClusterError as error:
                log.warn("housekeeping: {error}", error=error)
            except Exception:
                log.failure("housekeeping failed")

    # -- copies --

    async def _copies(self) -> None:
        directories = self._parts.directories
        copies = await self._in_thread(directories.copies)
        sizes = {copy.tenant_id: copy.size_bytes for copy in copies}
        free = directories.room_bytes()
        settled = sum(copy.size_bytes for copy in copies if copy.settled_at is not None)
        plan_ = plan(
            copies,
            assigned={each.tenant_id for each in self._tenants},
            in_use=self._tenants.in_use(),
            budget_bytes=self._keeping.warm_bytes or int(WARM_SHARE * (free + settled)),
            now=self._parts.utc_now().timestamp(),
        )
        self.warm_bytes = plan_.warm_bytes
        for tenant_id in plan_.remove[:MAX_REMOVALS]:
            if self._take_away(tenant_id):
                log.info("{t}: its copy of {b} bytes is removed", t=tenant_id, b=sizes[tenant_id])
        for tenant_id in self._due_looks(plan_.look)[:MAX_LOOKS]:
            await self._look(tenant_id)
        await self._in_thread(directories.empty_trash)

    def _take_away(self, tenant_id: str, *, deleted: bool = False) -> bool:
        """Remove a copy, unless somebody began to use it since it was looked at.

        :param deleted: the tenant is: whatever is here of it goes.
        """
        directories = self._parts.directories
        if tenant_id in self._tenants.in_use():
            return False
        if not (deleted or directories.is_settled(tenant_id)):
            return False
        try:
            lock = directories.lock(tenant_id)
            try:
                directories.discard(tenant_id, whole=deleted)
            finally:
                lock.release()
        except PBClusterError as error:  # the others' turn comes all the same
            log.warn("the copy of {t} cannot be removed: {e}", t=tenant_id, e=error)
            return False
        self.removed += 1
        return True

    def _due_looks(self, tenant_ids: tuple[str, ...]) -> list[str]:
        now = self._parts.clock.seconds()
        known = set(tenant_ids)
        self._looked = {key: at for key, at in self._looked.items() if key in known}
        return [
            key for key in tenant_ids if now - self._looked.get(key, -LOOK_AGAIN_S) >= LOOK_AGAIN_S
        ]

    async def _look(self, tenant_id: str) -> None:
        """A copy that is not settled, of a tenant that is not assigned here: whose is it?"""
        self._looked[tenant_id] = self._parts.clock.seconds()
        directories = self._parts.directories
        seen = await self._parts.claims.read_owner(tenant_id)
        if seen is None or tenant_id in self._tenants.in_use() or self._tenants.find(tenant_id):
            return
        if seen.owner.state is OwnerState.DELETED:
            self._take_away(tenant_id, deleted=True)
        elif seen.owner.node != self._parts.node_id or seen.owner.state is OwnerState.ARCHIVED:
            lock = directories.lock(tenant_id)
            try:
                if directories.set_aside(tenant_id) is not None:
                    told = "{t} is {node}'s by now; the copy that was left here was set aside"
                    log.warn(told, t=tenant_id, node=seen.owner.node)
            finally:
                lock.release()

    async def _aside(self) -> None:
        directories = self._parts.directories
        most = int(ASIDE_SHARE * directories.room_bytes())
        pruned = await self._in_thread(lambda: directories.prune_aside(most))
        if pruned:
            log.info("removed {n} old copies that were set aside", n=pruned)

    # -- epochs --

    async def _old_epochs(self) -> None:
        for tenant in self._due_for_epochs()[:MAX_EPOCH_TENANTS]:
            self._epochs_at[tenant.tenant_id] = self._parts.clock.seconds()
            await self._clear_epochs(tenant)

    async def _clear_epochs(self, tenant: Tenant) -> None:
        claims, calls = self._parts.claims, 0
        window_s = self._keeping.point_in_time_s
        seen = await claims.epochs(tenant.tenant_id)
        now = self._parts.utc_now()
        for epoch in removable(seen, own=tenant.epoch, now=now, window_s=window_s):
            done, began = False, calls
            while not done and calls < MAX_EPOCH_CALLS and not self._stopped:
                if not await tenant.prover.owns_now():
                    return
                done = await claims.remove_epoch(tenant.tenant_id, epoch)
                calls += 1
            if done and calls - began > 1:  # some S3s list what is empty for a while
                self.epochs_removed += 1
                log.info("{t}: old epoch {e} left S3", t=tenant.tenant_id, e=epoch)

    def _due_for_epochs(self) -> list[Tenant]:
        """Active tenants whose turn it is, the longest waiting first."""
        active = {each.tenant_id: each for each in self._tenants if each.state is State.ACTIVE}
        self._epochs_at = {key: at for key, at in self._epochs_at.items() if key in active}
        over = self._parts.clock.seconds() - EPOCHS_AGAIN_S
        due = [(self._epochs_at.get(key, over), key) for key in active]
        return [active[key] for at, key in sorted(due) if at <= over]
