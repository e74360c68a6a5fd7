"""The target's part of a migration before the switch: a copy of a tenant that is not ours yet.

    DATA_DIR/warming/<tenant>/data.db   restored and checked

It proves that the tenant can be restored here before anybody is held, and it is used instead of a
restore if nothing was written since. It is never served as it is: only a claim that was won asks
for it (:meth:`Warming.take`), and gets it only if it holds exactly what the replica holds by then.
It goes with its order. What an earlier process left is removed at the start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.node.interfaces import ClaimStore, Replication
from pbcluster.node.parts import spawn
from pbcluster.wire import TenantReport
from pbcluster.wire import Warming as Order

log = Logger()


@attrs.frozen
class _Copy:
    """A copy that is there.

    :ivar epoch: of the replica that it is from. :ivar txid: the last transaction in it.
    """

    order: Order
    epoch: int
    txid: int


class WarmFiles:
    """Where warm copies are on the disk."""

    def __init__(self, data_dir: Path) -> None:
        """
        :param data_dir: the node's; nothing else uses ``warming`` there.
        """
        self._root = data_dir.absolute() / "warming"

    def path(self, tenant_id: str) -> Path:
        """Where a tenant's copy is, or would be."""
        return self._root / tenant_id / "data.db"

    def size(self, tenant_id: str) -> int:
        """Bytes of a copy, 0 if there is none."""
        path = self.path(tenant_id)
        return path.stat().st_size if path.exists() else 0

    def move(self, tenant_id: str, target: Path) -> None:
        """Put a copy to ``target``. :raises OSError: something is there, or it cannot be."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Unlike a rename it never overwrites.
        os.link(self.path(tenant_id), target, follow_symlinks=False)
        self.remove(tenant_id)

    def remove(self, tenant_id: str) -> None:
        """Remove a copy; fine if there is none."""
        shutil.rmtree(self._root / tenant_id, ignore_errors=True)

    def clear(self) -> None:
        """Remove all copies."""
        shutil.rmtree(self._root, ignore_errors=True)


class Warming:
    """``WarmCopies``, made as the obeyed list orders."""

    def __init__(
        self,
        *,
        node_id: str,
        files: WarmFiles,
        claims: ClaimStore,
        replication: Replication,
        report: Callable[[TenantReport], None],
    ) -> None:
        self._node_id = node_id
        self._files = files
        self._claims = claims
        self._replication = replication
        self._report = report
        self._wanted: dict[str, Order] = {}
        self._copies: dict[str, _Copy] = {}
        self._running: set[str] = set()

    def clear(self) -> None:
        """Remove what an earlier process left."""
        self._files.clear()

    def obeyed(self, orders: Iterable[Order], is_ours: Callable[[str], bool]) -> None:
        """A list with these orders, and no others, was obeyed.

        :param is_ours: whether a tenant is assigned to us by now: nothing is begun for it.
        """
        self._wanted = {order.tenant_id: order for order in orders}
        for copy in list(self._copies.values()):
            if self._wanted.get(copy.order.tenant_id) != copy.order:
                self._drop(copy.order.tenant_id)
        for tenant_id, order in self._wanted.items():
            if tenant_id not in self._copies and not is_ours(tenant_id):
                self._begin(order)

    def _begin(self, order: Order) -> None:
        if order.tenant_id not in self._running:
            self._running.add(order.tenant_id)
            spawn(self._warm(order), f"warming of {order.tenant_id}")

    async def _warm(self, order: Order) -> None:
        tenant_id = order.tenant_id
        try:
            copy = await self._restored(order)
        except PBClusterError as error:
            self._running.discard(tenant_id)
            self._tell(order, "warm_failed", detail=error.message)
            return
        except BaseException:
            self._running.discard(tenant_id)
            raise
        self._running.discard(tenant_id)
        now = self._wanted.get(tenant_id)
        self._copies[tenant_id] = copy
        if now == order:
            size = self._files.size(tenant_id)
            self._tell(order, "warmed", size_bytes=size, txid=copy.txid)
            return
        self._drop(tenant_id)
        if now is not None:
            self._begin(now)

    async def _restored(self, order: Order) -> _Copy:
        """:raises PBClusterError: it cannot be restored here."""
        self._files.remove(order.tenant_id)
        epoch = (await self._claims.prefixes(order.tenant_id)).ready
        if not epoch:
            return _Copy(order, 0, 0)
        txid = await self._claims.highest_txid(order.tenant_id, epoch)
        path = self._files.path(order.tenant_id)
        await self._replication.restore(order.tenant_id, epoch, path, txid)
        return _Copy(order, epoch, txid)

    async def take(self, tenant_id: str, epoch: int, target: Path) -> bool:
        """Put the copy to ``target`` if it is all that the epoch's replica holds now.

        Called by the holder of a claim above ``epoch``: nothing can be acknowledged there any more.

        :returns: False: there is none that is; restore.
        """
        copy = self._copies.get(tenant_id)
        if copy is None or copy.epoch != epoch:
            return False
        if await self._claims.highest_txid(tenant_id, epoch) != copy.txid:
            return False
        if self._copies.get(tenant_id) is not copy:
            return False
        try:
            self._files.move(tenant_id, target)
        except OSError as error:
            log.warn("{tenant}: its warm copy is not used: {e}", tenant=tenant_id, e=error)
            return False
        del self._copies[tenant_id]
        return True

    def _drop(self, tenant_id: str) -> None:
        del self._copies[tenant_id]
        self._files.remove(tenant_id)

    def _tell(
        self, order: Order, outcome: str, *, detail: str = "", size_bytes: int = 0, txid: int = 0
    ) -> None:
        self._report(
            TenantReport(
                node_id=self._node_id,
                incarnation=0,
                tenant_id=order.tenant_id,
                epoch=order.epoch,
                outcome=outcome,
                detail=detail,
                txid=txid,
                migration_id=order.migration_id,
                size_bytes=size_bytes,
            )
        )
