"""How a tenant becomes this node's, with a copy on the disk that may be served.

Drives the machines of ``ownership`` against the real claim store, Litestream and disk. The caller
holds the directory's lock. It starts no process and registers nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import attrs
from twisted.logger import Logger

from pbcluster.errors import ClaimRefused, ProcessFailed, StorageCorrupt, Unavailable
from pbcluster.node import ownership
from pbcluster.node.auxiliary import Auxiliary
from pbcluster.node.interfaces import Owner, Prefixes
from pbcluster.node.parts import NodeParts, both
from pbcluster.wire import Assignment

log = Logger()

#: SQLite's words, in PocketBase's last ones, for a file that is damaged.
_MALFORMED = ("malformed", "file is not a database")


class Replaced(ClaimRefused):
    """Another file took data.db's place since PocketBase started on it."""

    code = "database_replaced"


@attrs.frozen
class Copy:
    """The local copy that is about to be served.

    :ivar how: ``warm``, ``restored``, ``adopted`` or ``empty``.
    :ivar parent: the epoch it was restored from, 0: none, it began empty.
    :ivar ready: READY of our epoch is written already.
    """

    owner: Owner
    how: str
    parent: int
    ready: bool


class Copies:
    """Makes the copy for one assignment. It may be asked again after a failure: a claim that was
    made is found again by its nonce."""

    def __init__(self, parts: NodeParts, incarnation: int, database: Path) -> None:
        self._parts = parts
        self._incarnation = incarnation
        self._database = database
        self._claim: ownership.Claim | None = None
        self._replicated: tuple[int, int] | None = None
        self._restored = False
        self._settled_aside: Path | None = None

    async def resume(self, assignment: Assignment, note: Owner, *, ready_written: bool) -> Copy:
        """Go on with the copy that is there, if it can be trusted; else set it aside.

        :param note: the claim note, of the assignment's epoch.
        :param ready_written: this process knows that READY of the epoch is written.
        :raises ClaimRefused: it may not; a new epoch is needed.
        :raises S3Unavailable: it cannot be told now.
        """
        self._restored = False
        claims, tenant_id = self._parts.claims, assignment.tenant_id
        core = ownership.Resume(note, assignment.epoch)
        step = core.start()
        prefixes: Prefixes | None = None
        if isinstance(step, ownership.ReadPosition):
            position = both(
                claims.read_owner(tenant_id), claims.highest_txid(tenant_id, step.epoch)
            )
            if ready_written:
                seen, remote_txid = await position
            else:
                (seen, remote_txid), prefixes = await both(position, claims.prefixes(tenant_id))
            had_data = ready_written or (prefixes is not None and prefixes.ready > 0)
            local_txid = self._local_txid(tenant_id, had_data=had_data)
            step = core.position_read(seen, remote_txid, local_txid)
        if isinstance(step, ownership.Refused):
            self._refuse(tenant_id, step)
        assert isinstance(step, ownership.Resumed)
        self._parts.proofs.resumed(tenant_id, assignment.epoch, self._parts.boottime())
        ready = assignment.epoch if prefixes is None else prefixes.ready
        written = ready >= assignment.epoch
        return Copy(step.owner, "warm", parent=0 if written else ready, ready=written)

    def _local_txid(self, tenant_id: str, *, had_data: bool) -> int:
        """The local position; below every other if the database is gone that must be there."""
        if had_data and self._parts.directories.database_identity(tenant_id) is None:
            return -1
        return self._parts.replication.local_txid(self._database)

    async def claim(self, assignment: Assignment, go_on: Callable[[], None]) -> ownership.Won:
        """Claim the assignment's epoch.

        :param go_on: called between the steps; raises if the tenant must go.
        :raises ClaimRefused: somebody else has it.
        :raises StorageCorrupt: S3 contradicts the registry.
        :raises Unavailable: it cannot be told now.
        """
        core = self._claim = self._claim or self._new_claim(assignment)
        claims, tenant_id, step = self._parts.claims, assignment.tenant_id, core.start()
        known_at = self._parts.boottime()
        while True:
            go_on()
            match step:
                case ownership.ReadOwner():
                    step = core.owner_read(await claims.read_owner(tenant_id))
                case ownership.WriteOwner(owner, etag):
                    written = await claims.write_owner(tenant_id, owner, etag)
                    step = core.owner_written(written)
                case ownership.ListPrefixes():
                    known_at = self._parts.boottime()
                    step = core.prefixes_listed(await claims.prefixes(tenant_id))
                case ownership.Won():
                    self._parts.proofs.claimed(
                        tenant_id, assignment.epoch, known_at, first=step.first
                    )
                    return step
                case ownership.Refused():
                    self._refuse(tenant_id, step)
                case ownership.Corrupt(why):
                    raise StorageCorrupt(why)
                case ownership.Undecided(why):
                    raise Unavailable(why)

    async def make(self, tenant_id: str, won: ownership.Won, go_on: Callable[[], None]) -> Copy:
        """Set aside what is there and restore, or begin empty.

        :raises StorageCorrupt: the restored copy fails its check. :raises S3Unavailable: else.
        """
        # At the end of an earlier epoch S3 may have been away: while its replica is still fed from
        # this path, nothing else may stand there.
        await self._parts.replication.unregister(self._database)
        go_on()
        settled = self._parts.directories.is_settled(tenant_id)
        aside = self._parts.directories.set_aside(tenant_id)
        if aside is not None and settled:
            self._settled_aside = aside
        elif aside is not None:
            log.info("{tenant}: an older copy was set aside", tenant=tenant_id)
        if isinstance(won.source, ownership.Restore):
            await both(
                self._bring(tenant_id, won.source.epoch),
                Auxiliary(self._parts, tenant_id, self._database).restore(won.source.epoch),
            )
        go_on()
        self._parts.replication.forget(self._database)
        # From here on the copy is worth resuming: it is whole, and of this claim.
        self._parts.directories.write_claim_note(tenant_id, won.owner)
        self._claim, self._restored = None, True
        if self._settled_aside is not None:
            # All of it is in S3, and S3 just proved that it gives it back.
            self._parts.directories.discard_aside(self._settled_aside)
            self._settled_aside = None
        how = "restored" if won.parent else "empty"
        return Copy(won.owner, how, parent=won.parent, ready=False)

    async def _bring(self, tenant_id: str, epoch: int) -> None:
        """data.db of an epoch: a copy that was made for a move, or from S3."""
        if not await self._parts.warm.take(tenant_id, epoch, self._database):
            await self._parts.replication.restore(tenant_id, epoch, self._database)

    def replicating(self, tenant_id: str) -> None:
        """The database that is there now is about to be replicated."""
        self._replicated = self._parts.directories.database_identity(tenant_id)

    def settle(self, tenant_id: str) -> None:
        """Its last sync succeeded and nothing runs on it: note that all of it is in S3, if it still
        is the database that was replicated."""
        if self._parts.directories.database_identity(tenant_id) == self._replicated:
            self._parts.directories.settle(tenant_id)

    def judged(self, assignment: Assignment, error: Exception) -> Exception:
        """What a failed load means. Nothing runs on the copy.

        A database that was replaced before its first sync is set aside: it must not be resumed,
        should this node start again before its new epoch comes. So is one that PocketBase cannot
        read: all that was acknowledged is in S3, unless the tenant is degraded; a new epoch
        restores it.
        """
        if isinstance(error, Replaced):
            self._parts.directories.set_aside(assignment.tenant_id)
            return error
        broken = isinstance(error, ProcessFailed) and any(w in str(error) for w in _MALFORMED)
        if not broken or assignment.degraded or self._restored:
            return error
        self._parts.directories.set_aside(assignment.tenant_id)
        told = f"the copy on this node is damaged and was set aside: {error}"
        return ClaimRefused(told, observed_epoch=assignment.epoch)

    async def adopt(self, tenant_id: str, won: ownership.Won, go_on: Callable[[], None]) -> Copy:
        """Go on with the database that is there, under the new epoch: PocketBase restored it.

        :raises StorageCorrupt: there is none. :raises S3Unavailable: the old replica is still fed.
        """
        await self._parts.replication.unregister(self._database)
        go_on()
        if self._parts.directories.database_identity(tenant_id) is None:
            raise StorageCorrupt("the database that was restored is gone")
        self._parts.replication.forget(self._database)
        Auxiliary(self._parts, tenant_id, self._database).forget()
        self._parts.directories.write_claim_note(tenant_id, won.owner)
        self._claim = None
        return Copy(won.owner, "adopted", parent=won.parent, ready=False)

    def _new_claim(self, assignment: Assignment) -> ownership.Claim:
        wanted = Owner(
            epoch=assignment.epoch,
            node=self._parts.node_id,
            incarnation=self._incarnation,
            nonce=self._parts.new_nonce(),
        )
        return ownership.Claim(
            wanted,
            ever_ready=assignment.ever_ready,
            released_epoch=assignment.released_epoch,
        )

    def _refuse(self, tenant_id: str, step: ownership.Refused) -> NoReturn:
        if step.set_aside:
            self._parts.directories.set_aside(tenant_id)
        raise ClaimRefused(step.why, observed_epoch=step.observed_epoch, deleted=step.deleted)
