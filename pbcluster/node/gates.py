"""Gates of the front door that need nothing but the request's head and the tenant. No waiting.

* What is the platform's own in a tenant's PocketBase (``platform_door``) is there for no client.
* A tenant that stores more than it may writes no more (``storage``).
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.errors import NotFound, PBClusterError
from pbcluster.node.platform_door import is_platforms
from pbcluster.node.storage import Storage
from pbcluster.node.tenant import Tenant
from pbcluster.web.interfaces import RequestHead


class Gates:
    """Says why a request may not go on; ``front`` answers with it."""

    def __init__(
        self,
        storage: Storage | None = None,
        limited: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """
        :param storage: None: a tenant may store as much as it likes.
        :param limited: counts requests refused because of a tenant's limit, by reason.
        """
        self._storage = storage
        self._limited = limited

    def refusal(
        self, tenant: Tenant | None, head: RequestHead, *, write: bool
    ) -> PBClusterError | None:
        """The error for the client, None: these gates are open.

        :param tenant: None: it is not assigned to this node.
        """
        if is_platforms(head.target):
            return NotFound("The requested resource wasn't found.")
        if not write or tenant is None or self._storage is None:
            return None
        full = self._storage.refusal(tenant, head)
        if full is not None:
            self._limited("storage")
        return full
