"""Gates of the front door that need nothing but the request's head and the tenant. No waiting.

* What is the platform's own in a tenant's PocketBase (``platform_door``) is there for no client.
* A tenant that stores more than it may writes no more (``storage``), and uploads no more
  (``files``).
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.errors import NotFound, PBClusterError, StorageFull
from pbcluster.node.heads import is_platforms
from pbcluster.node.storage import Storage
from pbcluster.node.tenant import Tenant
from pbcluster.web.interfaces import RequestHead


class Gates:
    """Says why a request may not go on; ``front`` answers with it."""

    def __init__(
        self,
        storage: Storage | None = None,
        limited: Callable[[str], None] = lambda reason: None,
        *,
        check_upload: Callable[[str, RequestHead], None] | None = None,
    ) -> None:
        """
        :param storage: None: a tenant may store as much as it likes.
        :param limited: counts requests refused because of a tenant's limit, by reason.
        :param check_upload: raises ``StorageFull`` if a request brings more files than its tenant
            may have; None: files are on the disk.
        """
        self._storage = storage
        self._limited = limited
        self._check_upload = check_upload

    def refusal(
        self, tenant: Tenant | None, head: RequestHead, write: bool
    ) -> PBClusterError | None:
        """The error for the client, None: these gates are open.

        :param tenant: None: it is not assigned to this node.
        """
        if is_platforms(head.target):
            return NotFound("The requested resource wasn't found.")
        if not write or tenant is None:
            return None
        full = self._full(tenant, head)
        if full is not None:
            self._limited("storage")
        return full

    def _full(self, tenant: Tenant, head: RequestHead) -> StorageFull | None:
        if self._check_upload is not None and head.has_body():
            try:
                self._check_upload(tenant.tenant_id, head)
            except StorageFull as error:
                return error
        return self._storage.refusal(tenant, head) if self._storage is not None else None
