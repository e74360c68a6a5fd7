"""How much a tenant's files take, and whether more may come. Pure.

What a listing found, plus what came since, minus what was deleted. Uploads under way count from
their first byte. Deleted files still lie in S3 for the point-in-time window: they do not count, but
may take as much again, so that filling and deleting in turns is bounded too.
"""

from __future__ import annotations

from pbcluster.node.files.errors import S3Error


class Usage:
    """The bytes of one tenant.

    :ivar stored: of the objects that it sees. :ivar parts: of multipart uploads under way, by id.
    """

    def __init__(self, stored: int) -> None:
        self.stored = stored
        self.parts: dict[str, int] = {}
        self._coming = 0

    @property
    def total(self) -> int:
        """What counts: stored, being uploaded, in parts."""
        return self.stored + self._coming + sum(self.parts.values())

    def refuses(self, size: int, *, waiting_bytes: int, limit: int) -> bool:
        """Whether ``size`` more bytes are too many.

        :param waiting_bytes: of deleted objects not yet removed. :param limit: 0: none.
        """
        if not limit:
            return False
        total = self.total + size
        return total > limit or total + waiting_bytes > 2 * limit

    def begin(self, size: int) -> None:
        """An upload begins."""
        self._coming += size

    def end(self, size: int, *, stored: bool) -> None:
        """It ended."""
        self._coming -= size
        if stored:
            self.stored += size

    def part_stored(self, upload_id: str, size: int) -> None:
        """A part of an upload is in S3."""
        self.parts[upload_id] = self.parts.get(upload_id, 0) + size

    def upload_over(self, upload_id: str, *, stored: bool) -> None:
        """A multipart upload was completed or aborted."""
        size = self.parts.pop(upload_id, 0)
        if stored:
            self.stored += size

    def removed(self, size: int) -> None:
        """An object was deleted."""
        self.stored = max(0, self.stored - size)


def over_quota(limit: int) -> S3Error:
    """The refusal."""
    return S3Error(507, "QuotaExceeded", f"the tenant's files may take {limit} bytes in all")
