"""Who signed a request of PocketBase's, and how requests to the cluster's S3 are signed (SigV4).

The signature is made anew with botocore and compared in constant time. Only the form that
PocketBase uses is taken: one ``Authorization`` field, never a signed URL, and a body that is
unsigned or named by its hash (which the real S3 then verifies). Bodies signed in chunks are
refused. No error says what would have been right.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pbcluster.node.files.errors import S3Error, not_implemented
from pbcluster.web.interfaces import RequestHead

#: As at AWS. Both clocks are this machine's.
MAX_SKEW = timedelta(minutes=15)
UNSIGNED = "UNSIGNED-PAYLOAD"
REGION = "us-east-1"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([A-Za-z0-9_-]{1,128})/(\d{8})/([a-z0-9-]{1,32})/s3/aws4_request"
    r", ?SignedHeaders=([a-z0-9;-]{1,2000}), ?Signature=([0-9a-f]{64})"
)
_AMZ_DATE = re.compile(r"\d{8}T\d{6}Z")
_HASH = re.compile("[0-9a-f]{64}")
#: Fields that change what a request means: they must be signed if they are there.
_MUST = ("host", "x-amz-date", "x-amz-content-sha256")


def file_secret(tenant_key: str, tenant_id: str) -> str:
    """The secret half of a tenant's key pair at the file gateway; the id is the other half.

    The same on every node of a cluster, stored nowhere by us.
    """
    text = b"file gateway of " + tenant_id.encode()
    return hmac.new(tenant_key.encode(), text, hashlib.sha256).hexdigest()


@attrs.frozen
class Signed:
    """Whose request it is. :ivar payload: ``UNSIGNED-PAYLOAD`` or the body's SHA-256."""

    access_key: str
    payload: str


class _Judge(S3SigV4Auth):
    """Signs exactly the fields that it is given."""

    def headers_to_sign(self, request: Any) -> Any:
        return request.headers


def _denied(message: str) -> S3Error:
    return S3Error(403, "AccessDenied", message)


def verify(head: RequestHead, secret_of: Callable[[str], str | None], now: datetime) -> Signed:
    """Verify a request's signature.

    :param secret_of: access key → secret, None: it is not known here.
    :param now: UTC.
    :raises S3Error: 403, or 501 for a form of signing that is not offered.
    """
    fields: dict[str, str] = {}
    for raw_name, value in head.headers:
        name = raw_name.lower().decode("latin-1")
        text = value.decode("utf-8", "surrogateescape")
        if name in fields and (name.startswith("x-amz-") or name == "authorization"):
            raise _denied("a field of the signature stands twice")
        fields[name] = text
    if "authorization" not in fields and b"X-Amz-Signature" in head.target:
        raise not_implemented("a signed URL")
    match = _AUTHORIZATION.fullmatch(fields.get("authorization", ""))
    if match is None:
        raise _denied("the request is not signed as AWS4-HMAC-SHA256 in its Authorization field")
    access_key, day, region, names, signature = match.groups()
    payload, stamp = fields.get("x-amz-content-sha256", ""), fields.get("x-amz-date", "")
    _check_time(stamp, day, now)
    if payload.startswith("STREAMING-"):
        raise not_implemented("a body signed in chunks")
    if payload != UNSIGNED and not _HASH.fullmatch(payload):
        raise _denied("x-amz-content-sha256 is neither UNSIGNED-PAYLOAD nor a SHA-256")
    signed_names = names.split(";")
    must = [*_MUST, *(name for name in fields if name.startswith("x-amz-"))]
    if any(name not in signed_names for name in must) or any(
        name not in fields for name in signed_names
    ):
        raise _denied("a field that must be signed is not, or a signed one is missing")
    # An unknown key costs the same work as a wrong signature.
    secret = secret_of(access_key)
    wanted = _signature(
        head, {name: fields[name] for name in signed_names}, region, stamp, secret or "unknown"
    )
    if not hmac.compare_digest(wanted, signature) or secret is None:
        raise S3Error(403, "SignatureDoesNotMatch", "the signature does not fit the request")
    return Signed(access_key, payload)


def _check_time(stamp: str, day: str, now: datetime) -> None:
    if not _AMZ_DATE.fullmatch(stamp) or not stamp.startswith(day):
        raise _denied("x-amz-date is missing or is not of the signature's day")
    try:
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _denied("x-amz-date is no date") from None
    if abs(now - signed_at) > MAX_SKEW:
        raise S3Error(403, "RequestTimeTooSkewed", "the request was signed too long ago")


def _signature(
    head: RequestHead, fields: dict[str, str], region: str, stamp: str, secret: str
) -> str:
    request = AWSRequest(
        method=head.method.decode("ascii"),
        url="http://" + fields["host"] + _spelt(head.target.decode("ascii")),
    )
    for name, value in fields.items():
        request.headers[name] = value
    request.context["timestamp"] = stamp
    judge = _Judge(Credentials("unused", secret), "s3", region)
    text = judge.string_to_sign(request, judge.canonical_request(request))
    return str(judge.signature(text, request))


def _spelt(target: str) -> str:
    """A space in a query may come as ``+``; it is signed as ``%20``."""
    path, mark, query = target.partition("?")
    return path + mark + query.replace("+", "%20")


class UpstreamSigner:
    """Signs requests to the cluster's S3 with the real keys, which leave it only as signatures."""

    def __init__(self, *, access_key: str, secret_key: str, region: str, base: str) -> None:
        """
        :param base: ``http(s)://HOST:PORT`` of S3.
        """
        self._credentials = Credentials(access_key, secret_key)
        self._region = region
        self._base = base

    def headers(
        self, method: str, path: str, fields: dict[str, str], payload: str
    ) -> list[tuple[bytes, bytes]]:
        """All header fields of a request, Host and Authorization included.

        :param path: with query, percent-encoded. :param payload: see :class:`Signed`.
        """
        request = AWSRequest(method=method, url=self._base + path, headers=fields)
        request.headers["x-amz-content-sha256"] = payload
        _PresetPayload(self._credentials, "s3", self._region).add_auth(request)
        host = self._base.partition("://")[2]
        signed = [(b"Host", host.encode())]
        for name, value in request.headers.items():
            text = value if isinstance(value, str) else value.decode()
            signed.append((name.encode(), text.encode("utf-8", "surrogateescape")))
        return signed


class _PresetPayload(S3SigV4Auth):
    """Signs for a body that is not here yet."""

    def payload(self, request: Any) -> str:
        return str(request.headers["x-amz-content-sha256"])

    def _modify_request_before_signing(self, request: Any) -> None:
        preset = request.headers["x-amz-content-sha256"]
        super()._modify_request_before_signing(request)
        del request.headers["x-amz-content-sha256"]
        request.headers["x-amz-content-sha256"] = preset
