"""Tenants that this node must end: archived, deleted, purged (rule 10 of "Ownership").

Orders come in the list of assignments, each under an epoch of its own. An order is carried out in
steps that may be repeated, until it is done and reported, or taken away:

* *archived*: wait until what ran here has stopped, do the last sync that failed then, claim the
  epoch with the terminal state, remove the copy. A copy that may hold what is not in S3 is set
  aside instead.
* *deleted*: the same, but nothing is worth keeping; the owner object stays as a tombstone.
* *purged*: if the tombstone is there, remove everything else of the tenant from S3.

Nothing is served meanwhile, so no proof is needed: the claim alone decides. It decides nothing of
when; the control plane does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from pbcluster.errors import ClaimRefused, PBClusterError, StorageCorrupt, Unavailable
from pbcluster.node import ownership
from pbcluster.node.interfaces import Owner, OwnerState
from pbcluster.node.lifecycle import load_retry_s
from pbcluster.node.parts import NodeParts, both, pause, spawn, tenant_report, tolerate
from pbcluster.wire import Assignment

log = Logger()

#: Ends carried out at once: each is a few requests to S3, a purge thousands.
MAX_ENDS = 4
#: What is left to sync is what S3 did not take before the tenant's stop.
LAST_SYNC_TIMEOUT_S = 120.0


@attrs.define
class _End:
    """One order.

    :ivar over: it was taken away, or the node ends. :ivar rests: it waits for its next try.
    """

    order: Assignment
    nonce: str
    work: Deferred[None] | None = None
    over: bool = False
    rests: bool = False


class Endings:
    """See the module."""

    def __init__(
        self,
        parts: NodeParts,
        incarnation: Callable[[], int],
        stopped: Callable[[str], Deferred[None] | None],
    ) -> None:
        """
        :param incarnation: this node's.
        :param stopped: tenant id → fires when what ran of it here has ended; None: nothing runs.
        """
        self._parts = parts
        self._incarnation = incarnation
        self._stopped = stopped
        self._ends: dict[str, _End] = {}
        self._slots = DeferredSemaphore(MAX_ENDS)

    def __len__(self) -> int:
        return len(self._ends)

    def obey(self, orders: Iterable[Assignment]) -> None:
        """These are all orders there are now."""
        wanted = {(each.tenant_id, each.epoch, each.ending): each for each in orders}
        for tenant_id, end in list(self._ends.items()):
            key = (tenant_id, end.order.epoch, end.order.ending)
            if wanted.pop(key, None) is None:
                self._cancel(self._ends.pop(tenant_id))
        for order in wanted.values():
            end = self._ends[order.tenant_id] = _End(order, self._parts.new_nonce())
            end.work = spawn(self._work(end), f"end of {order.tenant_id}")

    def stop(self) -> None:
        """The node ends; what is not done is ordered again."""
        self.obey(())

    @staticmethod
    def _cancel(end: _End) -> None:
        end.over = True
        if end.work is not None and end.rests:
            end.work.cancel()

    async def _work(self, end: _End) -> None:
        failures = 0
        stopped = self._stopped(end.order.tenant_id)
        if stopped is not None:
            await stopped
        while not end.over:
            try:
                await self._slots.run(lambda: Deferred.fromCoroutine(self._once(end)))
                return
            except ClaimRefused as error:
                self._report(end, "refused", int(error.data["observed_epoch"]), str(error))
                return  # the control plane gives a new epoch
            except PBClusterError as error:
                tenant, ending = end.order.tenant_id, end.order.ending
                log.warn("{t} is not {e} yet: {why}", t=tenant, e=ending, why=error)
                if failures == 0:
                    self._report(end, "failed", detail=str(error))
            if end.over:
                return
            end.rests = True
            await pause(self._parts.clock, load_retry_s(failures))
            end.rests = False
            failures = min(failures + 1, 16)

    async def _once(self, end: _End) -> None:
        """:raises PBClusterError: try again later. :raises ClaimRefused: not under this epoch."""
        if end.order.ending == "purged":
            await self._purge(end)
        else:
            await self._end(end)
        if not end.over:
            log.info("{t} is {e}", t=end.order.tenant_id, e=end.order.ending)
            self._report(end, "ended")

    # -- archive and delete --

    async def _end(self, end: _End) -> None:
        tenant_id, directories = end.order.tenant_id, self._parts.directories
        state = OwnerState(end.order.ending)
        database = directories.path(tenant_id) / "data" / "data.db"
        lock = directories.lock(tenant_id)
        try:
            await self._last_sync(end, database)
            if end.over:
                return
            await self._claim(end, state)
            worth = state is OwnerState.ARCHIVED and not directories.is_settled(tenant_id)
            if worth and directories.set_aside(tenant_id) is not None:
                told = "{t} is archived; a copy that may hold more than S3 was set aside"
                log.warn(told, t=tenant_id)
            directories.discard(tenant_id, whole=state is OwnerState.DELETED)
        finally:
            lock.release()

    async def _last_sync(self, end: _End, database: Path) -> None:
        """Make up for a last sync that failed when the tenant was stopped, if the copy still is
        what S3 is to have. Afterwards it is settled, or it will be set aside.

        A deleted tenant's need not succeed, but nothing may be written any more after its end.

        :raises PBClusterError: it cannot be told now.
        """
        tenant_id, parts = end.order.tenant_id, self._parts
        await tolerate(parts.replication.unregister(database), tenant_id)
        note = parts.directories.claim_note(tenant_id)
        done = note is None or parts.directories.is_settled(tenant_id)
        if end.order.ending == OwnerState.DELETED.value or note is None or done:
            return
        core = ownership.Resume(note, note.epoch)
        core.start()
        position = parts.claims.highest_txid(tenant_id, note.epoch)
        seen, remote_txid = await both(parts.claims.read_owner(tenant_id), position)
        local_txid = parts.replication.local_txid(database)
        verdict = core.position_read(seen, remote_txid, local_txid)
        ready = (await parts.claims.prefixes(tenant_id)).ready
        if end.over or ready != note.epoch or not isinstance(verdict, ownership.Resumed):
            return
        await parts.replication.register(tenant_id, note.epoch, database)
        await parts.replication.sync(database, timeout_s=LAST_SYNC_TIMEOUT_S)
        if await parts.replication.unregister(database):
            parts.directories.settle(tenant_id)

    async def _claim(self, end: _End, state: OwnerState) -> None:
        order, claims = end.order, self._parts.claims
        seen = await claims.read_owner(order.tenant_id)
        if seen is not None and seen.owner.state is OwnerState.DELETED is state:
            return  # the tombstone stands, from an earlier order
        wanted = Owner(
            epoch=order.epoch,
            node=self._parts.node_id,
            incarnation=self._incarnation(),
            nonce=end.nonce,
            state=state,
        )
        core = ownership.Claim(wanted, ever_ready=False)
        step = core.start()
        while True:
            if end.over:
                raise Unavailable("the order was taken away")
            match step:
                case ownership.ReadOwner():
                    step = core.owner_read(await claims.read_owner(order.tenant_id))
                case ownership.WriteOwner(owner, etag):
                    written = await claims.write_owner(order.tenant_id, owner, etag)
                    step = core.owner_written(written)
                case ownership.ListPrefixes():
                    step = core.prefixes_listed(await claims.prefixes(order.tenant_id))
                case ownership.Won():
                    return
                case ownership.Refused():
                    raise ClaimRefused(step.why, observed_epoch=step.observed_epoch)
                case ownership.Corrupt(why):
                    raise StorageCorrupt(why)
                case ownership.Undecided(why):
                    raise Unavailable(why)

    # -- purge --

    async def _purge(self, end: _End) -> None:
        """Bounded steps, each a request or two; whoever goes on after us finds less."""
        tenant_id, claims = end.order.tenant_id, self._parts.claims
        seen = await claims.read_owner(tenant_id)
        if seen is None or seen.owner.state is not OwnerState.DELETED:
            raise StorageCorrupt(
                f"the objects of {tenant_id} are not removed: its owner object in S3 does not say "
                "that it is deleted"
            )
        while not end.over and not await claims.remove_data(tenant_id):
            pass

    def _report(self, end: _End, outcome: str, observed_epoch: int = 0, detail: str = "") -> None:
        if not end.over:
            told = tenant_report(self._parts, end.order, outcome, observed_epoch, detail)
            self._parts.report(told)
