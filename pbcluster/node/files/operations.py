"""What is done for a tenant without moving content through this process.

Each operation gives the answer's status and body, in the tenant's names. A page of a listing that
has only hidden objects is never given away empty while more follow: PocketBase takes an empty page
for the end.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable

import attrs

from pbcluster.node.files import documents
from pbcluster.node.files.documents import Page
from pbcluster.node.files.errors import S3Error, no_such_key
from pbcluster.node.files.names import invalid
from pbcluster.node.files.requests import FileRequest, Listing, Operation
from pbcluster.node.files.tenant_files import FilesSetting, TenantFiles
from pbcluster.web.interfaces import Exchange, RequestHead

#: Pages of the real listing that one request may read past.
MAX_PAGES = 60
_META = b"x-amz-meta-"
_CHECK_DIGITS = 16

#: Status and body.
Reply = tuple[int, bytes]


@attrs.frozen
class _Call:
    """One operation and what it works with."""

    exchange: Exchange
    files: TenantFiles
    request: FileRequest
    setting: FilesSetting

    @property
    def key(self) -> str:
        """With its bucket, below the tenant's prefix."""
        return f"{self.request.bucket}/{self.request.key}"

    @property
    def full(self) -> str:
        """In the cluster's bucket."""
        return self.files.names.full(self.request.bucket, self.request.key)


async def carry_out(
    exchange: Exchange, files: TenantFiles, request: FileRequest, setting: FilesSetting
) -> Reply | None:
    """Do it, under a proof that is held.

    :returns: None: it was answered already. :raises S3Error, PBClusterError: it was not done.
    """
    return await _OPERATIONS[request.operation](_Call(exchange, files, request, setting))


async def _list(call: _Call) -> Reply:
    asked = call.request.listing
    assert asked is not None
    page = await _page(call, asked) if asked.max_keys else Page((), ())
    return 200, documents.list_document(call.request.bucket, asked, page)


async def _page(call: _Call, asked: Listing) -> Page:
    ledger, names, bucket = await call.files.ledger(), call.files.names, call.request.bucket
    token = open_token(asked.token, call.files.owner.tenant_id)
    start_after = names.full(bucket, asked.start_after) if asked.start_after else ""
    for _ in range(MAX_PAGES):
        raw = await call.setting.bucket.list_page(
            names.full(bucket, asked.prefix),
            delimiter=asked.delimiter,
            limit=asked.max_keys,
            token=token,
            start_after=start_after,
        )
        entries = []
        for each in raw.entries:
            own = names.own(bucket, each.key)
            if own and not own.endswith("/") and not ledger.hidden(f"{bucket}/{own}"):
                entries.append(attrs.evolve(each, key=own))
        owned = (names.own(bucket, each) for each in raw.groups)
        groups = [each for each in owned if each]
        token = raw.token
        if entries or groups or not token:
            break
    return Page(entries, groups, seal_token(token, call.files.owner.tenant_id))


def seal_token(token: str, tenant_id: str) -> str:
    """A continuation token of the real S3's as the tenant gets it; empty stays empty."""
    if not token:
        return ""
    return base64.urlsafe_b64encode((_check(token, tenant_id) + token).encode()).decode()


def open_token(sealed: str, tenant_id: str) -> str:
    """Back again. :raises S3Error: it is none that this tenant was given."""
    if not sealed:
        return ""
    try:
        text = base64.b64decode(sealed, altchars=b"-_", validate=True).decode("utf-8")
    except ValueError:
        raise invalid("continuation-token", "is not one that was given") from None
    check, token = text[:_CHECK_DIGITS], text[_CHECK_DIGITS:]
    if check != _check(token, tenant_id):
        raise invalid("continuation-token", "is not one that was given")
    return token


def _check(token: str, tenant_id: str) -> str:
    # Against mistakes only: whatever the token, the listing is below the tenant's prefix.
    return hashlib.sha256(f"{tenant_id} {token}".encode()).hexdigest()[:_CHECK_DIGITS]


async def _delete(call: _Call) -> Reply:
    await call.files.delete(call.key)
    return 204, b""


async def _copy(call: _Call) -> Reply:
    assert call.request.source is not None
    source_bucket, source_key = call.request.source
    ledger, files = await call.files.ledger(), call.files
    source = files.names.full(source_bucket, source_key)
    hidden = ledger.hidden(f"{source_bucket}/{source_key}")
    found = None if hidden else await call.setting.bucket.head(source)
    if found is None:
        raise no_such_key()
    usage = await files.usage_for(found.size)
    await files.begin_write(call.key)
    usage.begin(found.size)
    stored = False
    try:
        await files.prove()
        made = await call.setting.bucket.copy(source, call.full)
        await files.written(call.key)
        stored = True
    finally:
        usage.end(found.size, stored=stored)
        files.end_write(call.key)
    return 200, documents.copy_document(made.etag, made.modified)


async def _create(call: _Call) -> Reply:
    await call.files.usage_for(0)
    head = call.exchange.head
    upload_id = await call.setting.bucket.create_upload(
        call.full, _text(head.get(b"content-type") or b""), metadata_of(head)
    )
    document = documents.upload_document(call.request.bucket, call.request.key, upload_id)
    return 200, document


def metadata_of(head: RequestHead) -> dict[str, str]:
    """The ``x-amz-meta-`` fields of a request, by the rest of their names."""
    return {
        _text(name[len(_META) :].lower()): _text(value)
        for name, value in head.headers
        if name.lower().startswith(_META)
    }


def _text(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise S3Error(400, "InvalidArgument", "a header field is not ASCII") from None


async def _complete(call: _Call) -> Reply | None:
    body = await call.exchange.read_body(documents.MAX_COMPLETE_BYTES)
    parts = documents.read_complete(body)
    files, upload_id = call.files, call.request.upload_id
    usage = await files.usage_for(0)
    await files.begin_write(call.key)
    try:
        await files.prove()
        etag = await call.setting.bucket.complete_upload(call.full, upload_id, parts)
        await files.written(call.key)
        usage.upload_over(upload_id, stored=True)
    finally:
        files.end_write(call.key)
    return 200, documents.complete_document(call.request.bucket, call.request.key, etag)


async def _abort(call: _Call) -> Reply:
    usage = await call.files.usage_for(0)
    await call.setting.bucket.abort_upload(call.full, call.request.upload_id)
    usage.upload_over(call.request.upload_id, stored=False)
    return 204, b""


async def _parts(call: _Call) -> Reply:
    found = await call.setting.bucket.list_parts(call.full, call.request.upload_id)
    bucket, key = call.request.bucket, call.request.key
    return 200, documents.parts_document(bucket, key, call.request.upload_id, found)


_OPERATIONS: dict[Operation, Callable[[_Call], Awaitable[Reply | None]]] = {
    Operation.LIST: _list,
    Operation.DELETE: _delete,
    Operation.COPY: _copy,
    Operation.CREATE_UPLOAD: _create,
    Operation.COMPLETE_UPLOAD: _complete,
    Operation.ABORT_UPLOAD: _abort,
    Operation.LIST_PARTS: _parts,
}
