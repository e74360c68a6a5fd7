"""The replication of one tenant under its claim, and the writes that wait for it.

What holds:

* Nothing is acknowledged before the first sync of the epoch and its READY.
* Only the file that PocketBase was started on is replicated: another one that took its place before
  the first sync is refused (:class:`~pbcluster.node.copies.Replaced`).
* A replication that was begun, well or badly, is ended: Litestream may know of it.

It claims nothing, starts no process, and does not decide when it begins or ends (``tenant`` does).
When a write may be acknowledged is for ``acks`` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from pbcluster.errors import S3Unavailable
from pbcluster.node.acks import Acknowledger, Level, Withheld, cover
from pbcluster.node.auxiliary import Auxiliary
from pbcluster.node.copies import Copies, Copy, Replaced
from pbcluster.node.degrading import Mode
from pbcluster.node.durability import Reason
from pbcluster.node.gathering import Gathering
from pbcluster.node.interfaces import OwnerSeen, Ready
from pbcluster.node.parts import NodeParts, pause, spawn, tolerate
from pbcluster.node.prover import NoProof, Prover
from pbcluster.wire import Assignment

log = Logger()

#: The first sync of an epoch may carry the whole database.
FIRST_SYNC_TIMEOUT_S = 120.0
FIRST_SYNC_RETRY_S = 1.0  # while S3 is away


class TenantReplication:
    """See the module.

    :ivar acks: the writes that wait, from READY to the end of the replication; else None.
    :ivar ready_written: whether this process knows that READY of the epoch is written.
    :ivar ended_whole: whether its last end brought all of it to S3; None: it was not ended here.
    """

    def __init__(
        self,
        parts: NodeParts,
        assignment: Assignment,
        *,
        database: Path,
        copies: Copies,
        prover: Prover,
        go_on: Callable[[], None],
        ended: Callable[[str, OwnerSeen | None], None],
    ) -> None:
        """
        :param database: path of data.db. :param copies: of the same assignment.
        :param go_on: called between the steps; raises if the tenant must go.
        :param ended: called with the reason, and what the owner object showed if it was looked at,
            when nothing can be acknowledged any more.
        """
        self.acks: Acknowledger | None = None
        self._gathering = Gathering()
        self.ready_written = False
        self.ended_whole: bool | None = None
        self._parts = parts
        self._assignment = assignment
        self._tenant_id, self._epoch = assignment.tenant_id, assignment.epoch
        self._database = database
        self._copies = copies
        self._prover = prover
        self._go_on = go_on
        self._ended = ended
        self._auxiliary = Auxiliary(parts, assignment.tenant_id, database)
        self._registered = False
        #: Between its registration and the end of its first sync and READY.
        self._registering = False
        #: The file that PocketBase was started on: no other one is replicated under this claim.
        self._replicated: tuple[int, int] | None = None

    # -- what it is --

    @property
    def file(self) -> tuple[int, int] | None:
        """Device and inode of the database that is replicated; None: none is."""
        return self.acks.file if self.acks is not None else None

    @property
    def waiting_writes(self) -> int:
        """Writes held now."""
        return self.acks.waiting if self.acks is not None else 0

    @property
    def only_here(self) -> bool:
        """Whether acknowledged writes are perhaps on this disk only."""
        return self.acks is not None and self.acks.only_here

    @property
    def degraded(self) -> bool:
        """Whether its writes are not, or were not until now, all acknowledged by S3."""
        return self.acks is not None and self.acks.mode is not Mode.DURABLE

    @property
    def lag_s(self) -> float:
        """For how long acknowledged writes have not all been in S3."""
        return self.acks.lag_s() if self.acks is not None else 0.0

    def assigned(self, assignment: Assignment) -> None:
        """The control plane's list says this now (same epoch)."""
        self._assignment = assignment
        if self.acks is not None:
            self.acks.assigned(assignment)

    def tick(self) -> None:
        """Each second."""
        self._auxiliary.tick()
        if self.acks is not None:
            self.acks.tick()

    # -- what waits for it --

    def write_sent(self) -> int:
        """A write is handed to PocketBase.

        :returns: what :meth:`write_answered` must be told when it is over, however it ends.
        """
        return self._gathering.sent(self._parts.boottime())

    def write_answered(self, ticket: int) -> None:
        """PocketBase answered it, or never will."""
        self._gathering.answered(ticket)

    async def acknowledge(self) -> Level:
        """Wait until a write answered by PocketBase just now may be acknowledged.

        :raises Withheld: it may not.
        """
        return await self._acknowledger().acknowledge()

    def acknowledge_at_once(self) -> Level | None:
        """As :meth:`acknowledge` where nothing has to be waited for; None: perhaps it has to."""
        if self.acks is None or self._prover.fenced:
            return None
        return self.acks.acknowledge_at_once()

    def read_may_pass(self) -> bool:
        """Whether a read, or an event, answered by PocketBase just now may be shown at once."""
        if not self._assignment.durable_reads:
            return True
        return self.acks is not None and not self._prover.fenced and self.acks.read_may_pass()

    async def acknowledge_read(self) -> Level:
        """Wait until what a read has shown lasts. :raises Withheld: it is not known to."""
        return await self._acknowledger().acknowledge_read()

    def _acknowledger(self) -> Acknowledger:
        if self.acks is None or self._prover.fenced:
            raise Withheld(Reason.OWNERSHIP_LOST if self._prover.fenced else Reason.STOPPED)
        return self.acks

    async def covered(self) -> None:
        """What PocketBase committed before this call is in S3, and the tenant was ours after that.

        :raises PBClusterError: it cannot be said.
        """
        owner = self._prover.owner
        if owner is None or not self._registered or self._prover.fenced:
            raise NoProof("the tenant's database is not replicated now")
        await cover(self._parts, self._tenant_id, owner, self._database, self._ended)

    # -- its beginning --

    def process_starts(self) -> None:
        """PocketBase is about to be started on the database that is there now, if one is."""
        if self._replicated is None:
            self._replicated = self._parts.directories.database_identity(self._tenant_id)

    async def begin(self, copy: Copy, runs: Callable[[], bool]) -> bool:
        """Register, sync, READY; waits as long as S3 is away.

        :param runs: whether the PocketBase that was started on the copy still runs.
        :returns: False: it ended meanwhile.
        :raises Replaced: another database stands there.
        :raises PBClusterError: it cannot be replicated.
        """
        while runs():
            try:
                if not self._registered:
                    self._registering = True
                    await self._replicate(copy)
                self._go_on()
                return runs()
            except S3Unavailable as error:
                # The next attempt registers it anew.
                log.warn("{tenant}: first sync: {error}", tenant=self._tenant_id, error=error)
            finally:
                self._registering = False
            await pause(self._parts.clock, FIRST_SYNC_RETRY_S)
            self._go_on()
        return False

    async def begin_again(self) -> None:
        """After :meth:`end_for_restore`, with the same database under the same prefix.

        :raises PBClusterError: it cannot.
        """
        owner = self._prover.owner
        if not self._registered and owner is not None:
            await self._replicate(Copy(owner, "warm", parent=0, ready=True))

    async def _replicate(self, copy: Copy) -> None:
        replication = self._parts.replication
        self._check_not_replaced()
        self._copies.replicating(self._tenant_id)
        await replication.register(self._tenant_id, self._epoch, self._database)
        acks = Acknowledger(
            self._parts,
            assignment=self._assignment,
            owner=copy.owner,
            database=self._database,
            fence=self._ended,
            proven=self._prover.proven,
            gathering=self._gathering,
        )
        txid = await replication.sync(self._database, timeout_s=FIRST_SYNC_TIMEOUT_S)
        self._go_on()
        self._check_not_replaced()
        if not (copy.ready or self.ready_written):
            ready = Ready(parent=copy.parent, txid=txid, at=self._parts.utc_now().isoformat())
            await self._parts.claims.write_ready(self._tenant_id, self._epoch, ready)
        self.acks, self.ready_written, self._registered = acks, True, True
        acks.assigned(self._assignment)
        acks.begin()
        spawn(self._auxiliary.begin(self._epoch), f"auxiliary.db of {self._tenant_id}")

    def _check_not_replaced(self) -> None:
        """A file that took data.db's place since PocketBase started is not what was restored; and a
        sync that succeeded may have been of the former one.

        :raises Replaced: it happened.
        """
        identity = self._parts.directories.database_identity(self._tenant_id)
        if self._replicated is None:
            self._replicated = identity  # an empty start: PocketBase made it
        elif identity != self._replicated:
            told = "the database was replaced before its first sync"
            raise Replaced(told, observed_epoch=self._epoch)

    async def register_again(self) -> None:
        """Litestream was started anew and knows nothing. :raises PBClusterError: it failed."""
        if self._registered or self._registering:
            await self._parts.replication.register(self._tenant_id, self._epoch, self._database)
            await self._auxiliary.begin_again()

    # -- its end --

    def acknowledge_no_more(self, reason: Reason) -> None:
        """What waits is refused for ``reason``, and so is what comes."""
        if self.acks is not None:
            self.acks.stop(reason)

    async def end_for_restore(self) -> None:
        """A last sync of everything, then none; no write may be waiting, and PocketBase runs on.

        :raises PBClusterError: it cannot be said that S3 has everything.
        """
        await self._parts.replication.sync(self._database, timeout_s=FIRST_SYNC_TIMEOUT_S)
        self._registered = False
        self.acknowledge_no_more(Reason.STOPPED)
        await self._parts.replication.unregister(self._database)
        await self._auxiliary.end()

    async def process_ends(self, *, kill: bool) -> None:
        """PocketBase ends now; it may write to auxiliary.db until it has."""
        if not kill:
            await self._auxiliary.wake()

    async def end_auxiliary(self) -> None:
        """PocketBase has ended: end what auxiliary.db has of it first."""
        await self._auxiliary.end()

    async def end(self) -> None:
        """PocketBase has ended: a last sync, then none. What fails is logged; see
        ``ended_whole``."""
        # Also if its first sync failed: it may be registered.
        if self._prover.owner is not None:
            last = self._parts.replication.unregister(self._database)
            synced = await tolerate(last, self._tenant_id)
            never = synced is False and not self._registered
            self.ended_whole = None if never else bool(synced)
            if synced and self._registered and not self._prover.fenced:
                self._copies.settle(self._tenant_id)
        self.acknowledge_no_more(Reason.STOPPED)
        self.acks, self._registered, self._replicated = None, False, None
