"""The bucket's side of the properties: what every request that S3 carried out means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from pbcluster.node.interfaces import Owner, OwnerState
from pbcluster.testing.node_fakes.database import Database

if TYPE_CHECKING:
    from pbcluster.testing.ownership_sim.process import NodeProcess
    from pbcluster.testing.ownership_sim.world import World

_OWNER = re.compile(r"tenants/([^/]+)/owner\.json")
_PREFIX = re.compile(r"tenants/([^/]+)/litestream/(\d{20})/(READY|data\.db/)")


class Bucket:
    """See the module."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owners: dict[str, Owner] = {}
        #: (tenant, epoch) → the node that claimed it.
        self._claimants: dict[tuple[str, int], str] = {}

    def owner(self, tenant_id: str) -> Owner | None:
        """What the owner object says."""
        return self._owners.get(tenant_id)

    def claimant(self, tenant_id: str) -> tuple[str, int]:
        """Node and epoch of the owner object."""
        owner = self._owners.get(tenant_id)
        return (owner.node, owner.epoch) if owner is not None else ("", 0)

    def stored(self, tenant_id: str) -> list[str]:
        """The rows that the next claimant would restore."""
        prefix = f"tenants/{tenant_id}/litestream/"
        keys = self._world.s3.objects
        ready = [key for key in keys if key.startswith(prefix) and key.endswith("/READY")]
        if not ready:
            return []
        return self._world.s3.rows(tenant_id, int(max(ready)[len(prefix) : len(prefix) + 20]))

    def requested(self, client: str, method: str, key: str) -> None:
        """S3 carried a request out."""
        world = self._world
        if method in {"PUT", "DELETE"}:
            world.trace.add(world.now, client, f"{method} {key}")
        owner = _OWNER.fullmatch(key)
        if owner is not None and method == "PUT":
            self._claimed(owner[1], world.s3.objects[key].body)
        prefix = _PREFIX.match(key)
        if prefix is not None and method == "PUT":
            claimant = self._claimants.get((prefix[1], int(prefix[2])))
            if claimant != client:
                world.broken("one_writer", f"{client} wrote {key}, claimed by {claimant}")

    def _claimed(self, tenant_id: str, body: bytes) -> None:
        world = self._world
        owner = msgspec.json.decode(body, type=Owner)
        before = self._owners.get(tenant_id)
        # Before anything else: from here on nobody adds to what the claimant restores.
        world.journals[tenant_id].claimed(self.stored(tenant_id))
        if before is not None and before.state is OwnerState.DELETED is not owner.state:
            world.broken("tombstone_stands", f"{owner.node} claimed {tenant_id}")
        elif before is not None and owner.epoch <= before.epoch and owner.nonce != before.nonce:
            world.broken("epochs_grow", f"{owner.epoch} after {before.epoch} of {tenant_id}")
        self._owners[tenant_id] = owner
        self._claimants[(tenant_id, owner.epoch)] = owner.node

    def bury(self, tenant_id: str, key: str, body: bytes) -> None:
        """A tombstone is written (by what carries out deletions)."""
        self._world.s3.write(key, body)
        self._owners[tenant_id] = msgspec.json.decode(body, type=Owner)

    def restored(
        self, process: NodeProcess, tenant_id: str, epoch: int, copy: Database, ready: bool
    ) -> None:
        """A node restored a copy. One that was replaced meanwhile may restore what it likes."""
        world = self._world
        if not ready:
            world.broken("ready_restored", f"epoch {epoch} of {tenant_id}")
        owner = self._owners.get(tenant_id)
        if owner is None or owner.nonce not in process.nonces:
            return
        lacking = world.journals[tenant_id].restored_without(copy.rows)
        if lacking:
            world.broken("nothing_lost", f"epoch {epoch} of {tenant_id} lacks {lacking[:3]}")
