"""What a tenant asks for: one of a dozen operations, or a refusal. Pure.

Only what PocketBase uses is known: object GET, HEAD, PUT, DELETE, copy, ListObjectsV2, and
multipart uploads. A query parameter that is not expected is refused, never ignored: it could mean
another operation at the real S3.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

import attrs

from pbcluster.node.files.errors import S3Error, not_implemented
from pbcluster.node.files.names import BUCKETS, check_prefix, decode_key, invalid, split_path

MAX_KEYS = 1000
MAX_PART = 10_000
_UPLOAD_ID = re.compile(r"[A-Za-z0-9._~+/=-]{1,512}")
#: Added by clients' libraries, without a meaning here.
_IGNORED = frozenset(("x-id", "fetch-owner"))
_OF_LIST = frozenset(
    (
        "list-type",
        "prefix",
        "delimiter",
        "max-keys",
        "continuation-token",
        "start-after",
        "encoding-type",
    )
)


class Operation(enum.Enum):
    """What is asked for."""

    GET = "get"
    HEAD = "head"
    PUT = "put"
    DELETE = "delete"
    COPY = "copy"
    LIST = "list"
    CREATE_UPLOAD = "create_upload"
    PUT_PART = "put_part"
    LIST_PARTS = "list_parts"
    COMPLETE_UPLOAD = "complete_upload"
    ABORT_UPLOAD = "abort_upload"


#: Those that change what is stored.
MUTATIONS = frozenset(Operation) - {
    Operation.GET,
    Operation.HEAD,
    Operation.LIST,
    Operation.LIST_PARTS,
}
#: Those that bring bytes of a file.
UPLOADS = frozenset((Operation.PUT, Operation.PUT_PART))


@attrs.frozen(kw_only=True)
class Listing:
    """What a listing is asked for. :ivar start_after: and ``token`` are as the client sent them.

    :ivar url_encoded: names are answered percent-encoded."""

    prefix: str = ""
    delimiter: str = ""
    max_keys: int = MAX_KEYS
    token: str = ""
    start_after: str = ""
    url_encoded: bool = False


@attrs.frozen(kw_only=True)
class FileRequest:
    """One understood request.

    :ivar source: of a copy: bucket and key. :ivar part: number of a part.
    """

    operation: Operation
    bucket: str
    key: str = ""
    upload_id: str = ""
    part: int = 0
    listing: Listing | None = None
    source: tuple[str, str] | None = None


def understand(method: bytes, target: bytes, copy_source: bytes | None) -> FileRequest:
    """Say what a request asks for.

    :param copy_source: the value of ``x-amz-copy-source``, None: there is none.
    :raises S3Error: it is not offered, or not right.
    """
    path, _, query_bytes = target.partition(b"?")
    bucket, key = split_path(path)
    query = _query(query_bytes)
    if not key:
        return _of_bucket(method, bucket, query)
    if copy_source is not None and (method != b"PUT" or query):
        raise not_implemented("a copy of a part")
    if copy_source is not None:
        source = split_path(b"/" + copy_source.removeprefix(b"/"))
        if not source[1]:
            raise invalid("copy source", "names no object")
        return FileRequest(operation=Operation.COPY, bucket=bucket, key=key, source=source)
    if not query:
        plain = _PLAIN.get(method)
        if plain is None:
            raise S3Error(405, "MethodNotAllowed", "this method is not offered for objects")
        return FileRequest(operation=plain, bucket=bucket, key=key)
    return _multipart(method, bucket, key, query)


_PLAIN = {
    b"GET": Operation.GET,
    b"HEAD": Operation.HEAD,
    b"PUT": Operation.PUT,
    b"DELETE": Operation.DELETE,
}


def _query(raw: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=20,
        )
    except (UnicodeDecodeError, ValueError):
        raise invalid("query", "is not understood") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise invalid("query", "names a parameter twice")
    return {name: value for name, value in query.items() if name not in _IGNORED}


def _of_bucket(method: bytes, bucket: str, query: Mapping[str, str]) -> FileRequest:
    if method != b"GET" or query.get("list-type") != "2":
        raise not_implemented("a request about a bucket other than ListObjectsV2")
    unknown = sorted(set(query) - _OF_LIST)
    if unknown:
        raise not_implemented("a listing with other parameters than those of ListObjectsV2")
    limit = query.get("max-keys", str(MAX_KEYS))
    if not re.fullmatch("[0-9]{1,9}", limit):
        raise invalid("max-keys", "is no number")
    if query.get("delimiter", "") not in ("", "/"):
        raise not_implemented("a delimiter other than /")
    listing = Listing(
        prefix=check_prefix(query.get("prefix", "")),
        delimiter=query.get("delimiter", ""),
        max_keys=min(int(limit), MAX_KEYS),
        token=query.get("continuation-token", ""),
        start_after=check_prefix(query.get("start-after", ""), "start-after"),
        url_encoded=query.get("encoding-type", "") == "url",
    )
    return FileRequest(operation=Operation.LIST, bucket=bucket, listing=listing)


def _multipart(method: bytes, bucket: str, key: str, query: Mapping[str, str]) -> FileRequest:
    if method == b"POST" and query == {"uploads": ""}:
        return FileRequest(operation=Operation.CREATE_UPLOAD, bucket=bucket, key=key)
    upload_id = query.get("uploadId", "")
    named = set(query)
    if "uploadId" in query and not _UPLOAD_ID.fullmatch(upload_id):
        raise S3Error(404, "NoSuchUpload", "there is no such upload")
    part = query.get("partNumber", "")
    if method == b"PUT" and named == {"uploadId", "partNumber"}:
        if not re.fullmatch("[0-9]{1,5}", part) or not 1 <= int(part) <= MAX_PART:
            raise invalid("partNumber", f"is not 1 to {MAX_PART}")
        return FileRequest(
            operation=Operation.PUT_PART,
            bucket=bucket,
            key=key,
            upload_id=upload_id,
            part=int(part),
        )
    known = {
        b"POST": Operation.COMPLETE_UPLOAD,
        b"DELETE": Operation.ABORT_UPLOAD,
        b"GET": Operation.LIST_PARTS,
    }.get(method)
    if known is None or named != {"uploadId"}:
        raise not_implemented("this operation on objects")
    return FileRequest(operation=known, bucket=bucket, key=key, upload_id=upload_id)


__all__ = [
    "BUCKETS",
    "MUTATIONS",
    "UPLOADS",
    "FileRequest",
    "Listing",
    "Operation",
    "decode_key",
    "understand",
]
