"""One request by which PocketBase is asked to restore a backup, in the hands of ``restoring``.

Only a superuser's request is taken in hand: any other goes to PocketBase, which says why not. The
client is answered with success only once the new database is durable; whatever fails before, it is
told, and the tenant goes on. What a restore does stands in ``restoring``; which request is one, in
``heads``.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from pbcluster.errors import PBClusterError
from pbcluster.node.acks import Level
from pbcluster.node.heads import SeenAnswer, backup_to_restore, marked, see_answer
from pbcluster.node.parts import spawn
from pbcluster.node.restoring import Restore
from pbcluster.node.tenant_request import TenantRequest
from pbcluster.web.interfaces import Attempt, Refuse, ResponseHead


class RestoreRequest(TenantRequest):
    """See the module."""

    _restore: Restore | None = None
    _failed: PBClusterError | None = None

    def forward(self) -> None:
        """See the base class; it is handed over once the tenant is made ready."""
        spawn(self._begin(), f"restore of a backup of {self._tenant.tenant_id}")

    async def _begin(self) -> None:
        token = self._exchange.head.get(b"authorization") or b""
        if not await self._tenant.process.knows(token):
            super().forward()  # PocketBase says why not
            return
        try:
            self._restore = await self._door.restorer.begin(
                self._tenant, backup_to_restore(self._exchange.head) or ""
            )
        except PBClusterError as error:
            self._use.end()
            self._door.refusals.refuse(self._exchange, error)
            return
        self._tenants.uses.opened(self._tenant)
        self._send(False)
        if self._closed and self._restore is not None:  # PocketBase was gone: it was not asked
            await self._restore.abandon()

    def _address(self) -> tuple[str, int] | None:
        return self._restore.upstream if self._restore is not None else super()._address()

    def responded(self, head: ResponseHead) -> ResponseHead | Deferred[ResponseHead]:
        """See the base class; success is told when the new database is durable."""
        restore = self._restore
        if restore is None:
            return super().responded(head)
        self._write_answered()
        seen: SeenAnswer = head.memo or see_answer(head)
        clean = seen.passed
        if not 200 <= head.status < 300:
            return clean  # PocketBase refused: ``forwarded`` lets the tenant go on
        self._restore = None
        # It is no open request any more: the epoch that ends would wait for it.
        self._count_no_more()
        return Deferred.fromCoroutine(self._finish(restore, clean))

    async def _finish(self, restore: Restore, head: ResponseHead) -> ResponseHead:
        try:
            await restore.finish()
        except PBClusterError as error:
            self._failed = error
            raise Refuse(str(error)) from None
        return marked(head, Level.S3)

    def forwarded(self, attempt: Attempt) -> None:
        """See the base class."""
        if self._restore is not None:
            spawn(self._restore.abandon(), f"end of a restore of {self._tenant.tenant_id}")
            self._restore = None
        if self._failed is None:
            super().forwarded(attempt)
        else:
            self._ended()
            self._door.refusals.refuse(self._exchange, self._failed)
