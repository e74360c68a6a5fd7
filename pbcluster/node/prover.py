"""Proofs of one tenant under one assignment: from the lease, or by a look at the owner object.

Rule 5 of "Ownership": a request is handed to PocketBase only under a proof. A look is shared by all
that ask for one meanwhile. What is proven and for how long, is for ``proofs`` to say; whose the
tenant is, for ``ownership``.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pbcluster.errors import OwnershipLost, PBClusterError, Unavailable
from pbcluster.node.durability import Reason
from pbcluster.node.interfaces import Owner, OwnerSeen
from pbcluster.node.ownership import still_ours
from pbcluster.node.parts import NodeParts, pause, spawn
from pbcluster.node.proofs import Held, Proofs, TooEarly

log = Logger(__name__)


class NoProof(Unavailable):
    """It cannot be proven now that this node owns the tenant; nothing was processed."""

    code = "no_proof"


class Prover:
    """See the module.

    :ivar owner: our claim, None before it is won. :ivar fenced: nothing is proven any more.
    """

    def __init__(
        self,
        parts: NodeParts,
        tenant_id: str,
        epoch: int,
        fence: Callable[[str, OwnerSeen | None], None],
    ) -> None:
        """
        :param fence: called when the owner object shows that the tenant is not ours.
        """
        self.owner: Owner | None = None
        self.fenced = False
        self._parts = parts
        # Each request asks these.
        self._proofs: Proofs = parts.proofs
        self._boottime = parts.boottime
        self._tell = parts.observer.proof
        self._tenant_id = tenant_id
        self._epoch = epoch
        self._fence = fence
        self._lookers: list[Deferred[None]] | None = None

    def proven(self) -> bool:
        """Whether a proof is held right now; costs no I/O."""
        verdict = self._proofs.judge(self._tenant_id, self._epoch, self._boottime())
        if self.fenced or not isinstance(verdict, Held):
            return False
        self._tell(verdict.basis)
        return True

    async def prove(self) -> None:
        """Get a proof: wait out a young claim, else read the owner object.

        :raises OwnershipLost: the owner object shows another claim; the tenant was fenced.
        :raises NoProof: it cannot be told now.
        """
        while not self.proven() and not self.fenced:
            now = self._parts.boottime()
            verdict = self._parts.proofs.judge(self._tenant_id, self._epoch, now)
            if isinstance(verdict, TooEarly):
                await pause(self._parts.clock, max(verdict.at - now, 0.001))
                continue
            await self._look()
            break
        if self.fenced:
            raise OwnershipLost("this node does not own the tenant any more")
        if not self.proven():
            self._parts.observer.proof("missing")
            raise NoProof("ownership of this tenant cannot be proven now")

    async def owns_now(self) -> bool:
        """Whether the owner object, read now, shows our claim. :raises S3Unavailable: unknown."""
        seen = await self._parts.claims.read_owner(self._tenant_id)
        return not self.fenced and self.owner is not None and still_ours(self.owner, seen)

    async def _look(self) -> None:
        """Read the owner object; all that ask meanwhile share it. A failure leaves no proof."""
        waiting: Deferred[None] = Deferred()
        if self._lookers is None:
            self._lookers = [waiting]
            spawn(self._look_at_owner(), f"owner look-up of {self._tenant_id}")
        else:
            self._lookers.append(waiting)
        await waiting

    async def _look_at_owner(self) -> None:
        owner, sent = self.owner, self._parts.boottime()
        try:
            seen = await self._parts.claims.read_owner(self._tenant_id)
            if owner is not None and still_ours(owner, seen):
                self._parts.proofs.head_seen(self._tenant_id, self._epoch, sent)
            elif owner is not None and self.owner is owner:
                self._fence(Reason.OWNERSHIP_LOST.value, seen)
        except PBClusterError as error:
            log.warn("{tenant}: no proof: {error}", tenant=self._tenant_id, error=error)
        finally:
            lookers, self._lookers = self._lookers or [], None
            for waiting in lookers:
                waiting.callback(None)
