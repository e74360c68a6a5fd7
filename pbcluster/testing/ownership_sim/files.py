"""A model of the file gateway's rule: PocketBase's delete is recorded, and carried out only after a
sync that began later, a look at the owner after it, and the point-in-time window."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from pbcluster.errors import S3Unavailable
from pbcluster.node.claims import tenant_prefix
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.testing.ownership_sim.process import NodeProcess

#: Point-in-time window of this world; the real one is days.
WINDOW_S = 2.0
PREFIX = "file "


def file_key(tenant_id: str, row: str) -> str:
    """Where the file of a row lies in S3."""
    return f"{tenant_prefix(tenant_id)}storage/{row.removeprefix(PREFIX)}"


class Files:
    """The files that rows name."""

    def __init__(self, s3: FakeS3) -> None:
        self._s3 = s3
        self._numbers = itertools.count(1)

    async def upload(self, process: NodeProcess, tenant_id: str) -> str | None:
        """As PocketBase does: the file first. :returns: the row to write, None: it failed."""
        row = f"{PREFIX}{next(self._numbers)}"
        try:
            await process.client.put(file_key(tenant_id, row), b"file")
        except S3Unavailable:
            return None
        return row

    @staticmethod
    def is_due(covered: bool, waited_s: float) -> bool:
        """Whether a recorded delete may be carried out.

        :param covered: a sync that began after it succeeded, and the owner was looked at since.
        """
        return covered and waited_s >= WINDOW_S

    async def carry_out(self, process: NodeProcess, tenant_id: str, row: str) -> None:
        """Delete the file."""
        try:
            await process.client.delete(file_key(tenant_id, row))
        except S3Unavailable:
            return  # it stays as garbage

    def gone(self, tenant_id: str, rows: Iterable[str]) -> list[str]:
        """Rows among ``rows`` whose file is not in S3."""
        named = (row for row in rows if row.startswith(PREFIX))
        return [row for row in named if file_key(tenant_id, row) not in self._s3.objects]
