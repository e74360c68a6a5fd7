"""Tenants' directories on a fake disk; two processes never hold the lock of one."""

from __future__ import annotations

from pathlib import Path

from pbcluster.errors import Unavailable
from pbcluster.node.interfaces import Owner
from pbcluster.node.warm_budget import LocalCopy
from pbcluster.testing.node_fakes.disk import FakeDisk


class FakeLock:
    """``DirectoryLock``."""

    def __init__(self, directories: FakeDirectories, tenant_id: str) -> None:
        self._directories = directories
        self._tenant_id = tenant_id

    def release(self) -> None:
        """Give it back; harmless if it was given back already."""
        if self._directories.locks.get(self._tenant_id) is self:
            del self._directories.locks[self._tenant_id]


class FakeDirectories:
    """``TenantDirectories`` on a :class:`FakeDisk`. :ivar locks: who is locked."""

    def __init__(self, disk: FakeDisk, root: Path = Path("/fake")) -> None:
        self.disk = disk
        self.root = root
        self.locks: dict[str, FakeLock] = {}

    def path(self, tenant_id: str) -> Path:
        """See ``TenantDirectories``."""
        return self.root / "tenants" / tenant_id

    def database(self, tenant_id: str) -> Path:
        """Path of the tenant's data.db."""
        return self.path(tenant_id) / "data" / "data.db"

    def lock(self, tenant_id: str) -> FakeLock:
        """See ``TenantDirectories``."""
        if tenant_id in self.locks:
            raise Unavailable(f"the directory of {tenant_id} is locked by another process")
        self.locks[tenant_id] = FakeLock(self, tenant_id)
        return self.locks[tenant_id]

    def claim_note(self, tenant_id: str) -> Owner | None:
        """See ``TenantDirectories``."""
        boot, owner = self.disk.notes.get(tenant_id, (0, None))
        return owner if boot == self.disk.boot else None

    def write_claim_note(self, tenant_id: str, owner: Owner) -> None:
        """See ``TenantDirectories``."""
        self.disk.notes[tenant_id] = (self.disk.boot, owner)

    def set_aside(self, tenant_id: str) -> Path | None:
        """See ``TenantDirectories``."""
        self.disk.notes.pop(tenant_id, None)
        self.disk.metadata.pop(self.database(tenant_id), None)
        found = self.disk.databases.pop(self.database(tenant_id), None)
        self.disk.settled.pop(tenant_id, None)
        if found is None:
            return None
        self.disk.aside.append(found)
        name = f"{tenant_id}-{next(self.disk.aside_numbers)}"
        self.disk.aside_names[name] = found
        return self.root / "aside" / name

    def settle(self, tenant_id: str) -> None:
        """See ``TenantDirectories``."""
        self.disk.settled[tenant_id] = self.disk.now()

    def unsettle(self, tenant_id: str) -> None:
        """See ``TenantDirectories``."""
        self.disk.settled.pop(tenant_id, None)

    def is_settled(self, tenant_id: str) -> bool:
        """See ``TenantDirectories``."""
        return tenant_id in self.disk.settled

    def discard(self, tenant_id: str, *, whole: bool = False) -> None:
        """See ``TenantDirectories``."""
        assert tenant_id in self.locks, "a copy is discarded under its lock only"
        for found in (self.disk.databases, self.disk.metadata):
            found.pop(self.database(tenant_id), None)
        self.disk.notes.pop(tenant_id, None)
        self.disk.settled.pop(tenant_id, None)
        self.disk.discarded.append(tenant_id)

    def discard_aside(self, aside: Path) -> None:
        """See ``TenantDirectories``."""
        tenant_id, _, _ = aside.name.rpartition("-")
        gone = self.disk.aside_names.pop(aside.name)
        self.disk.aside = [each for each in self.disk.aside if each is not gone]
        self.disk.discarded.append(tenant_id)

    def copies(self) -> tuple[LocalCopy, ...]:
        """See ``TenantDirectories``. A row is a byte, and so is an empty database."""
        return tuple(
            LocalCopy(name, 1 + self.database_bytes(name) // 100, self.disk.settled.get(name))
            for name in self.known()
        )

    def empty_trash(self) -> int:
        """See ``TenantDirectories``."""
        return 0

    def prune_aside(self, most_bytes: int | None = None) -> int:
        """See ``TenantDirectories``."""
        return 0

    def room_bytes(self) -> int:
        """See ``TenantDirectories``."""
        return self.disk.room_bytes

    def database_position(self, tenant_id: str) -> bytes | None:
        """See ``TenantDirectories``."""
        found = self.disk.databases.get(self.database(tenant_id))
        return None if found is None else b"%d" % found.txid

    def database_identity(self, tenant_id: str) -> tuple[int, int] | None:
        """See ``TenantDirectories``."""
        found = self.disk.databases.get(self.database(tenant_id))
        return (1, found.inode) if found is not None else None

    def database_bytes(self, tenant_id: str) -> int:
        """See ``TenantDirectories``; 100 bytes a row."""
        found = self.disk.databases.get(self.database(tenant_id))
        return 100 * len(found.rows) if found is not None else 0

    def has_wal(self, tenant_id: str) -> bool:
        """See ``TenantDirectories``: a fake database has none."""
        return False

    def known(self) -> tuple[str, ...]:
        """See ``TenantDirectories``."""
        found = {
            path.parent.parent.name
            for path in self.disk.databases
            if path.parent.parent.parent.name == "tenants"
        }
        return tuple(sorted(found | set(self.disk.notes)))
