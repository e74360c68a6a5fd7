"""Content on its way between a tenant's PocketBase and the cluster's S3, streamed both ways.

Each is one forward of the shared HTTP core, signed with the real keys: nothing is held but what
fits between two sockets, and either side's slowness or end is the other's. Of S3's answer only the
fields that say something of the object are passed on; of its errors only what they mean. An upload
is answered after deletions of its name are cancelled, and is cut off when ownership is lost.
"""

from __future__ import annotations

from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pbcluster.errors import OwnershipLost, PBClusterError
from pbcluster.node.files.errors import S3Error, no_such_key, unavailable
from pbcluster.node.files.names import upstream_path
from pbcluster.node.files.quota import Usage
from pbcluster.node.files.requests import UPLOADS, FileRequest, Operation
from pbcluster.node.files.signatures import UpstreamSigner
from pbcluster.node.files.tenant_files import TenantFiles
from pbcluster.node.parts import spawn
from pbcluster.web.interfaces import (
    Attempt,
    Exchange,
    Forward,
    Headers,
    Outcome,
    Refuse,
    RequestHead,
    ResponseHead,
)

log = Logger()

CONNECT_TIMEOUT_S = 2.0
#: S3 may think so long before it begins to answer, and be silent so long inside an answer.
FIRST_BYTE_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 60.0
#: An upload under way is looked at so often: whether the tenant is still ours.
WATCH_S = 1.0
#: S3's own limit for one request.
MAX_PUT_BYTES = 5 * 1024**3

_META = b"x-amz-meta-"
_ASKED = frozenset(
    (b"range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)
_STORED = frozenset(
    (
        b"content-type",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-md5",
        b"cache-control",
        b"expires",
        b"if-match",
        b"if-none-match",
    )
)
_ANSWERED = frozenset(
    (
        b"content-type",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-range",
        b"accept-ranges",
        b"cache-control",
        b"expires",
        b"etag",
        b"last-modified",
    )
)
_REFUSALS = {
    404: ("NoSuchKey", "the object does not exist"),
    412: ("PreconditionFailed", "the object is not what the condition says"),
    416: ("InvalidRange", "the object has no such range"),
}


@attrs.frozen(kw_only=True)
class Upstream:
    """Where the cluster's S3 is. :ivar identity: the name it must prove by TLS, or empty."""

    host: str
    port: int
    identity: str
    bucket: str
    signer: UpstreamSigner


class Transfers:
    """See the module.

    :ivar received_bytes: and ``sent_bytes``: of content, from and to tenants, since the start.
    """

    def __init__(self, clock: IReactorTime, upstream: Upstream) -> None:
        self.received_bytes = 0
        self.sent_bytes = 0
        self._clock = clock
        self._upstream = upstream

    async def run(
        self, exchange: Exchange, files: TenantFiles, request: FileRequest, payload: str
    ) -> None:
        """Move the content, under a proof that is held; returns when the exchange is over.

        :param payload: how the tenant named its body, see ``Signed``.
        :raises S3Error, PBClusterError: nothing was answered; say so to the tenant.
        """
        if request.operation in UPLOADS:
            await self._upload(exchange, files, request, payload)
            return
        ledger = await files.ledger()
        if ledger.hidden(f"{request.bucket}/{request.key}"):
            raise no_such_key()
        fields = _chosen(exchange.head.headers, _ASKED)
        attempt = await self._forward(exchange, files, request, fields, "UNSIGNED-PAYLOAD", None)
        self.sent_bytes += attempt.response_bytes

    async def _upload(
        self, exchange: Exchange, files: TenantFiles, request: FileRequest, payload: str
    ) -> None:
        head = exchange.head
        size = _length(head)
        whole = request.operation is Operation.PUT
        key = f"{request.bucket}/{request.key}"
        usage = await files.usage_for(size)
        if whole:
            await files.begin_write(key)
        upload = _Upload(files, request, usage, size)
        usage.begin(size)
        watch = _Watch(self._clock, exchange, files)
        try:
            await files.prove()
            fields = _chosen(head.headers, _STORED if whole else frozenset((b"content-md5",)))
            watch.start()
            attempt = await self._forward(exchange, files, request, fields, payload, upload)
            self.received_bytes += attempt.request_bytes
        finally:
            watch.stop()
            upload.end()
            if whole:
                files.end_write(key)

    async def _forward(
        self,
        exchange: Exchange,
        files: TenantFiles,
        request: FileRequest,
        fields: dict[str, str],
        payload: str,
        upload: _Upload | None,
    ) -> Attempt:
        upstream, method = self._upstream, exchange.head.method
        path = upstream_path(upstream.bucket, files.names.full(request.bucket, request.key))
        if request.operation is Operation.PUT_PART:
            path += "?" + urlencode({"partNumber": request.part, "uploadId": request.upload_id})
        answered = _Answer(upload)
        plan = Forward(
            upstream.host,
            upstream.port,
            method,
            path.encode("ascii"),
            headers=upstream.signer.headers(method.decode(), path, fields, payload),
            connect_timeout_s=CONNECT_TIMEOUT_S,
            first_byte_timeout_s=FIRST_BYTE_TIMEOUT_S,
            idle_timeout_s=IDLE_TIMEOUT_S,
            on_response=answered.received,
            identity=upstream.identity,
        )
        over: Deferred[Attempt] = Deferred()
        exchange.forward(plan, over.callback)
        attempt = await over
        if attempt.outcome in (Outcome.COMPLETED, Outcome.CLIENT_GONE, Outcome.BROKEN):
            return attempt
        if attempt.outcome is Outcome.REFUSED and answered.error is not None:
            raise answered.error
        log.warn(
            "S3 did not answer {method}: {outcome}: {error}",
            method=method.decode(),
            outcome=attempt.outcome.value,
            error=attempt.error,
        )
        raise unavailable("the file storage does not answer now")


def _length(head: RequestHead) -> int:
    if head.chunked or head.content_length is None:
        raise S3Error(411, "MissingContentLength", "an upload needs a Content-Length")
    if head.content_length > MAX_PUT_BYTES:
        raise S3Error(400, "EntityTooLarge", f"one request takes at most {MAX_PUT_BYTES} bytes")
    return head.content_length


def _chosen(headers: Headers, names: frozenset[bytes]) -> dict[str, str]:
    """The fields that are passed on, and those of the object's metadata with the stored ones."""
    with_meta = b"content-type" in names
    return {
        name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
        for name, value in headers
        if name.lower() in names or (with_meta and name.lower().startswith(_META))
    }


class _Upload:
    """What an upload counts for, and what is done when it is stored."""

    def __init__(self, files: TenantFiles, request: FileRequest, usage: Usage, size: int) -> None:
        self._files = files
        self._request = request
        self._usage = usage
        self._size = size
        self._stored = False

    async def stored(self) -> None:
        """It is in S3; the answer waits for this. :raises PBClusterError: it must not be given."""
        request = self._request
        if request.operation is Operation.PUT_PART:
            self._usage.part_stored(request.upload_id, self._size)
            return
        self._stored = True
        await self._files.written(f"{request.bucket}/{request.key}")

    def end(self) -> None:
        """The exchange is over."""
        self._usage.end(self._size, stored=self._stored)


class _Answer:
    """S3's answer, made the tenant's."""

    def __init__(self, upload: _Upload | None) -> None:
        self.error: S3Error | None = None
        self._upload = upload

    def received(self, head: ResponseHead) -> ResponseHead | Deferred[ResponseHead]:
        """``Forward.on_response``."""
        if head.status not in (200, 204, 206, 304):
            self.error = _meaning(head.status)
            raise Refuse(self.error.code)
        fields = [
            (name, value)
            for name, value in head.headers
            if name.lower() in _ANSWERED or name.lower().startswith(_META)
        ]
        clean = ResponseHead(head.status, head.reason, fields)
        if self._upload is None:
            return clean
        return Deferred.fromCoroutine(self._stored(self._upload, clean))

    async def _stored(self, upload: _Upload, head: ResponseHead) -> ResponseHead:
        try:
            await upload.stored()
        except PBClusterError as error:
            log.warn("an upload cannot be answered: {error}", error=error)
            self.error = unavailable("the upload could not be recorded")
            raise Refuse(self.error.code) from None
        return head


def _meaning(status: int) -> S3Error:
    """What an error of the cluster's S3 is for the tenant."""
    if status in _REFUSALS:
        return S3Error(status, *_REFUSALS[status])
    if status == 400:
        return S3Error(400, "InvalidRequest", "S3 refuses the content or its conditions")
    log.warn("S3 answered {status} to a transfer of a tenant's file", status=status)
    return unavailable("the file storage does not work now")


class _Watch:
    """Cuts an upload off when the tenant is not ours any more."""

    def __init__(self, clock: IReactorTime, exchange: Exchange, files: TenantFiles) -> None:
        self._clock = clock
        self._exchange = exchange
        self._files = files
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Look each second from now on."""
        self._call = self._clock.callLater(WATCH_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        if self._files.owner.proven():
            self.start()
        else:
            spawn(self._prove(), "proof for an upload")

    async def _prove(self) -> None:
        try:
            await self._files.prove()
        except OwnershipLost:
            self._exchange.abort()
            return
        except PBClusterError:
            pass  # not known: the store decides, and it is asked again
        if self._call is not None:
            self.start()
