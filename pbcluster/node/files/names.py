"""What a tenant may call its objects, and where they lie in the cluster's bucket.

Pure. A tenant sees two buckets, ``storage`` and ``backups``; both are prefixes below its own. What
is not beyond doubt is refused: ``.`` and ``..``, empty segments, an encoded slash, a backslash,
control characters, anything that is not UTF-8.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from pbcluster.node.files.errors import S3Error

#: PocketBase's ``s3`` and ``backups.s3`` settings name these.
BUCKETS = ("storage", "backups")
#: S3's limit is 1024, our prefix and the record of a deletion (in base64) have to fit as well.
MAX_KEY_BYTES = 600
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HIDDEN_SLASH = re.compile(rb"%2f|%5c|\\", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_SAFE = "/-_.~"


def invalid(what: str, why: str) -> S3Error:
    """The refusal of a name."""
    return S3Error(400, "InvalidURI" if what == "key" else "InvalidArgument", f"the {what} {why}")


def split_path(path: bytes) -> tuple[str, str]:
    """``/bucket/key`` as it stands in a request → bucket and decoded key, which may be empty.

    :raises S3Error: the bucket is unknown, or the key is not allowed.
    """
    bucket_bytes, _, raw = path.lstrip(b"/").partition(b"/")
    bucket = bucket_bytes.decode("ascii", "replace")
    if path[:1] != b"/" or path[:2] == b"//" or bucket not in BUCKETS:
        raise S3Error(404, "NoSuchBucket", f"there are two buckets here: {', '.join(BUCKETS)}")
    return bucket, decode_key(raw) if raw else ""


def decode_key(raw: bytes) -> str:
    """A percent-encoded key → its text. :raises S3Error: it is not allowed."""
    if _BAD_ESCAPE.search(raw):
        raise invalid("key", "has a % that begins no escape")
    if _HIDDEN_SLASH.search(raw):
        raise invalid("key", "has an encoded slash or a backslash")
    try:
        key = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("key", "is not UTF-8") from None
    return check_key(key)


def check_key(key: str) -> str:
    """Give a key back. :raises S3Error: it is not allowed."""
    if not key or key.startswith("/") or key.endswith("/"):
        raise invalid("key", "is empty, or begins or ends with a slash")
    if len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise S3Error(400, "KeyTooLongError", f"a key has at most {MAX_KEY_BYTES} bytes")
    return _checked(key, "key")


def check_prefix(prefix: str, what: str = "prefix") -> str:
    """Give the beginning of keys back; it may be empty. :raises S3Error: it is not allowed."""
    if prefix.startswith("/") or len(prefix.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise invalid(what, f"begins with a slash or has over {MAX_KEY_BYTES} bytes")
    return _checked(prefix.removesuffix("/"), what) and prefix


def _checked(text: str, what: str) -> str:
    if _CONTROL.search(text) or "\\" in text or "\ufffd" in text:
        raise invalid(what, "has a control character, a backslash or bytes that are not UTF-8")
    if text and any(segment in ("", ".", "..") for segment in text.split("/")):
        raise invalid(what, "has a segment that is empty, '.' or '..'")
    return text


class TenantNames:
    """One tenant's keys.

    :ivar root: ``tenants/<id>/``.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def deletes(self) -> str:
        """What the records of its deletions begin with."""
        return f"{self.root}deletes/"

    def prefix(self, bucket: str) -> str:
        """Where a bucket of the tenant begins."""
        return f"{self.root}{bucket}/"

    def full(self, bucket: str, key: str) -> str:
        """A key of the tenant → the cluster's."""
        return self.prefix(bucket) + key

    def own(self, bucket: str, full: str) -> str | None:
        """The cluster's key → the tenant's; None: it lies elsewhere and is not told."""
        prefix = self.prefix(bucket)
        return full[len(prefix) :] if full.startswith(prefix) else None


def upstream_path(bucket: str, key: str) -> str:
    """The path of an object at the cluster's S3, in S3's own percent-encoding."""
    return "/" + quote(bucket, safe="") + "/" + quote(key, safe=_SAFE)
