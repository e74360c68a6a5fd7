"""Copies on a fake disk that are restored before their tenant comes."""

from __future__ import annotations

from pathlib import Path

from pbcluster.node.warming import WarmFiles
from pbcluster.testing.node_fakes.disk import FakeDisk


class FakeWarmFiles(WarmFiles):
    """``WarmFiles`` on a :class:`FakeDisk`."""

    def __init__(self, disk: FakeDisk) -> None:
        super().__init__(Path("/fake"))
        self.disk = disk

    def size(self, tenant_id: str) -> int:
        """See ``WarmFiles``."""
        found = self.disk.databases.get(self.path(tenant_id))
        return 0 if found is None else 1 + len(found.rows)

    def move(self, tenant_id: str, target: Path) -> None:
        """See ``WarmFiles``."""
        if target in self.disk.databases:
            raise FileExistsError(f"{target} exists: never overwrite a copy")
        self.disk.databases[target] = self.disk.databases.pop(self.path(tenant_id))

    def remove(self, tenant_id: str) -> None:
        """See ``WarmFiles``."""
        self.disk.databases.pop(self.path(tenant_id), None)

    def clear(self) -> None:
        """See ``WarmFiles``."""
        for path in [each for each in self.disk.databases if "warming" in each.parts]:
            del self.disk.databases[path]
