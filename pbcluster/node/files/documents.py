"""The XML that is answered and the XML that is read. Pure.

Every answer is built here from values, so that no word of the cluster's S3 (its bucket, its keys,
its address) reaches a tenant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import attrs

from pbcluster.node.files.errors import S3Error
from pbcluster.node.files.requests import MAX_PART, Listing

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
#: 10,000 parts of some 100 bytes each.
MAX_COMPLETE_BYTES = 2 * 1024 * 1024


@attrs.frozen
class Entry:
    """One object of a listing. :ivar modified: as S3 writes it, in UTC."""

    key: str
    size: int
    etag: str
    modified: str


@attrs.frozen
class Page:
    """What a listing found. :ivar token: for the next page, empty: this is the last."""

    entries: Sequence[Entry]
    groups: Sequence[str]
    token: str = ""


def _document(name: str, content: str) -> bytes:
    return f'{_HEAD}<{name} xmlns="{_SPACE}">{content}</{name}>'.encode()


def _fields(**values: object) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def list_document(bucket: str, asked: Listing, page: Page) -> bytes:
    """The answer of ListObjectsV2."""
    spell: Callable[[str], str] = (
        (lambda text: quote(text, safe="/")) if asked.url_encoded else (lambda text: text)
    )
    content = _fields(Name=bucket, Prefix=spell(asked.prefix), MaxKeys=asked.max_keys)
    content += _fields(
        KeyCount=len(page.entries) + len(page.groups),
        IsTruncated="true" if page.token else "false",
    )
    if asked.url_encoded:
        content += _fields(EncodingType="url")
    if asked.delimiter:
        content += _fields(Delimiter=asked.delimiter)
    if page.token:
        content += _fields(NextContinuationToken=page.token)
    for each in page.entries:
        row = _fields(
            Key=spell(each.key),
            LastModified=each.modified,
            ETag=each.etag,
            Size=each.size,
            StorageClass="STANDARD",
        )
        content += f"<Contents>{row}</Contents>"
    for group in page.groups:
        content += f"<CommonPrefixes>{_fields(Prefix=spell(group))}</CommonPrefixes>"
    return _document("ListBucketResult", content)


def copy_document(etag: str, modified: str) -> bytes:
    """The answer of CopyObject."""
    return _document("CopyObjectResult", _fields(ETag=etag, LastModified=modified))


def upload_document(bucket: str, key: str, upload_id: str) -> bytes:
    """The answer of CreateMultipartUpload."""
    content = _fields(Bucket=bucket, Key=key, UploadId=upload_id)
    return _document("InitiateMultipartUploadResult", content)


def complete_document(bucket: str, key: str, etag: str) -> bytes:
    """The answer of CompleteMultipartUpload."""
    content = _fields(Location=f"/{bucket}/{key}", Bucket=bucket, Key=key, ETag=etag)
    return _document("CompleteMultipartUploadResult", content)


def parts_document(bucket: str, key: str, upload_id: str, parts: Sequence[Entry]) -> bytes:
    """The answer of ListParts. :param parts: with their numbers as keys."""
    content = _fields(Bucket=bucket, Key=key, UploadId=upload_id, IsTruncated="false")
    for each in parts:
        row = _fields(
            PartNumber=each.key, LastModified=each.modified, ETag=each.etag, Size=each.size
        )
        content += f"<Part>{row}</Part>"
    return _document("ListPartsResult", content)


def read_complete(body: bytes) -> list[tuple[int, str]]:
    """Part numbers and ETags of a CompleteMultipartUpload. :raises S3Error: it is not one."""
    wrong = S3Error(400, "MalformedXML", "the list of parts is not understood")
    # Nothing honest declares types or entities here.
    if b"<!" in body:
        raise wrong
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        raise wrong from None
    parts: list[tuple[int, str]] = []
    for part in root:
        values = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in part}
        number, etag = values.get("PartNumber", ""), values.get("ETag", "")
        if not (number.isascii() and number.isdigit()) or not etag or len(etag) > 200:
            raise wrong
        parts.append((int(number), etag))
    numbers = [number for number, _ in parts]
    in_range = parts and numbers[0] >= 1 and numbers[-1] <= MAX_PART
    if not in_range or numbers != sorted(set(numbers)):
        raise S3Error(400, "InvalidPartOrder", "the parts are not in ascending order")
    return parts
