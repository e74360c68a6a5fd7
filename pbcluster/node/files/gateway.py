"""The file gateway: the S3 endpoint on loopback that the tenants' PocketBase processes speak to.

A request goes through these gates, in this order:

1. its form and its signature: whose key signed it, else 403;
2. what it asks for (``requests``), else 400, 404, 405 or 501;
3. its tenant's PocketBase runs here, else 503;
4. a place among the requests at work, else 503;
5. a proof of ownership, for reads too, else 503.

Then content is streamed from or to the cluster's S3 (``transfers``), everything else is done by
short calls (``operations``). The tenant sees its own names only. The real keys stay in here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from pbcluster.errors import PBClusterError, S3Unavailable, Unavailable
from pbcluster.node.files import operations
from pbcluster.node.files.errors import S3Error, unavailable
from pbcluster.node.files.names import BUCKETS, TenantNames
from pbcluster.node.files.requests import FileRequest, Operation, understand
from pbcluster.node.files.signatures import REGION, Signed, file_secret, verify
from pbcluster.node.files.tenant_files import FilesOwner, FilesSetting, TenantFiles
from pbcluster.node.files.transfers import Transfers
from pbcluster.node.parts import spawn
from pbcluster.s3_client import S3Refused
from pbcluster.web.interfaces import Exchange

log = Logger()

#: S3's own words that may be passed on: they are about the tenant's request.
_TENANTS_FAULT = frozenset(
    ("NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "NoSuchKey")
)
_STREAMED = frozenset((Operation.GET, Operation.HEAD, Operation.PUT, Operation.PUT_PART))


class FileGateway:
    """See the module; :meth:`handle` is the ``RequestHandler`` of its listener.

    :ivar endpoint: its URL; must be set before the first :meth:`attach`.
    :ivar refused: requests that were refused, by S3's word.
    """

    def __init__(
        self,
        *,
        setting: FilesSetting,
        transfers: Transfers,
        tenant_key: str,
        tenant_root: Callable[[str], str],
        utc_now: Callable[[], datetime],
    ) -> None:
        """
        :param tenant_key: the cluster's secret from which tenants' keys are derived.
        :param tenant_root: tenant id → prefix of everything that is its.
        """
        self.endpoint = ""
        self.refused: dict[str, int] = {}
        self._setting = setting
        self._transfers = transfers
        self._tenant_key = tenant_key
        self._tenant_root = tenant_root
        self._utc_now = utc_now
        self._tenants: dict[str, TenantFiles] = {}
        self._numbers = itertools.count(1)

    # -- for the tenants --

    def attach(self, owner: FilesOwner) -> Mapping[str, Mapping[str, Any]]:
        """Its PocketBase is about to start, under a claim.

        :returns: PocketBase's S3 settings, by bucket.
        """
        before = self._tenants.pop(owner.tenant_id, None)
        if before is not None:
            before.close()
        names = TenantNames(self._tenant_root(owner.tenant_id))
        self._tenants[owner.tenant_id] = TenantFiles(owner, names, self._setting)
        common = {
            "enabled": True,
            "region": REGION,
            "endpoint": self.endpoint,
            "accessKey": owner.tenant_id,
            "secret": file_secret(self._tenant_key, owner.tenant_id),
            "forcePathStyle": True,
        }
        return {bucket: {**common, "bucket": bucket} for bucket in BUCKETS}

    def detach(self, owner: FilesOwner) -> None:
        """Its PocketBase ended."""
        files = self._tenants.get(owner.tenant_id)
        if files is not None and files.owner is owner:
            files.close()
            del self._tenants[owner.tenant_id]

    def close(self) -> None:
        """The node ends."""
        for files in self:
            self.detach(files.owner)

    def __iter__(self) -> Iterator[TenantFiles]:
        return iter(list(self._tenants.values()))

    def find(self, tenant_id: str) -> TenantFiles | None:
        """The files of a tenant whose PocketBase runs here."""
        return self._tenants.get(tenant_id)

    def used_bytes(self, tenant_id: str) -> int | None:
        """What a tenant's files take; None: not known (its PocketBase does not run, or nobody has
        asked for a file yet)."""
        files = self._tenants.get(tenant_id)
        return files.used_bytes if files is not None else None

    def surely_over(self, tenant_id: str, size: int) -> bool:
        """Whether it is known that ``size`` more bytes are over the tenant's quota."""
        files = self._tenants.get(tenant_id)
        return files is not None and files.surely_over(size)

    # -- requests --

    def handle(self, exchange: Exchange) -> None:
        """Take a request."""
        head = exchange.head
        try:
            signed = verify(head, self._secret_of, self._utc_now())
            source = head.get(b"x-amz-copy-source")
            request = understand(head.method, head.target, source)
            files = self._tenants.get(signed.access_key)
            if files is None or files.closed:
                raise unavailable("the tenant does not run on this node now")
        except S3Error as error:
            self.refuse(exchange, error)
            return
        spawn(self._serve(exchange, files, signed, request), "a request for files")

    def _secret_of(self, access_key: str) -> str | None:
        # Only of tenants that run here: nobody else can mean this node.
        if access_key not in self._tenants:
            return None
        return file_secret(self._tenant_key, access_key)

    async def _serve(
        self, exchange: Exchange, files: TenantFiles, signed: Signed, request: FileRequest
    ) -> None:
        try:
            leave = await files.enter()
        except S3Error as error:
            self.refuse(exchange, error)
            return
        try:
            await files.prove()
            if exchange.client_gone:
                return
            if request.operation in _STREAMED:
                await self._transfers.run(exchange, files, request, signed.payload)
            else:
                answer = await operations.carry_out(exchange, files, request, self._setting)
                if answer is not None and not exchange.client_gone:
                    status, body = answer
                    exchange.respond(status, body, content_type=b"application/xml")
        except CancelledError:
            pass  # the client went away while its body was read
        except S3Error as error:
            self.refuse(exchange, error)
        except PBClusterError as error:
            self.refuse(exchange, told(error))
        except Exception:
            log.failure("a request for files failed")
            self.refuse(exchange, S3Error(500, "InternalError", "internal error"))
        finally:
            leave()

    def refuse(self, exchange: Exchange, error: S3Error) -> None:
        """Answer an error."""
        self.refused[error.code] = self.refused.get(error.code, 0) + 1
        if exchange.client_gone:
            return
        body = error.body(f"{next(self._numbers):016x}")
        exchange.respond(error.status, body, content_type=b"application/xml", headers=error.headers)


def told(error: PBClusterError) -> S3Error:
    """What a tenant is told of an error of ours: nothing of keys, addresses or nodes."""
    if isinstance(error, S3Refused) and error.data.get("s3_code") in _TENANTS_FAULT:
        status, code = int(error.data["s3_status"]), str(error.data["s3_code"])
        return S3Error(status, code, "S3 refuses the request")
    if isinstance(error, S3Unavailable):
        log.warn("a request for files: {error}", error=error)
        return unavailable("the file storage does not answer now")
    if isinstance(error, Unavailable):
        return unavailable("this node cannot prove now that it owns the tenant")
    return S3Error(500, "InternalError", "internal error")
