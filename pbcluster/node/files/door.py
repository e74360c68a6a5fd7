"""The file gateway with all its parts, as the node starts, uses and ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import DeferredSemaphore, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from pbcluster.errors import StorageFull
from pbcluster.node.claims import tenant_prefix
from pbcluster.node.files.adoption import adopt
from pbcluster.node.files.bucket import FileBucket
from pbcluster.node.files.collection import Collector
from pbcluster.node.files.errors import S3Error
from pbcluster.node.files.gateway import FileGateway
from pbcluster.node.files.names import TenantNames, check_key
from pbcluster.node.files.signatures import UpstreamSigner
from pbcluster.node.files.tenant_files import FilesOwner, FilesSetting
from pbcluster.node.files.transfers import MAX_PUT_BYTES, Transfers, Upstream
from pbcluster.node.interfaces import FilesAccess
from pbcluster.node.s3 import ObjectStore
from pbcluster.s3_client import S3Address
from pbcluster.web.interfaces import RequestHead
from pbcluster.web.limits import Limits
from pbcluster.web.pool import SecureEndpointMaker, UpstreamPool, tcp_endpoints
from pbcluster.web.server import HTTPServerFactory
from pbcluster.web.streams import listen_alone, streams_of
from pbcluster.web.tls.client import VerifiedEndpoint

LOOPBACK = "127.0.0.1"
#: Requests of all tenants at work at once.
MAX_AT_WORK = 1024
#: A backup shows the database of the moment at which it was begun, and is in S3 at its end.
BACKUP_TAKES_S = 3600.0
#: An idle connection to S3 is closed before S3's own limit.
IDLE_S = 5.0
#: PocketBase's client keeps an idle connection 90 s: it, not we, closes first.
LIMITS = Limits(max_body_bytes=MAX_PUT_BYTES, keep_alive_s=120.0, max_connections=4096)
#: A multipart form is longer than the files in it; what is over by less is for PocketBase to say.
FORM_BYTES = 4096
_FORM = b"multipart/form-data"


@attrs.frozen(kw_only=True)
class FilesConfig:
    """What the node's settings say. :ivar window_s: see ``FilesSetting``."""

    address: S3Address
    tenant_key: str = attrs.field(repr=False)
    window_s: float
    default_max_bytes: int


class Files:
    """``TenantFilesDoor`` on the cluster's S3. :meth:`start` before the first tenant."""

    def __init__(
        self,
        reactor: Any,
        config: FilesConfig,
        objects: ObjectStore,
        *,
        unix_ms: Callable[[], int],
        utc_now: Callable[[], datetime],
        data_of: Callable[[str], Path],
    ) -> None:
        """
        :param reactor: TCP, time and threads. :param objects: the cluster's bucket, for records.
        :param data_of: tenant id → PocketBase's data directory.
        """
        self._reactor = reactor
        self._data_of = data_of
        self._bucket = FileBucket(reactor, config.address)
        setting = self._setting = FilesSetting(
            clock=reactor,
            unix_ms=unix_ms,
            objects=objects,
            bucket=self._bucket,
            window_s=config.window_s,
            default_max_bytes=config.default_max_bytes,
            places=DeferredSemaphore(MAX_AT_WORK),
        )
        self.transfers = Transfers(reactor, _upstream(config.address))
        self.gateway = FileGateway(
            setting=setting,
            transfers=self.transfers,
            tenant_key=config.tenant_key,
            tenant_root=tenant_prefix,
            utc_now=utc_now,
        )
        self.collector = Collector(setting, lambda: self.gateway)
        self._pool = UpstreamPool(
            reactor, tcp_endpoints(reactor), secure=_trusting(reactor), idle_s=IDLE_S
        )
        self._factory = HTTPServerFactory(self.gateway.handle, LIMITS, reactor, pool=self._pool)
        self._listening: IListeningPort | None = None
        self.port = 0

    def start(self) -> None:
        """Listen on a free loopback port, begin to remove what is due.

        :raises CannotListenError: there is no port.
        """
        self._listening = listen_alone(streams_of(self._reactor), LOOPBACK, 0, self._factory)
        self.port = cast(IPv4Address, self._listening.getHost()).port
        self.gateway.endpoint = f"http://{LOOPBACK}:{self.port}"
        self.collector.start()

    async def stop(self) -> None:
        """End everything; after the tenants."""
        self.gateway.close()
        await self.collector.stop()
        if self._listening is not None:
            await maybeDeferred(self._listening.stopListening)
        self._factory.abort_all()
        self._pool.close()
        self._bucket.stop()

    # -- TenantFilesDoor --

    async def open(self, owner: FilesOwner) -> FilesAccess:
        """See ``TenantFilesDoor``."""
        names = TenantNames(tenant_prefix(owner.tenant_id))
        data = self._data_of(owner.tenant_id)
        await adopt(data, names, self._bucket, owner.prove)
        by_bucket = self.gateway.attach(owner)
        settings = {"s3": by_bucket["storage"], "backups": {"s3": by_bucket["backups"]}}
        return FilesAccess(settings, self.port)

    def close(self, owner: FilesOwner) -> None:
        """See ``TenantFilesDoor``."""
        self.gateway.detach(owner)

    async def reinstate(self, tenant_id: str, since_ms: int) -> int:
        """A tenant's database is about to show an earlier time (a restore): the files that were
        deleted since, and are in S3 still, are there again.

        :param since_ms: Unix milliseconds of that time.
        :returns: how many came back. :raises PBClusterError: not all of them are back.
        """
        files = self.gateway.find(tenant_id)
        return await files.reinstate(since_ms) if files is not None else 0

    async def reinstate_for(self, tenant_id: str, backup: str) -> int:
        """See ``TenantFilesDoor``."""
        names = TenantNames(tenant_prefix(tenant_id))
        try:
            found = await self._bucket.head(names.full("backups", check_key(backup)))
        except S3Error:  # no name that a backup can have
            found = None
        begun_s = 0.0 if found is None else found.modified.timestamp() - BACKUP_TAKES_S
        return await self.reinstate(tenant_id, int(begun_s * 1000))

    # -- for the front door and the heartbeat --

    def check_upload(self, tenant_id: str, head: RequestHead) -> None:
        """Look at a request before it is handed to PocketBase.

        :raises StorageFull: its files are known to be over the tenant's quota.
        """
        size = (head.content_length or 0) - FORM_BYTES
        if size <= 0 or not (head.get(b"content-type") or b"").lower().startswith(_FORM):
            return
        if self.gateway.surely_over(tenant_id, size):
            raise StorageFull("the files of this tenant take all that its quota allows")

    def used_bytes(self, tenant_id: str) -> int | None:
        """What a tenant's files take in S3; None: not known now."""
        return self.gateway.used_bytes(tenant_id)

    def figures(self) -> dict[str, float]:
        """For the metrics page."""
        waiting = [each.known_ledger for each in self.gateway]
        return {
            "file_bytes_received": self.transfers.received_bytes,
            "file_bytes_sent": self.transfers.sent_bytes,
            "file_requests_refused": sum(self.gateway.refused.values()),
            "file_deletions_waiting": sum(len(each) for each in waiting if each is not None),
            "files_removed": self.collector.removed,
        }


def _upstream(address: S3Address) -> Upstream:
    parts = urlsplit(address.endpoint)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    signer = UpstreamSigner(
        access_key=address.access_key,
        secret_key=address.secret_key,
        region=address.region,
        base=f"{parts.scheme}://{parts.netloc}",
    )
    return Upstream(
        host=host,
        port=parts.port or (443 if secure else 80),
        identity=host if secure else "",
        bucket=address.bucket,
        signer=signer,
    )


def _trusting(reactor: Any) -> SecureEndpointMaker:
    """TLS to a server that the system's authorities vouch for."""
    failures: Counter[str] = Counter()
    plain = tcp_endpoints(reactor)

    def make(identity: str, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
        stream = plain(host, port, timeout_s)
        creator = optionsForClientTLS(identity)
        return VerifiedEndpoint(reactor, stream, creator, identity, timeout_s, failures)

    return make
